//! Token keys: signing key of the service and trusted keys of issuers. The algorithm is a property
//! of the key, never of the token.

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{
    DecodingKey, EncodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse, ThumbprintHash},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::install_crypto;

mod algorithm;

pub use algorithm::Algorithm;

/// Minimum length of an HMAC key: the length of the hash (RFC 7518 §3.2).
const MIN_SECRET_BYTES: usize = 32;

/// Invalid key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Shorter than the hash of HS256.
    #[error("the shared secret has {0} bytes, at least 32 are required")]
    ShortSecret(usize),
    /// The key does not match its algorithm.
    #[error("invalid {0:?} key")]
    Unusable(Algorithm, #[source] jsonwebtoken::errors::Error),
    /// The key is on another elliptic curve than its algorithm.
    #[error("the key is not on the curve of {0:?}")]
    Curve(Algorithm),
    /// No key of the JWKS has a supported type and algorithm.
    #[error("the JWKS key {0:?} has no supported algorithm")]
    Untrusted(Option<String>),
    /// Not JSON in the shape of a JWKS.
    #[error("invalid JSON web key set")]
    InvalidJwks(#[source] serde_json::Error),
    /// The random source or the crypto library failed.
    #[error("key generation failed")]
    Generation,
}

/// Verification key, bound to one algorithm.
#[derive(Clone)]
pub struct TrustedKey {
    pub(super) id: Option<String>,
    /// The algorithm, by each of its names that a token may use.
    algorithms: &'static [Algorithm],
    decoding: DecodingKey,
}

impl std::fmt::Debug for TrustedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrustedKey").field("id", &self.id).field("algorithms", &self.algorithms).finish_non_exhaustive()
    }
}

impl TrustedKey {
    /// Creates an HS256 key from a shared secret of at least 32 bytes.
    pub fn from_secret(secret: &SecretString) -> Result<Self, KeyError> {
        install_crypto();
        let secret = secret.expose_secret().as_bytes();
        if secret.len() < MIN_SECRET_BYTES {
            return Err(KeyError::ShortSecret(secret.len()));
        }
        Ok(Self { id: None, algorithms: Algorithm::HS256.pinned(), decoding: DecodingKey::from_secret(secret) })
    }

    /// Creates a key for `algorithm`, which is not HS256, from a public key in PEM.
    pub fn from_pem(pem: &[u8], algorithm: Algorithm) -> Result<Self, KeyError> {
        install_crypto();
        let decoding = match algorithm {
            Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 | Algorithm::PS256 | Algorithm::PS384 | Algorithm::PS512 => {
                DecodingKey::from_rsa_pem(pem)
            }
            Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(pem),
            Algorithm::EdDSA | Algorithm::Ed25519 | Algorithm::HS256 => DecodingKey::from_ed_pem(pem),
        };
        let decoding = decoding.map_err(|error| KeyError::Unusable(algorithm, error))?;
        // The library checks the curve only when it verifies a signature.
        let point_bytes = decoding.try_get_as_bytes().map_or(0, <[u8]>::len);
        if algorithm.point_bytes().is_some_and(|expected| expected != point_bytes) {
            return Err(KeyError::Curve(algorithm));
        }
        Ok(Self { id: None, algorithms: algorithm.pinned(), decoding })
    }

    /// Parses a JWKS (RFC 7517). Encryption keys and unsupported algorithms are skipped. Fails if
    /// no key remains.
    pub fn from_jwks(json: &[u8]) -> Result<Vec<Self>, KeyError> {
        install_crypto();
        let set: JwkSet = serde_json::from_slice(json).map_err(KeyError::InvalidJwks)?;
        // The library does not have the algorithm names of RFC 9864.
        let raw: Value = serde_json::from_slice(json).map_err(KeyError::InvalidJwks)?;
        let mut keys = Vec::new();
        let mut last_error = KeyError::Untrusted(None);
        for (index, jwk) in set.keys.iter().enumerate() {
            match Self::from_jwk(jwk, &raw["keys"][index]["alg"]) {
                Ok(key) => keys.push(key),
                Err(error) => last_error = error,
            }
        }
        if keys.is_empty() { Err(last_error) } else { Ok(keys) }
    }

