//! Server side of TLS: port certificate and client CA.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, server::WebPkiClientVerifier},
};

use super::{
    Error, PeerCertificateNames, Stream,
    files::{self, File},
    reload::{Reloading, build_once},
};
use palisade_resilience::{respond::Protocol, setting::Invalid};

/// Timeout of the server's TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// TLS of a port. Plain text without a certificate.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PortTls {
    /// PEM file with the certificate chain of this port, intermediates included. Enables TLS.
    pub cert_file: Option<PathBuf>,
    /// PEM file with the private key of the certificate.
    pub key_file: Option<PathBuf>,
    /// PEM file with the client CA certificates. Requires client certificates (mTLS): the DNS names
    /// of the certificate must include the service in the token's `act` (`gateway`, `orders`) for
    /// calls on behalf of a user.
    pub client_ca_file: Option<PathBuf>,
    /// Interval between checks of the files for new certificates, milliseconds.
    pub reload_ms: u64,
}

impl Default for PortTls {
    fn default() -> Self {
        Self { cert_file: None, key_file: None, client_ca_file: None, reload_ms: 10_000 }
    }
}

impl PortTls {
    /// Validates the settings and files. The key of the error is `tls.…`.
    pub fn check(&self) -> Result<(), Invalid> {
        self.try_build().map_err(|error| self.invalid(&error))
    }

    /// Returns the error with the key of its setting, `tls.…`.
    pub fn invalid(&self, error: &Error) -> Invalid {
        error.in_setting(&[("cert_file", &self.cert_file), ("key_file", &self.key_file), ("client_ca_file", &self.client_ca_file)])
    }

    fn try_build(&self) -> Result<(), Error> {
        if let Some(paths) = self.paths()? {
            build_once(&paths, |files| build_config(Protocol::Http, files))?;
        }
        Ok(())
    }

    /// Returns `true` if TLS is enabled.
    pub fn is_on(&self) -> bool {
        self.cert_file.is_some()
    }

    /// Creates the acceptor, or `None` without a certificate. Must be called within a tokio
    /// runtime.
    pub fn acceptor(&self, protocol: Protocol) -> Result<Option<Acceptor>, Error> {
        let Some(paths) = self.paths()? else { return Ok(None) };
        let config =
            Reloading::start("server", paths, Duration::from_millis(self.reload_ms.max(1)), move |files| build_config(protocol, files))?;
        Ok(Some(Acceptor { config }))
    }

    fn paths(&self) -> Result<Option<Vec<PathBuf>>, Error> {
        match (&self.cert_file, &self.key_file, &self.client_ca_file) {
            (Some(cert), Some(key), ca) => Ok(Some([Some(cert), Some(key), ca.as_ref()].into_iter().flatten().cloned().collect())),
            (Some(_), None, _) => Err(Error::Missing("cert_file", "key_file")),
            (None, Some(_), _) => Err(Error::Missing("key_file", "cert_file")),
            (None, None, Some(_)) => Err(Error::Missing("client_ca_file", "cert_file")),
            (None, None, None) => Ok(None),
        }
    }
}

/// Builds the rustls configuration, and returns the expiry of the certificate.
fn build_config(protocol: Protocol, files: &[File]) -> Result<(ServerConfig, Option<i64>), Error> {
    let [cert, key, ca @ ..] = files else { return Err(Error::Missing("cert_file", "key_file")) };
    let (chain, key) = files::identity(cert, key)?;
    let expiry = files::expiry(&chain);
    let provider = files::provider();
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match ca.first() {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(ca.authorities()?), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| ca.invalid_ca(error))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = match protocol {
        Protocol::Http => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Protocol::Grpc => vec![b"h2".to_vec()],
    };
    Ok((config, expiry))
}

/// TLS acceptor of a port.
#[derive(Debug, Clone)]
pub struct Acceptor {
    config: Arc<Reloading<ServerConfig>>,
}

impl Acceptor {
    /// Performs the handshake, and returns the DNS names of the client certificate if one is
    /// required.
    pub async fn accept<I>(&self, io: I) -> io::Result<(Stream<I>, Option<PeerCertificateNames>)>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let accepted = timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(self.config.load()).accept(io)).await;
        let stream = accepted.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let names = certificate.map(|certificate| PeerCertificateNames(files::names(certificate).into()));
        Ok((Stream::Secure(Box::new(stream.into())), names))
    }
}
