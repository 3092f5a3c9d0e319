//! The client's side: whom an upstream must be vouched for by, and who we say we are.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};

use super::{
    Error, Stream,
    files::{self, File},
    reload::{Reloading, build_once},
};

/// TLS towards an upstream; without an authority it is called in plain text.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTls {
    /// PEM file with the authorities of the upstream's certificate. With it only TLS is spoken.
    pub ca_file: Option<PathBuf>,
    /// PEM file with our own certificate, if the upstream wants one.
    pub cert_file: Option<PathBuf>,
    /// PEM file with its private key.
    pub key_file: Option<PathBuf>,
    /// The DNS name that the upstream's certificate must have, whatever address it was found at; by default the name of the service.
    pub server_name: Option<String>,
    /// How often the files are looked at for new certificates, milliseconds.
    pub reload_ms: u64,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self { ca_file: None, cert_file: None, key_file: None, server_name: None, reload_ms: 10_000 }
    }
}

impl UpstreamTls {
    /// Whether TLS is spoken.
    pub fn is_on(&self) -> bool {
        self.ca_file.is_some()
    }

    /// Reads the files to see whether they can be used.
    pub fn check(&self) -> Result<(), Error> {
        if let Some(paths) = self.paths()? {
            build_once(&paths, build_config)?;
        }
        self.server_name.as_deref().map_or(Ok(()), |name| parse_server_name(name).map(drop))
    }

    /// What shakes hands with `target`; `None` without an authority. Must be called within a tokio runtime.
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

/// The configuration, and when our own certificate ends.
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

/// Shakes hands with one upstream.
#[derive(Debug, Clone)]
pub struct Connector {
    config: Arc<Reloading<ClientConfig>>,
    name: ServerName<'static>,
}

impl Connector {
    /// Shakes hands over a fresh connection.
    pub async fn connect(&self, tcp: TcpStream) -> io::Result<Stream<TcpStream>> {
        let stream = TlsConnector::from(self.config.load()).connect(self.name.clone(), tcp).await?;
        Ok(Stream::Secure(Box::new(stream.into())))
    }
}