    /// Creates the key of `jwk`, whose member `alg` is `declared`.
    fn from_jwk(jwk: &Jwk, declared: &Value) -> Result<Self, KeyError> {
        let untrusted = || KeyError::Untrusted(jwk.common.key_id.clone());
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return Err(untrusted());
        }
        let declared = match declared {
            Value::Null => None,
            name => Some(serde_json::from_value::<Algorithm>(name.clone()).map_err(|_| untrusted())?),
        };
        // The key type determines the algorithm, and a declared `alg` must agree with it. A
        // symmetric key in a public set is a mistake.
        let algorithms = match (&jwk.algorithm, declared) {
            (AlgorithmParameters::RSA(_), None) => Algorithm::RS256.pinned(),
            (AlgorithmParameters::RSA(_), Some(declared)) if declared.is_rsa() => declared.pinned(),
            (AlgorithmParameters::EllipticCurve(ec), declared) => match (&ec.curve, declared) {
                (EllipticCurve::P256, None | Some(Algorithm::ES256)) => Algorithm::ES256.pinned(),
                (EllipticCurve::P384, None | Some(Algorithm::ES384)) => Algorithm::ES384.pinned(),
                _ => return Err(untrusted()),
            },
            (AlgorithmParameters::OctetKeyPair(okp), declared) if okp.curve == EllipticCurve::Ed25519 => match declared {
                None => Algorithm::ED25519_NAMES,
                Some(declared) if Algorithm::ED25519_NAMES.contains(&declared) => declared.pinned(),
                Some(_) => return Err(untrusted()),
            },
            _ => return Err(untrusted()),
        };
        let decoding = DecodingKey::from_jwk(jwk).map_err(|error| KeyError::Unusable(algorithms[0], error))?;
        Ok(Self { id: jwk.common.key_id.clone(), algorithms, decoding })
    }

    /// Whether a token with this `alg` may be verified with the key.
    pub(super) fn accepts(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether `signature` (base64url) is the key's signature of `message`.
    pub(super) fn verifies(&self, message: &str, signature: &str) -> Result<bool, jsonwebtoken::errors::Error> {
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.decoding, self.algorithms[0].library())
    }
}

/// Ed25519 key that signs tokens.
#[derive(Clone)]
pub struct SigningKey {
    pub(super) id: String,
    pub(super) encoding: EncodingKey,
    jwk: Jwk,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Parses a private key in PEM (PKCS #8).
    pub fn from_pem(pem: &SecretString) -> Result<Self, KeyError> {
        install_crypto();
        let unusable = |error| KeyError::Unusable(Algorithm::EdDSA, error);
        let encoding = EncodingKey::from_ed_pem(pem.expose_secret().as_bytes()).map_err(unusable)?;
        let mut jwk = Jwk::from_encoding_key(&encoding, jsonwebtoken::Algorithm::EdDSA).map_err(unusable)?;
        let id = jwk.thumbprint(ThumbprintHash::SHA256).map_err(unusable)?;
        jwk.common.key_id = Some(id.clone());
        jwk.common.key_algorithm = Some(KeyAlgorithm::EdDSA);
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self { id, encoding, jwk })
    }

    /// Generates a private key in PEM (PKCS #8).
    pub fn generate_pem() -> Result<SecretString, KeyError> {
        let document = Ed25519KeyPair::generate_pkcs8v1(&aws_lc_rs::rand::SystemRandom::new()).map_err(|_| KeyError::Generation)?;
        let base64 = STANDARD.encode(document.as_ref());
        Ok(format!("-----BEGIN PRIVATE KEY-----\n{base64}\n-----END PRIVATE KEY-----\n").into())
    }

    /// Returns the public key as a JWK. Its `kid` is the RFC 7638 thumbprint.
    pub fn public_jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// Returns the public key as a JWKS, for the services that trust this key.
    pub fn public_jwks(&self) -> JwkSet {
        JwkSet { keys: vec![self.jwk.clone()] }
    }

    /// Returns the public key as a trusted key.
    pub fn trusted(&self) -> Result<TrustedKey, KeyError> {
        TrustedKey::from_jwk(&self.jwk, &Value::from("EdDSA"))
    }
}

#[cfg(test)]
mod tests;
