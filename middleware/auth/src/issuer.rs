//! Trusted issuers: their rules, and the namespaces that keep their subjects apart.

use std::collections::BTreeSet;

use palisade_resilience::{
    context::{InvalidSubject, MAX_PREFIX_CHARS, Subject},
    setting::Invalid,
};

use super::{claims::Claims, jwks::JwksSource};

/// Trusted token issuer.
#[derive(Debug)]
pub struct Issuer {
    /// Required `iss`, compared exactly.
    pub name: String,
    /// Required member of `aud`.
    pub audience: String,
    /// Whether the issuer is a service of this system. Its tokens are `int+jwt`, have `act`, and
    /// live at most 60 s. Other issuers sign user tokens (`JWT` or `at+jwt`).
    pub internal: bool,
    /// Keys that verify its signatures.
    pub keys: JwksSource,
    /// What its tokens may say.
    pub rules: Rules,
}

/// Rules for the tokens of one issuer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Name of the issuer in the settings (`auth.issuers.<key>`), for errors. Default: `iss`.
    pub key: Option<String>,
    /// Prefix of its subjects and token ids. Empty for at most one issuer of user tokens.
    pub subject_prefix: String,
    /// Scopes that it may grant; others are ignored. `None`: all.
    pub allowed_scopes: Option<BTreeSet<String>>,
    /// Whether a token needs no `typ`.
    pub typ_optional: bool,
    /// Whether `scope` may be an array.
    pub scope_as_array: bool,
}

impl Issuer {
    /// Creates an issuer of user tokens for people and scripts, such as an identity provider.
    pub fn of_users(name: impl Into<String>, audience: impl Into<String>, keys: JwksSource) -> Self {
        Self { name: name.into(), audience: audience.into(), internal: false, keys, rules: Rules::default() }
    }

    /// Creates an issuer for a calling service; `name` is its service name.
    pub fn of_service(name: impl Into<String>, audience: impl Into<String>, keys: JwksSource) -> Self {
        Self { internal: true, ..Self::of_users(name, audience, keys) }
    }

    /// Sets the rules for its tokens.
    #[must_use]
    pub fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    pub(super) fn namespace(&self) -> Namespace<'_> {
        let Self { name, internal, rules, .. } = self;
        Namespace { key: rules.key.as_deref().unwrap_or(name), iss: name, prefix: (!internal).then_some(rules.subject_prefix.as_str()) }
    }

    /// Returns the scopes of a token that the issuer may grant.
    pub(super) fn granted(&self, claims: &Claims) -> BTreeSet<String> {
        let mut scopes = claims.scopes();
        if let Some(allowed) = &self.rules.allowed_scopes {
            scopes.retain(|scope| allowed.contains(scope));
        }
        scopes
    }
}

/// Names of an issuer, as far as other issuers may clash with them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Namespace<'a> {
    /// Name in the settings.
    pub(super) key: &'a str,
    pub(super) iss: &'a str,
    /// Prefix of its subjects; `None` for a service, whose tokens carry whole subjects.
    pub(super) prefix: Option<&'a str>,
}

