//! TLS on any hop, by configuration: certificates that are read again when their files change, and callers who are who they say they are.
//!
//! A port with a certificate speaks TLS and nothing else; one with `client_ca_file` also wants a certificate of whoever calls, and
//! [`ActorLayer`] holds the caller's internal token to it. An upstream with `ca_file` is called by TLS only.

mod peer_identity;
mod client;
mod files;
mod reload;
mod server;
mod stream;

use std::path::PathBuf;

pub use peer_identity::{PeerIdentityLayer, PeerCertificateNames};
pub use client::{Connector, UpstreamTls};
pub use server::{Acceptor, PortTls};
pub use stream::Stream;

/// TLS cannot be had with these files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One of two settings that go together is missing.
    #[error("tls.{0} needs tls.{1} beside it")]
    Missing(&'static str, &'static str),
    /// A file cannot be read.
    #[error("{0} cannot be read")]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// A file holds something else.
    #[error("{0} holds no {1} in PEM")]
    NotPem(PathBuf, &'static str),
    /// The name that a certificate must be made out to is none.
    #[error("tls.server_name {0:?} is no name of a host")]
    Name(String),
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("the certificate and its key cannot be used")]
    Unusable(#[from] tokio_rustls::rustls::Error),
    /// The authorities cannot vouch for anybody.
    #[error("{0} cannot be used to check certificates")]
    InvalidCa(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
}
