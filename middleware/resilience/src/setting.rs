//! Validation of settings.

/// Setting that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {rule}")]
pub struct Invalid {
    /// Key, e.g. `store.url`.
    pub key: &'static str,
    /// Broken rule, e.g. `must be greater than 0`.
    pub rule: String,
}

impl Invalid {
    /// The setting `key` breaks `rule`.
    pub fn new(key: &'static str, rule: impl Into<String>) -> Self {
        Self { key, rule: rule.into() }
    }
}
