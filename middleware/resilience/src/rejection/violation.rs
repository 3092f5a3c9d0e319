//! Violation of a validation rule.

use std::borrow::Cow;

/// Violated rule of a request field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Field path in the caller's spelling, e.g. `items[0].quantity`.
    pub field: String,
    /// Stable slug of the rule.
    pub code: Cow<'static, str>,
    /// Human-readable sentence.
    pub message: String,
}

impl Violation {
    /// Creates a violation of the rule `code` by `field`.
    pub fn new(field: impl Into<String>, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { field: field.into(), code: code.into(), message: message.into() }
    }
}
