//! Whose tokens a process believes, as configuration.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use jsonwebtoken::Algorithm;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{
    Issuer, RevocationError, RevocationFile, Revocations, Verifier,
    jwks::JwksSource,
    keys::{KeyError, SigningKey, TrustedKey},
};
use crate::clock::Clock;

/// Whose tokens are believed. There is no default: a process without an issuer refuses to start.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Trusted issuers by a name of your choice, e.g. `auth.issuers.idp.jwks_url`.
    pub issuers: BTreeMap<String, IssuerConfig>,
    /// File with tokens to refuse though they are good, a line each: `jti ID`, `sub SUBJECT`, or `sub-before SECONDS SUBJECT` for those
    /// that were issued before then (seconds since 1970). Changes are heeded within a second.
    pub revocations_file: Option<PathBuf>,
}

/// One trusted issuer: exactly one of `secret`, `secret_file`, `public_key_file`, `jwks_file` and `jwks_url`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IssuerConfig {
    /// The `iss` claim, to the letter. Default: the issuer's name in this table.
    pub issuer: Option<String>,
    /// The `aud` claim must contain this. Default: `palisade` at the gateway, the service's name elsewhere.
    pub audience: Option<String>,
    /// A service of ours, whose tokens have `typ` `int+jwt`.
    pub internal: bool,
    /// Shared secret for HS256, at least 32 bytes.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub secret: Option<SecretString>,
    /// File with the shared secret.
    pub secret_file: Option<PathBuf>,
    /// Public key in PEM; needs `algorithm`.
    pub public_key_file: Option<PathBuf>,
    /// Algorithm of `public_key_file`.
    pub algorithm: Option<KeyAlgorithm>,
    /// JSON web key set in a file.
    pub jwks_file: Option<PathBuf>,
    /// JSON web key set at an address.
    pub jwks_url: Option<String>,
}

/// Algorithms that a PEM key can be pinned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum KeyAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

