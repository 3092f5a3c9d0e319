//! Authentication and authorization: JWT verification, a default-deny method table, and short-lived
//! internal tokens between services.

mod authenticate;
mod authorize;
mod claims;
pub mod config;
mod credentials;
mod internal_token;
mod issuer;
pub mod jwks;
pub mod keys;
mod rejection_counters;
mod revocations;
mod service_callers;
mod verifier;

pub use authenticate::{Authenticate, AuthenticateLayer};
pub use authorize::AuthorizeLayer;
pub use claims::{UserToken, mint_user_token};
pub use config::{Config, Identity, IssuerConfig, Keys};
pub use credentials::CredentialsLayer;
pub use internal_token::{InternalTokens, TokenPolicy};
pub use issuer::{Issuer, Rules};
pub use palisade_resilience::context::{InvalidSubject, Principal, Subject};
pub use revocations::{RevocationError, RevocationFile, Revocations};
pub use service_callers::ServiceCallers;
pub use verifier::Verifier;

/// JOSE `typ` of internal tokens, which services sign for each other (shape of RFC 8693, lifetime ≤
/// 60 s).
pub const INTERNAL_TYPE: &str = "int+jwt";

/// Installs the process-wide crypto provider of jsonwebtoken. Idempotent; called wherever keys are
/// created.
pub(crate) fn install_crypto() {
    // An error means that a provider is already installed.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}
