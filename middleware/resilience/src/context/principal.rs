//! Verified identity of the caller.

use std::collections::BTreeSet;

use super::Subject;

/// Caller identity, from the claims of a verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The user, or the service itself in calls without a user.
    pub subject: Subject,
    /// Granted scopes.
    pub scopes: BTreeSet<String>,
    /// `act.sub`: the service that calls on behalf of the subject. Only internal tokens have it.
    pub actor: Option<String>,
    /// `iss`: the issuer of the token.
    pub issuer: String,
    /// `jti` with the prefix of the issuer, if the token has one.
    pub token_id: Option<String>,
    /// `iat` in seconds since 1970, if the token has one.
    pub issued_at: Option<i64>,
    /// `exp` in seconds since 1970.
    pub expires_at: i64,
}

impl Principal {
    /// Creates the principal of a user without a request, such as the owner of a resumed order. It
    /// has no scopes.
    pub fn on_behalf_of(subject: impl Into<Subject>) -> Self {
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

    /// Returns whether `scope` was granted. The comparison is exact.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.contains(scope)
    }
}
