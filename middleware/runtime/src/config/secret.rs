//! URLs that may contain a password.

use std::{borrow::Cow, fmt, path::PathBuf};

use palisade_resilience::{
    redact,
    setting::{Invalid, read_secret_file},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// URL that may contain a password. Shown as scheme and host; several URLs are separated by commas.
#[derive(Clone)]
pub struct SecretUrl(SecretString);

impl SecretUrl {
    /// Returns the whole URL.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Returns the scheme.
    pub fn scheme(&self) -> &str {
        self.expose().split_once("://").map_or("", |(scheme, _)| scheme)
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, url) in self.expose().split(',').enumerate() {
            let separator = if index == 0 { "" } else { "," };
            let Some((scheme, rest)) = url.split_once("://") else { return write!(f, "{separator}…") };
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            let host = host.split(['/', '?', '#']).next().unwrap_or_default();
            write!(f, "{separator}{scheme}://{host}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for SecretUrl {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl From<String> for SecretUrl {
    fn from(url: String) -> Self {
        redact::register(&url);
        Self(url.into())
    }
}

impl From<&str> for SecretUrl {
    fn from(url: &str) -> Self {
        url.to_owned().into()
    }
}

impl<'de> Deserialize<'de> for SecretUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for SecretUrl {
    fn schema_name() -> Cow<'static, str> {
        "SecretUrl".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "writeOnly": true })
    }
}

/// Returns a URL given directly or in a file. The arguments are pairs of key and value.
pub fn secret_url(
    (key, value): (&'static str, &Option<SecretUrl>),
    (file_key, file): (&'static str, &Option<PathBuf>),
) -> Result<SecretUrl, Invalid> {
    let required = || Invalid::new(key, format!("exactly one of {key} and {file_key} is required"));
    optional_secret_url((key, value), (file_key, file))?.ok_or_else(required)
}

/// As [`secret_url`], or `None` if neither is given.
pub fn optional_secret_url(
    (key, value): (&'static str, &Option<SecretUrl>),
    (file_key, file): (&'static str, &Option<PathBuf>),
) -> Result<Option<SecretUrl>, Invalid> {
    match (value, file) {
        (None, None) => Ok(None),
        (Some(value), None) => Ok(Some(value.clone())),
        (None, Some(path)) => {
            read_secret_file(path).map(|url| Some(url.into())).map_err(|error| Invalid::unreadable(file_key, path, &error))
        }
        (Some(_), Some(_)) => Err(Invalid::new(key, format!("exactly one of {key} and {file_key} is required"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_url_shows_scheme_and_host_only() {
        for (url, shown) in [
            ("postgres://app:hunter2@db:5432/orders?x=y", "postgres://db:5432"),
            ("mongodb+srv://app:p@ss:w@cluster.example/shop", "mongodb+srv://cluster.example"),
            ("nats://a:4222,nats://token@b:4222", "nats://a:4222,nats://b:4222"),
            ("sqlite:///var/lib/orders.db", "sqlite://"),
            ("hunter2", "…"),
        ] {
            let secret = SecretUrl::from(url);
            assert_eq!((secret.to_string(), format!("{secret:?}"), secret.expose()), (shown.to_owned(), shown.to_owned(), url));
            assert_eq!(serde_json::to_value(&secret).unwrap(), shown);
        }
    }
}
