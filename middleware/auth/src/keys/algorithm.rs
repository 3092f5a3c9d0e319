//! Signature algorithms (RFC 7518, RFC 8037, RFC 9864).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Signature algorithm of a key, by its JOSE name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    HS256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// RSASSA-PSS with SHA-384.
    PS384,
    /// RSASSA-PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// Ed25519 by its name of RFC 8037.
    EdDSA,
    /// Ed25519 by its name of RFC 9864.
    Ed25519,
}

impl Algorithm {
    /// The names of Ed25519. A key that declares none is valid for both.
    pub(super) const ED25519_NAMES: &'static [Self] = &[Self::EdDSA, Self::Ed25519];

    /// Returns the list of this algorithm only.
    pub(super) fn pinned(self) -> &'static [Self] {
        match self {
            Self::HS256 => &[Self::HS256],
            Self::RS256 => &[Self::RS256],
            Self::RS384 => &[Self::RS384],
            Self::RS512 => &[Self::RS512],
            Self::PS256 => &[Self::PS256],
            Self::PS384 => &[Self::PS384],
            Self::PS512 => &[Self::PS512],
            Self::ES256 => &[Self::ES256],
            Self::ES384 => &[Self::ES384],
            Self::EdDSA => &[Self::EdDSA],
            Self::Ed25519 => &[Self::Ed25519],
        }
    }

    pub(super) fn is_rsa(self) -> bool {
        matches!(self, Self::RS256 | Self::RS384 | Self::RS512 | Self::PS256 | Self::PS384 | Self::PS512)
    }

    /// Length of an uncompressed public point, bytes; `None` unless the algorithm is ECDSA.
    pub(super) fn point_bytes(self) -> Option<usize> {
        match self {
            Self::ES256 => Some(65),
            Self::ES384 => Some(97),
            _ => None,
        }
    }

    /// Whether a signature of `bytes` is one of this algorithm. Cheap, so that a token without a
    /// signature costs no key lookup.
    pub(crate) fn has_signature_length(self, bytes: usize) -> bool {
        match self {
            Self::HS256 => bytes == 32,
            Self::ES256 | Self::EdDSA | Self::Ed25519 => bytes == 64,
            Self::ES384 => bytes == 96,
            // Keys of 2048 to 16384 bits.
            _ => (256..=2_048).contains(&bytes),
        }
    }

    /// Returns the algorithm in the words of the library.
    pub(super) fn library(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::HS256 => jsonwebtoken::Algorithm::HS256,
            Self::RS256 => jsonwebtoken::Algorithm::RS256,
            Self::RS384 => jsonwebtoken::Algorithm::RS384,
            Self::RS512 => jsonwebtoken::Algorithm::RS512,
            Self::PS256 => jsonwebtoken::Algorithm::PS256,
            Self::PS384 => jsonwebtoken::Algorithm::PS384,
            Self::PS512 => jsonwebtoken::Algorithm::PS512,
            Self::ES256 => jsonwebtoken::Algorithm::ES256,
            Self::ES384 => jsonwebtoken::Algorithm::ES384,
            Self::EdDSA | Self::Ed25519 => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}
