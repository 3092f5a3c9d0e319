//! TLS and mTLS between services, by configuration, with certificate reload.
//!
//! A port with a certificate accepts only TLS. With `client_ca_file` it also requires a client
//! certificate, and [`PeerIdentityLayer`] compares it with the internal token of the caller. An
//! upstream with `ca_file` is called only over TLS.

mod client;
mod files;
mod peer_identity;
mod reload;
mod server;
mod stream;

use std::path::{Path, PathBuf};

use palisade_resilience::{rejection::causes, setting::Invalid};

pub use client::{Connector, UpstreamTls};
pub use peer_identity::{PeerCertificateNames, PeerIdentityLayer};
pub use server::{Acceptor, PortTls};
pub use stream::Stream;

/// Setting of a file, with its key.
type FileSetting<'a> = (&'static str, &'a Option<PathBuf>);

/// Invalid TLS settings or files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One of two settings that depend on each other is missing.
    #[error("tls.{0} requires tls.{1}")]
    Missing(&'static str, &'static str),
    /// A file cannot be read.
    #[error("cannot read {0}")]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// A file does not contain the expected PEM section.
    #[error("{0} contains no {1} in PEM format")]
    NotPem(PathBuf, &'static str),
    /// The expected server name is not a DNS name or IP address.
    #[error("tls.server_name {0:?} is not a host name")]
    Name(String),
    /// Certificate and key do not match, or their type is not supported.
    #[error("cannot use the certificate with its key")]
    Unusable(#[from] tokio_rustls::rustls::Error),
    /// The CA certificates cannot be used.
    #[error("cannot use {0} as client or server CA")]
    InvalidCa(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Returns the error with the key of its setting, one of `files` if a file is at fault.
    fn in_setting(&self, files: &[FileSetting<'_>]) -> Invalid {
        let of_path = |path: &Path| files.iter().find(|(_, file)| file.as_deref() == Some(path)).map_or("cert_file", |(key, _)| key);
        let key = match self {
            Self::Missing(key, _) => key,
            Self::Unreadable(path, _) | Self::NotPem(path, _) | Self::InvalidCa(path, _) => of_path(path),
            Self::Name(_) => "server_name",
            Self::Unusable(_) => "cert_file",
        };
        Invalid::new(format!("tls.{key}"), causes(self).to_string())
    }
}
