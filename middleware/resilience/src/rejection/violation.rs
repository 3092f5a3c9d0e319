//! Violation of a validation rule.

use std::borrow::Cow;

use tonic_types::ErrorDetails;

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
    /// Extracts the violations of a status (`BadRequest`).
    pub fn from_error_details(details: &ErrorDetails) -> Vec<Self> {
        let violations = details.bad_request().map(|request| request.field_violations.as_slice()).unwrap_or_default();
        violations.iter().map(|rule| Self::new(&rule.field, rule.reason.to_ascii_lowercase(), &rule.description)).collect()
    }

    /// Creates a violation of the rule `code` by `field`.
    pub fn new(field: impl Into<String>, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { field: field.into(), code: code.into(), message: message.into() }
    }
}
