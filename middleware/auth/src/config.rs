//! Configuration of trusted issuers and of the service's own signing key.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::Arc,
};

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    Issuer, RevocationFile, Revocations, Rules, Verifier,
    issuer::{Namespace, check_namespaces, setting},
    jwks::{ConnectJwks, JwksSource},
    keys::{Algorithm, SigningKey, TrustedKey},
};
use palisade_resilience::{
    clock::Clock,
    rejection::causes,
    setting::{Invalid, read_secret_file},
};

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
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub secret: Option<SecretString>,
    /// File with the shared secret for HS256.
    pub secret_file: Option<PathBuf>,
    /// PEM file with the public key. Requires `algorithm`.
    pub public_key_file: Option<PathBuf>,
    /// Signature algorithm of `public_key_file`: RS256, RS384, RS512, PS256, PS384, PS512, ES256,
    /// ES384, `EdDSA`, or `Ed25519` (RFC 9864).
    pub algorithm: Option<Algorithm>,
    /// File with a JSON web key set (JWKS).
    pub jwks_file: Option<PathBuf>,
    /// URL of a JSON web key set (JWKS). A password in it is secret.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub jwks_url: Option<SecretString>,
    /// Prefix of this issuer's subjects and token ids, e.g. `partner:`, at most 32 characters.
    /// Required for each issuer of user tokens but one, so that equal `sub` claims of two issuers
    /// are two users. An issuer needs the same prefix at every service.
    pub subject_prefix: String,
    /// Scopes that this issuer may grant, separated by spaces. Others are ignored. Default: all.
    pub allowed_scopes: Option<String>,
    /// Whether tokens without `typ` are accepted.
    pub typ_optional: bool,
    /// Whether `scope` may be an array of strings instead of a string.
    pub scope_as_array: bool,
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
    ) -> Result<Self, Invalid> {
        Ok(Self { verifier: Arc::new(config.verifier(audience, clock, connect)?), signing: identity.signing_key()? })
    }
}

impl Identity {
    /// Loads the service's own key.
    pub fn signing_key(&self) -> Result<SigningKey, Invalid> {
        const KEY: &str = "identity.signing_key_file";
        let path = self.signing_key_file.as_ref();
        let path = path.ok_or_else(|| Invalid::new(KEY, "is required: create a key with `palisade keygen --out FILE`"))?;
        let pem = fs::read_to_string(path).map_err(|error| Invalid::unreadable(KEY, path, &error))?;
        SigningKey::from_pem(&pem.into()).map_err(|error| Invalid::new(KEY, causes(&error).to_string()))
    }
}

impl Config {
    /// Checks the settings without reading a file or opening a connection. Returns all violations.
    pub fn validate(&self) -> Vec<Invalid> {
        let mut invalid: Vec<_> = self.issuers.iter().filter_map(|(name, issuer)| issuer.validate(name).err()).collect();
        invalid.extend(self.check_namespaces(&[]).err());
        invalid
    }

    /// Loads every key and the revocation list, without opening a connection. Returns all
    /// violations, except those of [`Self::validate`].
    pub fn check(&self) -> Vec<Invalid> {
        let valid = self.issuers.iter().filter(|(name, issuer)| issuer.validate(name).is_ok());
        let mut invalid: Vec<_> = valid.filter_map(|(name, issuer)| issuer.local_keys(name).err()).collect();
        invalid.extend(self.revocations().err());
        invalid
    }

    /// Checks that the configured issuers and `others` share no tokens and no subjects.
    fn check_namespaces(&self, others: &[Namespace<'_>]) -> Result<(), Invalid> {
        let configured = self.issuers.iter().map(|(name, issuer)| issuer.namespace(name));
        check_namespaces(&others.iter().copied().chain(configured).collect::<Vec<_>>())
    }

    /// Builds the verifier for tokens with the audience `audience`. Fails without an issuer.
    pub fn verifier(&self, audience: &str, clock: Arc<dyn Clock>, connect: ConnectJwks) -> Result<Verifier, Invalid> {
        let issuers = self.issuers(audience, connect)?;
        if issuers.is_empty() { Err(Self::no_issuer()) } else { self.verifier_of(issuers, clock) }
    }

    /// Error for settings without an issuer.
    pub fn no_issuer() -> Invalid {
        Invalid::new("auth.issuers", "at least one issuer is required")
    }

    /// As [`Self::verifier`] with explicit `issuers` instead of the configured ones.
    pub fn verifier_of(&self, issuers: Vec<Issuer>, clock: Arc<dyn Clock>) -> Result<Verifier, Invalid> {
        let verifier = Verifier::new(issuers, clock)?;
        Ok(match self.revocations()? {
            Some(revocations) => verifier.with_revocations(revocations),
            None => verifier,
        })
    }

    /// Opens the revocation list, if one is configured.
    pub fn revocations(&self) -> Result<Option<Arc<dyn Revocations>>, Invalid> {
        let Some(path) = &self.revocations_file else { return Ok(None) };
        let list = RevocationFile::open(path).map_err(|error| Invalid::new("auth.revocations_file", causes(&error).to_string()))?;
        Ok(Some(Arc::new(list)))
    }

    /// Builds the configured issuers. The result may be empty.
    pub fn issuers(&self, audience: &str, connect: ConnectJwks) -> Result<Vec<Issuer>, Invalid> {
        self.issuers.iter().map(|(name, config)| config.issuer(name, audience, connect)).collect()
    }
}

/// Keys of an issuer in the settings.
enum Source<'a> {
    Fixed(TrustedKey),
    File(&'a PathBuf, Vec<TrustedKey>),
    Url(Url),
}

impl IssuerConfig {
    fn issuer(&self, name: &str, audience: &str, connect: ConnectJwks) -> Result<Issuer, Invalid> {
        self.validate(name)?;
        let keys = match self.local_keys(name)? {
            Source::Fixed(key) => JwksSource::fixed(vec![key]),
            Source::File(path, keys) => JwksSource::from_file(path).with_keys(keys),
            Source::Url(url) => JwksSource::from_url(name, &url, connect)
                .map_err(|error| Invalid::new(setting(name, "jwks_url"), causes(&*error).to_string()))?,
        };
        let allowed_scopes = self.allowed_scopes.as_ref();
        Ok(Issuer {
            name: self.issuer.clone().unwrap_or_else(|| name.to_owned()),
            audience: self.audience.clone().unwrap_or_else(|| audience.to_owned()),
            internal: self.internal,
            keys,
            rules: Rules {
                key: Some(name.to_owned()),
                subject_prefix: self.subject_prefix.clone(),
                allowed_scopes: allowed_scopes.map(|scopes| scopes.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>()),
                typ_optional: self.typ_optional,
                scope_as_array: self.scope_as_array,
            },
        })
    }