/// Checks that no token matches two issuers, and that no two issuers share a subject.
pub(super) fn check_namespaces(all: &[Namespace<'_>]) -> Result<(), Invalid> {
    for (index, issuer) in all.iter().enumerate() {
        if let Some(prefix) = issuer.prefix {
            check_prefix(issuer.key, prefix)?;
        }
        for earlier in &all[..index] {
            if issuer.iss == earlier.iss {
                let rule = format!("is {:?}, as auth.issuers.{}.issuer: list an issuer once, with all its keys", issuer.iss, earlier.key);
                return Err(Invalid::new(setting(issuer.key, "issuer"), rule));
            }
            let (Some(prefix), Some(other)) = (issuer.prefix, earlier.prefix) else { continue };
            match (prefix.is_empty(), other.is_empty()) {
                (true, true) => {
                    let rule = format!(
                        "is required: auth.issuers.{} has none either, and users with an equal sub would share orders, idempotency keys, \
                         limits and revocations",
                        earlier.key
                    );
                    return Err(Invalid::new(setting(issuer.key, "subject_prefix"), rule));
                }
                (false, false) if prefix.starts_with(other) || other.starts_with(prefix) => {
                    let rule = format!("{prefix:?} and {other:?} of auth.issuers.{}: one must not begin with the other", earlier.key);
                    return Err(Invalid::new(setting(issuer.key, "subject_prefix"), rule));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn check_prefix(key: &str, prefix: &str) -> Result<(), Invalid> {
    if prefix.chars().count() > MAX_PREFIX_CHARS || prefix.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let rule = format!("must have at most {MAX_PREFIX_CHARS} characters, without white space and control characters");
        return Err(Invalid::new(setting(key, "subject_prefix"), rule));
    }
    Ok(())
}

/// Key of a setting of the issuer `key`.
pub(super) fn setting(key: &str, name: &str) -> String {
    format!("auth.issuers.{key}.{name}")
}

/// Issuers whose subjects differ.
#[derive(Debug)]
pub(super) struct Issuers(Vec<Issuer>);

/// `sub` or `jti` that is no subject of its issuer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForeignSubject {
    #[error("the sub {0}")]
    Invalid(#[from] InvalidSubject),
    #[error("it begins with the prefix of another issuer")]
    OfAnotherIssuer,
}

impl Issuers {
    /// Fails if two issuers share tokens or subjects.
    pub(super) fn new(issuers: Vec<Issuer>) -> Result<Self, Invalid> {
        let namespaces: Vec<_> = issuers.iter().map(Issuer::namespace).collect();
        check_namespaces(&namespaces)?;
        Ok(Self(issuers))
    }

    pub(super) fn get(&self, index: usize) -> &Issuer {
        &self.0[index]
    }

    /// Returns the issuer of a token and its index.
    pub(super) fn find(&self, iss: &str) -> Option<(usize, &Issuer)> {
        self.0.iter().enumerate().find(|(_, issuer)| issuer.name == iss)
    }

    /// Returns the subject of a token of `issuer`.
    pub(super) fn subject(&self, issuer: &Issuer, sub: &str) -> Result<Subject, ForeignSubject> {
        self.check_owner(issuer, sub)?;
        // A service passes on the whole subject that the gateway has verified.
        Ok(if issuer.internal { Subject::parse(sub)? } else { Subject::of_issuer(&issuer.rules.subject_prefix, sub)? })
    }

    /// Returns the id of a token of `issuer`: a `jti` too is unique only within its issuer.
    pub(super) fn token_id(&self, issuer: &Issuer, jti: &str) -> Result<String, ForeignSubject> {
        self.check_owner(issuer, jti)?;
        Ok(format!("{}{jti}", issuer.rules.subject_prefix))
    }

    /// Rejects a name of the issuer without a prefix that reads like one of another issuer.
    fn check_owner(&self, issuer: &Issuer, name: &str) -> Result<(), ForeignSubject> {
        let is_prefixed = issuer.internal || !issuer.rules.subject_prefix.is_empty();
        let is_foreign = |other: &Issuer| !other.rules.subject_prefix.is_empty() && name.starts_with(&other.rules.subject_prefix);
        if !is_prefixed && self.0.iter().any(is_foreign) { Err(ForeignSubject::OfAnotherIssuer) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user<'a>(key: &'a str, iss: &'a str, prefix: &'a str) -> Namespace<'a> {
        Namespace { key, iss, prefix: Some(prefix) }
    }

    #[test]
    fn issuers_share_no_subjects() {
        let service = |key, iss| Namespace { key, iss, prefix: None };
        let long = "x".repeat(MAX_PREFIX_CHARS + 1);
        for (all, expected) in [
            (vec![user("a", "https://a", "")], None),
            (vec![user("a", "https://a", "a:"), user("b", "https://b", ""), user("c", "https://c", "c:")], None),
            (vec![service("gateway", "gateway"), service("orders", "orders"), user("a", "https://a", "")], None),
            (
                vec![user("a", "https://a", ""), user("b", "https://b", "")],
                Some(["auth.issuers.b.subject_prefix: is required", "auth.issuers.a"]),
            ),
            (
                vec![user("a", "https://a", "a"), user("b", "https://b", "ab")],
                Some(["auth.issuers.b.subject_prefix: \"ab\"", "auth.issuers.a"]),
            ),
            (
                vec![user("a", "https://a", "a:"), user("b", "https://b", "a:")],
                Some(["auth.issuers.b.subject_prefix: \"a:\"", "auth.issuers.a"]),
            ),
            (
                vec![user("a", "https://a", "a:"), user("b", "https://a", "b:")],
                Some(["auth.issuers.b.issuer: is \"https://a\"", "auth.issuers.a"]),
            ),
            (
                vec![service("gateway", "gateway"), user("b", "gateway", "")],
                Some(["auth.issuers.b.issuer: is \"gateway\"", "auth.issuers.gateway"]),
            ),
            (vec![user("a", "https://a", "a b")], Some(["auth.issuers.a.subject_prefix: must have", "32"])),
            (vec![user("a", "https://a", &long)], Some(["auth.issuers.a.subject_prefix: must have", "32"])),
        ] {
            match (check_namespaces(&all), expected) {
                (Ok(()), None) => {}
                (Err(error), Some([start, part])) => {
                    let error = error.to_string();
                    assert!(error.starts_with(start) && error.contains(part), "{all:?}: {error}");
                }
                (found, _) => panic!("{all:?}: {found:?}"),
            }
        }
    }
}
