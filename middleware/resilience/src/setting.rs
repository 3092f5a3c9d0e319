//! Validation of settings.

use std::{borrow::Cow, io, path::Path};

use crate::redact;

/// Setting that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {rule}")]
pub struct Invalid {
    /// Key, e.g. `store.url`.
    pub key: Cow<'static, str>,
    /// Broken rule, e.g. `must be greater than 0`. Never the value of a secret.
    pub rule: String,
}

impl Invalid {
    /// The setting `key` breaks `rule`.
    pub fn new(key: impl Into<Cow<'static, str>>, rule: impl Into<String>) -> Self {
        Self { key: key.into(), rule: rule.into() }
    }

    /// The file of the setting `key` cannot be read.
    pub fn unreadable(key: impl Into<Cow<'static, str>>, path: &Path, error: &io::Error) -> Self {
        Self::new(key, format!("cannot read {}: {error}", path.display()))
    }

    /// Adds the section that contains the setting to its key.
    #[must_use]
    pub fn in_section(self, section: &str) -> Self {
        Self { key: format!("{section}.{}", self.key).into(), rule: self.rule }
    }
}

/// Returns the text of a file, such as a mounted secret, without one line break at its end.
/// Everything else belongs to the secret, which no log shows from now on ([`redact::register`]).
pub fn read_secret_file(path: &Path) -> io::Result<String> {
    let mut text = std::fs::read_to_string(path)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    redact::register(&text);
    Ok(text)
}