/// The configuration of an issuer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Nobody's tokens would be believed.
    #[error("auth.issuers is empty: no token could ever be accepted")]
    NoIssuer,
    /// None or several of the ways to give keys.
    #[error("auth.issuers.{0}: exactly one of secret, secret_file, public_key_file, jwks_file and jwks_url is needed")]
    Ambiguous(String),
    /// A PEM key without its algorithm.
    #[error("auth.issuers.{0}.algorithm is needed beside public_key_file")]
    NoAlgorithm(String),
    /// A file that cannot be read.
    #[error("auth.issuers.{0}: {1} cannot be read")]
    Unreadable(String, PathBuf, #[source] std::io::Error),
    /// An address that is none.
    #[error("auth.issuers.{0}.jwks_url is not an http or https address")]
    BadUrl(String),
    /// Nothing could be asked of the address.
    #[error("auth.issuers.{0}.jwks_url: {1}")]
    Unreachable(String, #[source] crate::client::InvalidConfig),
    /// A key that cannot be used.
    #[error("auth.issuers.{0}: {1}")]
    BadKey(String, #[source] KeyError),
    /// A revocation file that cannot be used.
    #[error("auth.revocations_file: {0}")]
    BadRevocations(#[source] RevocationError),
    /// The service has no key of its own.
    #[error("identity.key_file is needed: `palisade keygen --out FILE` makes a key")]
    NoIdentity,
    /// The service's own key cannot be read.
    #[error("identity.key_file: {0} cannot be read")]
    UnreadableIdentity(PathBuf, #[source] std::io::Error),
    /// The service's own key cannot be used.
    #[error("identity.key_file: {0}")]
    BadIdentity(#[source] KeyError),
}

/// Who a service is to those that it calls.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// Ed25519 private key in PEM (PKCS #8). `palisade keygen` makes one.
    pub signing_key_file: Option<PathBuf>,
}

/// Keys of a service that calls others: whose tokens it believes, and what it signs with.
#[derive(Debug)]
pub struct Keys {
    /// Whose tokens are believed.
    pub verifier: Arc<Verifier>,
    /// What calls to other services are signed with.
    pub signing: SigningKey,
}

impl Keys {
    /// The keys that a configuration names; tokens must be made for `audience`.
    pub fn read(config: &Config, audience: &str, identity: &Identity, clock: Arc<dyn Clock>) -> Result<Self, ConfigError> {
        let verifier = Arc::new(config.verifier(audience, clock)?);
        let path = identity.signing_key_file.as_ref().ok_or(ConfigError::NoIdentity)?;
        let pem = fs::read_to_string(path).map_err(|error| ConfigError::UnreadableIdentity(path.clone(), error))?;
        Ok(Self { verifier, signing: SigningKey::from_pem(&pem.into()).map_err(ConfigError::BadIdentity)? })
    }
}

impl Config {
    /// The verifier of a process whose tokens must be made for `audience`.
    pub fn verifier(&self, audience: &str, clock: Arc<dyn Clock>) -> Result<Verifier, ConfigError> {
        let issuers = self.issuers(audience)?;
        if issuers.is_empty() { Err(ConfigError::NoIssuer) } else { self.verifier_of(issuers, clock) }
    }

    /// As [`Self::verifier`] for these issuers, which may be others than the configuration names.
    pub fn verifier_of(&self, issuers: Vec<Issuer>, clock: Arc<dyn Clock>) -> Result<Verifier, ConfigError> {
        let verifier = Verifier::new(issuers, clock);
        Ok(match self.revocations()? {
            Some(revocations) => verifier.with_revocations(revocations),
            None => verifier,
        })
    }

    /// Which tokens are refused though they are good.
    pub fn revocations(&self) -> Result<Option<Arc<dyn Revocations>>, ConfigError> {
        let Some(path) = &self.revocations_file else { return Ok(None) };
        Ok(Some(Arc::new(RevocationFile::open(path).map_err(ConfigError::BadRevocations)?)))
    }

    /// The issuers, ready to be believed; none is no error.
    pub fn issuers(&self, audience: &str) -> Result<Vec<Issuer>, ConfigError> {
        self.issuers.iter().map(|(name, config)| config.issuer(name, audience)).collect()
    }
}

impl IssuerConfig {
    fn issuer(&self, name: &str, audience: &str) -> Result<Issuer, ConfigError> {
        Ok(Issuer {
            name: self.issuer.clone().unwrap_or_else(|| name.to_owned()),
            audience: self.audience.clone().unwrap_or_else(|| audience.to_owned()),
            internal: self.internal,
            keys: self.keys(name)?,
        })
    }

    fn keys(&self, name: &str) -> Result<JwksSource, ConfigError> {
        let read = |path: &PathBuf| fs::read(path).map_err(|error| ConfigError::Unreadable(name.to_owned(), path.clone(), error));
        let bad = |error| ConfigError::BadKey(name.to_owned(), error);
        let Self { secret, secret_file, public_key_file, jwks_file, jwks_url, .. } = self;
        let fixed = match (secret, secret_file, public_key_file, jwks_file, jwks_url) {
            (Some(secret), None, None, None, None) => TrustedKey::from_secret(secret).map_err(bad)?,
            (None, Some(path), None, None, None) => {
                let secret = String::from_utf8_lossy(&read(path)?).trim_end().to_owned();
                TrustedKey::from_secret(&secret.into()).map_err(bad)?
            }
            (None, None, Some(path), None, None) => {
                let algorithm = self.algorithm.ok_or_else(|| ConfigError::NoAlgorithm(name.to_owned()))?;
                TrustedKey::from_pem(&read(path)?, algorithm.into()).map_err(bad)?
            }
            (None, None, None, Some(path), None) => {
                // Read now, so that a bad file is told at the start.
                TrustedKey::from_jwks(&read(path)?).map_err(bad)?;
                return Ok(JwksSource::from_file(path));
            }
            (None, None, None, None, Some(url)) => {
                let url = reqwest::Url::parse(url).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
                let url = url.ok_or_else(|| ConfigError::BadUrl(name.to_owned()))?;
                return JwksSource::from_url(name, &url).map_err(|error| ConfigError::Unreachable(name.to_owned(), error));
            }
            _ => return Err(ConfigError::Ambiguous(name.to_owned())),
        };
        Ok(JwksSource::fixed(vec![fixed]))
    }
}

impl From<KeyAlgorithm> for Algorithm {
    fn from(algorithm: KeyAlgorithm) -> Self {
        match algorithm {
            KeyAlgorithm::RS256 => Self::RS256,
            KeyAlgorithm::PS256 => Self::PS256,
            KeyAlgorithm::ES256 => Self::ES256,
            KeyAlgorithm::EdDSA => Self::EdDSA,
        }
    }
}

#[cfg(test)]
mod tests;
