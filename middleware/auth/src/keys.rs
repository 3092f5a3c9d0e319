//! Token keys: signing key of the service and trusted keys of issuers. The algorithm is a property
//! of the key, never of the token.

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse, ThumbprintHash},
};
use secrecy::{ExposeSecret, SecretString};

use super::install_crypto;

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
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

impl std::fmt::Debug for TrustedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrustedKey").field("id", &self.id).field("algorithm", &self.algorithm).finish_non_exhaustive()
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
        Ok(Self { id: None, algorithm: Algorithm::HS256, decoding: DecodingKey::from_secret(secret) })
    }

    /// Creates an RS256, PS256, ES256 or `EdDSA` key from a public key in PEM.
    pub fn from_pem(pem: &[u8], algorithm: Algorithm) -> Result<Self, KeyError> {
        install_crypto();
        let decoding = match algorithm {
            Algorithm::RS256 | Algorithm::PS256 => DecodingKey::from_rsa_pem(pem),
            Algorithm::ES256 => DecodingKey::from_ec_pem(pem),
            _ => DecodingKey::from_ed_pem(pem),
        };
        Ok(Self { id: None, algorithm, decoding: decoding.map_err(|error| KeyError::Unusable(algorithm, error))? })
    }

    /// Parses a JWKS (RFC 7517). Encryption keys and unsupported algorithms are skipped. Fails if
    /// no key remains.
    pub fn from_jwks(json: &[u8]) -> Result<Vec<Self>, KeyError> {
        install_crypto();
        let set: JwkSet = serde_json::from_slice(json).map_err(KeyError::InvalidJwks)?;
        let mut keys = Vec::new();
        let mut last_error = KeyError::Untrusted(None);
        for jwk in &set.keys {
            match Self::from_jwk(jwk) {
                Ok(key) => keys.push(key),
                Err(error) => last_error = error,
            }
        }
        if keys.is_empty() { Err(last_error) } else { Ok(keys) }
    }

    fn from_jwk(jwk: &Jwk) -> Result<Self, KeyError> {
        let untrusted = || KeyError::Untrusted(jwk.common.key_id.clone());
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return Err(untrusted());
        }
        // The key type determines the algorithm, and a declared `alg` must agree with it. A
        // symmetric key in a public set is a mistake.
        let algorithm = match (&jwk.algorithm, jwk.common.key_algorithm) {
            (AlgorithmParameters::RSA(_), None | Some(KeyAlgorithm::RS256)) => Algorithm::RS256,
            (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::PS256)) => Algorithm::PS256,
            (AlgorithmParameters::EllipticCurve(ec), None | Some(KeyAlgorithm::ES256)) if ec.curve == EllipticCurve::P256 => {
                Algorithm::ES256
            }
            (AlgorithmParameters::OctetKeyPair(okp), None | Some(KeyAlgorithm::EdDSA)) if okp.curve == EllipticCurve::Ed25519 => {
                Algorithm::EdDSA
            }
            _ => return Err(untrusted()),
        };
        let decoding = DecodingKey::from_jwk(jwk).map_err(|error| KeyError::Unusable(algorithm, error))?;
        Ok(Self { id: jwk.common.key_id.clone(), algorithm, decoding })
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
        let mut jwk = Jwk::from_encoding_key(&encoding, Algorithm::EdDSA).map_err(unusable)?;
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
        TrustedKey::from_jwk(&self.jwk)
    }
}

#[cfg(test)]
mod tests;
