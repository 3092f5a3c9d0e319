//! Client side of TLS: upstream CA, client certificate and expected server name.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};

use super::{
    Error, Stream,
    files::{self, File},
    reload::{Reloading, build_once},
};
use palisade_resilience::setting::Invalid;

/// TLS to an upstream. Plain text without a CA file.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTls {
    /// PEM file with the CA certificates for the upstream's certificate. Enables TLS.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the client certificate chain, if the upstream requires one (mTLS).
    pub cert_file: Option<PathBuf>,
    /// PEM file with the private key of the client certificate.
    pub key_file: Option<PathBuf>,
    /// DNS name that the upstream's certificate must contain, regardless of the resolved address.
    /// Default: the name of the service.
    pub server_name: Option<String>,
    /// Interval between checks of the files for new certificates, milliseconds.
    pub reload_ms: u64,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self { ca_file: None, cert_file: None, key_file: None, server_name: None, reload_ms: 10_000 }
    }
}

impl UpstreamTls {
    /// Returns `true` if TLS is enabled.
    pub fn is_on(&self) -> bool {
        self.ca_file.is_some()
    }

    /// Validates the settings and files. The key of the error is `tls.…`.
    pub fn check(&self) -> Result<(), Invalid> {
        self.try_build().map_err(|error| self.invalid(&error))
    }

    /// Returns the error with the key of its setting, `tls.…`.
    pub fn invalid(&self, error: &Error) -> Invalid {
        error.in_setting(&[("ca_file", &self.ca_file), ("cert_file", &self.cert_file), ("key_file", &self.key_file)])
    }

    fn try_build(&self) -> Result<(), Error> {
        if let Some(paths) = self.paths()? {
            build_once(&paths, build_config)?;
        }
        self.server_name.as_deref().map_or(Ok(()), |name| parse_server_name(name).map(drop))
    }

    /// Creates the connector for `target`, or `None` without a CA file. Must be called within a
    /// tokio runtime.
    pub fn connector(&self, target: &'static str) -> Result<Option<Connector>, Error> {
        let Some(paths) = self.paths()? else { return Ok(None) };
        let name = parse_server_name(self.server_name.as_deref().unwrap_or(target))?;
        let config = Reloading::start(target, paths, Duration::from_millis(self.reload_ms.max(1)), build_config)?;
        Ok(Some(Connector { config, name }))
    }

    fn paths(&self) -> Result<Option<Vec<PathBuf>>, Error> {
        match (&self.ca_file, &self.cert_file, &self.key_file) {
            (Some(ca), Some(cert), Some(key)) => Ok(Some(vec![ca.clone(), cert.clone(), key.clone()])),
            (_, Some(_), None) => Err(Error::Missing("cert_file", "key_file")),
            (_, None, Some(_)) => Err(Error::Missing("key_file", "cert_file")),
            (None, Some(_), Some(_)) => Err(Error::Missing("cert_file", "ca_file")),
            (Some(ca), None, None) => Ok(Some(vec![ca.clone()])),
            (None, None, None) => Ok(None),
        }
    }
}

fn parse_server_name(name: &str) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(name.to_owned()).map_err(|_| Error::Name(name.to_owned()))
}

/// Builds the rustls configuration, and returns the expiry of the client certificate.
fn build_config(files: &[File]) -> Result<(ClientConfig, Option<i64>), Error> {
    let [ca, identity @ ..] = files else { return Err(Error::Missing("cert_file", "ca_file")) };
    let builder = ClientConfig::builder_with_provider(files::provider()).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(ca.authorities()?);
    let (mut config, expiry) = match identity {
        [cert, key] => {
            let (chain, key) = files::identity(cert, key)?;
            let expiry = files::expiry(&chain);
            (builder.with_client_auth_cert(chain, key)?, expiry)
        }
        _ => (builder.with_no_client_auth(), None),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok((config, expiry))
}

/// TLS connector for one upstream.
#[derive(Debug, Clone)]
pub struct Connector {
    config: Arc<Reloading<ClientConfig>>,
    name: ServerName<'static>,
}

impl Connector {
    /// Performs the handshake on a new connection.
    pub async fn connect<I: AsyncRead + AsyncWrite + Unpin>(&self, io: I) -> io::Result<Stream<I>> {
        let stream = TlsConnector::from(self.config.load()).connect(self.name.clone(), io).await?;
        Ok(Stream::Secure(Box::new(stream.into())))
    }
}
