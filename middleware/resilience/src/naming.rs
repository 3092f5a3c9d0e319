//! Names of the application in everything that leaves it: metrics, error details, problem
//! documents, authentication challenges and environment variables.

use std::{borrow::Cow, sync::OnceLock};

static NAMING: OnceLock<Naming> = OnceLock::new();

/// Prefix of metric names in code, which [`Naming::metric_prefix`] replaces.
const OWN_PREFIX: &str = "palisade.";

/// Names of an application. Installed once, before anything else:
///
/// ```
/// use palisade_resilience::naming::Naming;
///
/// const NAMING: Naming = Naming {
///     metric_prefix: "shop",
///     error_domain: "shop.example",
///     problem_base_uri: "https://shop.example/problems/",
///     realm: "shop",
///     environment_prefix: "SHOP_",
/// };
/// NAMING.install()?;
/// assert_eq!(palisade_resilience::naming::current(), &NAMING);
/// assert!(Naming { realm: "other", ..NAMING }.install().is_err());
/// # Ok::<_, palisade_resilience::naming::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Naming {
    /// First part of the names of metrics that no convention defines: lower-case letters, digits
    /// and `_`. `shop` gives `shop.requests.shed`. Also the `service.namespace` of spans.
    pub metric_prefix: &'static str,
    /// `ErrorInfo.domain` of rejections: a registered domain or another unique name. A called
    /// service with the same domain is trusted to choose reasons and violations.
    pub error_domain: &'static str,
    /// Start of the `type` of problem documents; the reason follows. A relative or absolute URI.
    pub problem_base_uri: &'static str,
    /// `realm` of `WWW-Authenticate` (RFC 9110 §11.5).
    pub realm: &'static str,
    /// Start of environment variables with settings: upper-case letters, digits and `_`.
    pub environment_prefix: &'static str,
}

impl Default for Naming {
    /// The names of this library, for applications that install no others.
    fn default() -> Self {
        Self {
            metric_prefix: "palisade",
            error_domain: "palisade",
            problem_base_uri: "/problems/",
            realm: "palisade",
            environment_prefix: "PALISADE_",
        }
    }
}

/// Reason why names are rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A name has a form that its users would not accept.
    #[error("invalid naming.{field}: {value:?}")]
    Invalid {
        /// Field of [`Naming`].
        field: &'static str,
        /// Its value.
        value: &'static str,
    },
    /// Other names are installed or in use.
    #[error("naming is already {installed:?}, install {refused:?} before the first layer is made")]
    AlreadyInstalled {
        /// Names in use.
        installed: &'static Naming,
        /// Names that were to be installed.
        refused: Box<Naming>,
    },
}

impl Naming {
    /// Installs the names of the process. The same names may be installed again. Fails if a name is
    /// invalid, or if other names are already in use: a layer was made, or a rejection answered.
    pub fn install(self) -> Result<(), Error> {
        self.validate()?;
        let installed = NAMING.get_or_init(|| self);
        if *installed == self { Ok(()) } else { Err(Error::AlreadyInstalled { installed, refused: Box::new(self) }) }
    }

    fn validate(&self) -> Result<(), Error> {
        let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        // Neither of these needs quoting or escaping in a header or in a URI.
        let printable = |c: char| c.is_ascii_graphic() && !"\"\\<>`{}|^".contains(c);
        let starts_with_letter = |text: &str| text.starts_with(|c: char| c.is_ascii_alphabetic());
        let checks = [
            ("metric_prefix", self.metric_prefix, starts_with_letter(self.metric_prefix) && self.metric_prefix.chars().all(lower)),
            ("error_domain", self.error_domain, !self.error_domain.is_empty() && self.error_domain.chars().all(printable)),
            ("problem_base_uri", self.problem_base_uri, !self.problem_base_uri.is_empty() && self.problem_base_uri.chars().all(printable)),
            ("realm", self.realm, !self.realm.is_empty() && self.realm.chars().all(|c| c == ' ' || printable(c))),
            (
                "environment_prefix",
                self.environment_prefix,
                starts_with_letter(self.environment_prefix) && self.environment_prefix.chars().all(upper),
            ),
        ];
        match checks.into_iter().find(|(_, _, valid)| !valid) {
            Some((field, value, _)) => Err(Error::Invalid { field, value }),
            None => Ok(()),
        }
    }

    /// Returns the exported name of the metric that code calls `name`. Only names that start with
    /// `palisade.` carry the prefix of the application.
    pub fn metric_name(&self, name: &'static str) -> Cow<'static, str> {
        match name.strip_prefix(OWN_PREFIX) {
            Some(rest) if OWN_PREFIX.strip_suffix('.') != Some(self.metric_prefix) => format!("{}.{rest}", self.metric_prefix).into(),
            _ => name.into(),
        }
    }

    /// Returns the `type` of the problem documents for a reason.
    pub fn problem_type(&self, slug: &str) -> String {
        format!("{}{slug}", self.problem_base_uri)
    }

    /// Returns the challenge for a request without valid credentials: `Bearer realm="…"`.
    pub fn bearer_challenge(&self) -> String {
        format!("Bearer realm=\"{}\"", self.realm)
    }
}

/// Returns the names of the process. The first use without installed names installs the default.
pub fn current() -> &'static Naming {
    NAMING.get_or_init(Naming::default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_prefix_replaces_the_own_one_only() {
        let shop = Naming { metric_prefix: "shop", ..Naming::default() };
        assert_eq!(shop.metric_name("palisade.requests.shed"), "shop.requests.shed");
        assert_eq!(shop.metric_name("http.server.request.duration"), "http.server.request.duration");
        assert!(matches!(Naming::default().metric_name("palisade.requests.shed"), Cow::Borrowed("palisade.requests.shed")));
    }

    #[test]
    fn invalid_names_are_rejected() {
        let valid = Naming::default();
        assert_eq!(valid.validate(), Ok(()));
        for (naming, field) in [
            (Naming { metric_prefix: "", ..valid }, "metric_prefix"),
            (Naming { metric_prefix: "1shop", ..valid }, "metric_prefix"),
            (Naming { metric_prefix: "Shop", ..valid }, "metric_prefix"),
            (Naming { error_domain: "", ..valid }, "error_domain"),
            (Naming { problem_base_uri: "/a b/", ..valid }, "problem_base_uri"),
            (Naming { realm: "a\"b", ..valid }, "realm"),
            (Naming { environment_prefix: "shop_", ..valid }, "environment_prefix"),
        ] {
            assert!(matches!(naming.validate(), Err(Error::Invalid { field: found, .. }) if found == field), "{naming:?}");
        }
    }
}
