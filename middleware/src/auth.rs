//! Who asks, and whether they may: verified JWTs, a default-deny method table, and short-lived internal tokens between services.

mod authenticate;
mod authorize;
mod claims;
pub mod config;
mod credentials;
mod internal_token;
pub mod jwks;
pub mod keys;
mod principal;
mod revocations;
mod verifier;

pub use authenticate::{Authenticate, AuthenticateLayer};
pub use authorize::AuthorizeLayer;
pub use claims::{UserToken, mint_user_token};
pub use config::{Config, ConfigError, Identity, Keys};
pub use credentials::CredentialsLayer;
pub use internal_token::{TokenPolicy, InternalTokens};
pub use principal::Principal;
pub use revocations::{RevocationError, RevocationFile, Revocations};
pub use verifier::{Issuer, Verifier};

/// `typ` of tokens that services make for each other (shape of RFC 8693, lifetime ≤ 60 s).
pub const INTERNAL_TYPE: &str = "int+jwt";

/// Chooses the crypto of jsonwebtoken for the process. Called by whoever makes keys, as often as they like.
pub(crate) fn install_crypto() {
    // An error means that it was installed before.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}