    fn namespace<'a>(&'a self, name: &'a str) -> Namespace<'a> {
        let prefix = (!self.internal).then_some(self.subject_prefix.as_str());
        Namespace { key: name, iss: self.issuer.as_deref().unwrap_or(name), prefix }
    }

    /// Checks what needs no file. An option without an effect is an error.
    fn validate(&self, name: &str) -> Result<(), Invalid> {
        let Self { secret, secret_file, public_key_file, jwks_file, jwks_url, .. } = self;
        let sources = [secret.is_some(), secret_file.is_some(), public_key_file.is_some(), jwks_file.is_some(), jwks_url.is_some()];
        if sources.into_iter().filter(|is_set| *is_set).count() != 1 {
            let rule = "exactly one of secret, secret_file, public_key_file, jwks_file and jwks_url is required";
            return Err(Invalid::new(format!("auth.issuers.{name}"), rule));
        }
        match (public_key_file, self.algorithm) {
            (Some(_), None) => return Err(Invalid::new(setting(name, "algorithm"), "is required with public_key_file")),
            (Some(_), Some(Algorithm::HS256)) => {
                return Err(Invalid::new(setting(name, "algorithm"), "HS256 has no public key: set secret or secret_file instead"));
            }
            (None, Some(_)) => return Err(Invalid::new(setting(name, "algorithm"), "has no effect without public_key_file")),
            _ => {}
        }
        let user_options = [
            ("subject_prefix", !self.subject_prefix.is_empty()),
            ("typ_optional", self.typ_optional),
            ("scope_as_array", self.scope_as_array),
        ];
        match user_options.into_iter().find(|(_, is_set)| self.internal && *is_set) {
            Some((option, _)) => Err(Invalid::new(setting(name, option), "has no effect with internal = true")),
            None => Ok(()),
        }
    }

    /// Loads the keys that are not remote.
    fn local_keys(&self, name: &str) -> Result<Source<'_>, Invalid> {
        let read =
            |key: &'static str, path: &PathBuf| fs::read(path).map_err(|error| Invalid::unreadable(setting(name, key), path, &error));
        let bad = |key: &'static str| move |error| Invalid::new(setting(name, key), causes(&error).to_string());
        let Self { secret, secret_file, public_key_file, jwks_file, jwks_url, .. } = self;
        if let Some(secret) = secret {
            return TrustedKey::from_secret(secret).map(Source::Fixed).map_err(bad("secret"));
        }
        if let Some(path) = secret_file {
            let secret = read_secret_file(path).map_err(|error| Invalid::unreadable(setting(name, "secret_file"), path, &error))?;
            return TrustedKey::from_secret(&secret.into()).map(Source::Fixed).map_err(bad("secret_file"));
        }
        if let (Some(path), Some(algorithm)) = (public_key_file, self.algorithm) {
            return TrustedKey::from_pem(&read("public_key_file", path)?, algorithm).map(Source::Fixed).map_err(bad("public_key_file"));
        }
        if let Some(path) = jwks_file {
            // At startup, so that an invalid file fails early, and the first token finds its key.
            let keys = TrustedKey::from_jwks(&read("jwks_file", path)?).map_err(bad("jwks_file"))?;
            return Ok(Source::File(path, keys));
        }
        let url = jwks_url.as_ref().and_then(|url| Url::parse(url.expose_secret()).ok());
        let url = url.filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
        url.map(Source::Url).ok_or_else(|| Invalid::new(setting(name, "jwks_url"), "must be an http or https URL"))
    }
}

#[cfg(test)]
mod tests;
