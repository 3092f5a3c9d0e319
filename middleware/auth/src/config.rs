//! Configuration of trusted issuers and of the service's own signing key.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use jsonwebtoken::Algorithm;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tower::BoxError;
use url::Url;

use super::{
    Issuer, RevocationError, RevocationFile, Revocations, Verifier,
    jwks::{ConnectJwks, JwksSource},
    keys::{KeyError, SigningKey, TrustedKey},
};
use palisade_resilience::clock::Clock;

/// Trusted token issuers and revoked tokens. There is no default: a process without an issuer does
/// not start.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Trusted issuers by a name of your choice, e.g. `auth.issuers.idp.jwks_url`.
    pub issuers: BTreeMap<String, IssuerConfig>,
    /// Revocation list, a file with one entry per line: `jti ID`, `sub SUBJECT`, or `sub-before
    /// SECONDS SUBJECT` for tokens issued before that time (seconds since 1970). Changes take
    /// effect within a second.
    pub revocations_file: Option<PathBuf>,
}

/// A trusted issuer. Requires exactly one of `secret`, `secret_file`, `public_key_file`,
/// `jwks_file` and `jwks_url`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IssuerConfig {
    /// Required `iss` claim, compared exactly. Default: the issuer's name in this table.
    pub issuer: Option<String>,
    /// Required `aud` claim. Default: `palisade` at the gateway, the service's name elsewhere.
    pub audience: Option<String>,
    /// Whether the issuer is a service of this system, whose tokens have `typ` `int+jwt`.
    pub internal: bool,
    /// Shared secret for HS256, at least 32 bytes.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub secret: Option<SecretString>,
    /// File with the shared secret for HS256.
    pub secret_file: Option<PathBuf>,
    /// PEM file with the public key. Requires `algorithm`.
    pub public_key_file: Option<PathBuf>,
    /// Signature algorithm of `public_key_file`.
    pub algorithm: Option<KeyAlgorithm>,
    /// File with a JSON web key set (JWKS).
    pub jwks_file: Option<PathBuf>,
    /// URL of a JSON web key set (JWKS).
    pub jwks_url: Option<String>,
}

/// Signature algorithms for a PEM key.
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

/// Invalid configuration of issuers or of the service's own key.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No issuer is configured.
    #[error("auth.issuers is empty: at least one issuer is required")]
    NoIssuer,
    /// An issuer has no key source, or several.
    #[error("auth.issuers.{0}: exactly one of secret, secret_file, public_key_file, jwks_file and jwks_url is required")]
    Ambiguous(String),
    /// A PEM key has no algorithm.
    #[error("auth.issuers.{0}.algorithm is required with public_key_file")]
    NoAlgorithm(String),
    /// A key file cannot be read.
    #[error("auth.issuers.{0}: cannot read {1}")]
    Unreadable(String, PathBuf, #[source] std::io::Error),
    /// The JWKS URL is invalid.
    #[error("auth.issuers.{0}.jwks_url is not an http or https URL")]
    BadUrl(String),
    /// No HTTP client can be built for the JWKS URL.
    #[error("auth.issuers.{0}.jwks_url: {1}")]
    Unreachable(String, #[source] BoxError),
    /// A trusted key is invalid.
    #[error("auth.issuers.{0}: {1}")]
    BadKey(String, #[source] KeyError),
    /// The revocation file is invalid.
    #[error("auth.revocations_file: {0}")]
    BadRevocations(#[source] RevocationError),
    /// The service has no signing key.
    #[error("identity.signing_key_file is required: create a key with `palisade keygen --out FILE`")]
    NoIdentity,
    /// The service's signing key cannot be read.
    #[error("identity.signing_key_file: cannot read {0}")]
    UnreadableIdentity(PathBuf, #[source] std::io::Error),
    /// The service's signing key is invalid.
    #[error("identity.signing_key_file: {0}")]
    BadIdentity(#[source] KeyError),
}

/// Identity of this service in calls to other services.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// Ed25519 private key in PEM (PKCS #8) that signs internal tokens. `palisade keygen` creates
    /// one.
    pub signing_key_file: Option<PathBuf>,
}

/// Keys of a service that calls other services: trusted issuers and its own signing key.
#[derive(Debug)]
pub struct Keys {
    /// Verifies inbound tokens.
    pub verifier: Arc<Verifier>,
    /// Signs outbound calls.
    pub signing: SigningKey,
}

impl Keys {
    /// Loads the configured keys. Inbound tokens must have the audience `audience`.
    pub fn read(
        config: &Config,
        audience: &str,
        identity: &Identity,
        clock: Arc<dyn Clock>,
        connect: ConnectJwks,
    ) -> Result<Self, ConfigError> {
        let verifier = Arc::new(config.verifier(audience, clock, connect)?);
        let path = identity.signing_key_file.as_ref().ok_or(ConfigError::NoIdentity)?;
        let pem = fs::read_to_string(path).map_err(|error| ConfigError::UnreadableIdentity(path.clone(), error))?;
        Ok(Self { verifier, signing: SigningKey::from_pem(&pem.into()).map_err(ConfigError::BadIdentity)? })
    }
}

impl Config {
    /// Builds the verifier for tokens with the audience `audience`. Fails without an issuer.
    pub fn verifier(&self, audience: &str, clock: Arc<dyn Clock>, connect: ConnectJwks) -> Result<Verifier, ConfigError> {
        let issuers = self.issuers(audience, connect)?;
        if issuers.is_empty() { Err(ConfigError::NoIssuer) } else { self.verifier_of(issuers, clock) }
    }

    /// As [`Self::verifier`] with explicit `issuers` instead of the configured ones.
    pub fn verifier_of(&self, issuers: Vec<Issuer>, clock: Arc<dyn Clock>) -> Result<Verifier, ConfigError> {
        let verifier = Verifier::new(issuers, clock);
        Ok(match self.revocations()? {
            Some(revocations) => verifier.with_revocations(revocations),
            None => verifier,
        })
    }

    /// Opens the revocation list, if one is configured.
    pub fn revocations(&self) -> Result<Option<Arc<dyn Revocations>>, ConfigError> {
        let Some(path) = &self.revocations_file else { return Ok(None) };
        Ok(Some(Arc::new(RevocationFile::open(path).map_err(ConfigError::BadRevocations)?)))
    }

    /// Builds the configured issuers. The result may be empty.
    pub fn issuers(&self, audience: &str, connect: ConnectJwks) -> Result<Vec<Issuer>, ConfigError> {
        self.issuers.iter().map(|(name, config)| config.issuer(name, audience, connect)).collect()
    }
}

impl IssuerConfig {
    fn issuer(&self, name: &str, audience: &str, connect: ConnectJwks) -> Result<Issuer, ConfigError> {
        Ok(Issuer {
            name: self.issuer.clone().unwrap_or_else(|| name.to_owned()),
            audience: self.audience.clone().unwrap_or_else(|| audience.to_owned()),
            internal: self.internal,
            keys: self.keys(name, connect)?,
        })
    }

    fn keys(&self, name: &str, connect: ConnectJwks) -> Result<JwksSource, ConfigError> {
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
                // Loaded once at startup, so that an invalid file fails early.
                TrustedKey::from_jwks(&read(path)?).map_err(bad)?;
                return Ok(JwksSource::from_file(path));
            }
            (None, None, None, None, Some(url)) => {
                let url = Url::parse(url).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
                let url = url.ok_or_else(|| ConfigError::BadUrl(name.to_owned()))?;
                return JwksSource::from_url(name, &url, connect).map_err(|error| ConfigError::Unreachable(name.to_owned(), error));
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
