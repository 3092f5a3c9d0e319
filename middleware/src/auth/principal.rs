//! The verified caller.

use std::collections::BTreeSet;

/// Who asks: what a verified token says, and nothing that was not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// `sub`: the user, or the service itself when no user is behind the call.
    pub subject: String,
    /// Granted scopes.
    pub scopes: BTreeSet<String>,
    /// `act.sub`: the service that calls on the subject's behalf. Only internal tokens have it.
    pub actor: Option<String>,
    /// `iss`: who vouches for all this.
    pub issuer: String,
    /// `jti`, if the token has one.
    pub token_id: Option<String>,
    /// `iat` in seconds since 1970, if the token has one.
    pub issued_at: Option<i64>,
    /// `exp` in seconds since 1970.
    pub expires_at: i64,
}

impl Principal {
    /// A user on whose behalf a service works without a request at hand, such as the owner of a resumed order. Grants nothing.
    pub fn on_behalf_of(subject: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            scopes: BTreeSet::new(),
            actor: None,
            issuer: String::new(),
            token_id: None,
            issued_at: None,
            expires_at: i64::MAX,
        }
    }

    /// Whether `scope` was granted, to the letter.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.contains(scope)
    }
}
