//! OTLP exporter of spans: gRPC or HTTP, with or without TLS.

use std::{fs, path::Path};

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use palisade_resilience::setting::Invalid;
use reqwest::{Url, redirect, retry};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use super::FLUSH_TIMEOUT;

/// Key of the setting with the endpoint.
const ENDPOINT: &str = "telemetry.otlp_endpoint";
/// Key of the setting with the CA certificates.
pub(super) const CA_FILE: &str = "telemetry.otlp_ca_file";

/// OTLP protocol, with the values of `OTEL_EXPORTER_OTLP_PROTOCOL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Protocol {
    /// gRPC.
    #[serde(rename = "grpc")]
    Grpc,
    /// HTTP with binary Protobuf.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

/// Validated endpoint, of which exporters are made.
#[derive(Debug)]
pub(super) enum Exporter {
    Grpc { endpoint: String, tls: Option<ClientTlsConfig> },
    Http { url: Url, client: reqwest::Client },
}

impl Exporter {
    /// Validates the endpoint, and reads the CA certificates of an `https://` endpoint: those of
    /// `ca_file`, or else those of the system.
    pub(super) fn new(protocol: Protocol, endpoint: &str, ca_file: Option<&Path>) -> Result<Self, Invalid> {
        // The URL is not part of the messages: it may contain a password.
        let invalid = || Invalid::new(ENDPOINT, "must be http://host:port or https://host:port");
        let url = Url::parse(endpoint).ok().filter(|url| url.host_str().is_some_and(|host| !host.is_empty())).ok_or_else(invalid)?;
        let unusable = || Invalid::new(if ca_file.is_some() { CA_FILE } else { ENDPOINT }, "no usable CA certificate");
        let ca = match (url.scheme(), ca_file) {
            ("http", None) => Ca::Plain,
            ("http", Some(_)) => return Err(Invalid::new(CA_FILE, "has no effect with an http:// endpoint")),
            ("https", None) => Ca::System,
            ("https", Some(path)) => {
                let pem = fs::read(path).map_err(|error| Invalid::unreadable(CA_FILE, path, &error))?;
                let certificates = reqwest::Certificate::from_pem_bundle(&pem).ok().filter(|found| !found.is_empty());
                Ca::File { certificates: certificates.ok_or_else(unusable)?, pem }
            }
            _ => return Err(invalid()),
        };
        match protocol {
            Protocol::Grpc => {
                let channel = Endpoint::from_shared(endpoint.to_owned()).map_err(|_| invalid())?;
                let tls = ca.for_grpc();
                if let Some(tls) = &tls {
                    channel.tls_config(tls.clone()).map_err(|_| unusable())?;
                }
                Ok(Self::Grpc { endpoint: endpoint.to_owned(), tls })
            }
            Protocol::HttpProtobuf => {
                let client = ca.for_http().ok_or_else(unusable)?;
                Ok(Self::Http { url: traces_url(url).ok_or_else(invalid)?, client })
            }
        }
    }

    /// Creates an exporter. Requires a Tokio runtime.
    pub(super) fn build(&self) -> Result<SpanExporter, ExporterBuildError> {
        match self {
            Self::Grpc { endpoint, tls } => {
                let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(FLUSH_TIMEOUT);
                let exporter = match tls {
                    Some(tls) => exporter.with_tls_config(tls.clone()),
                    None => exporter,
                };
                exporter.build()
            }
            Self::Http { url, client } => SpanExporter::builder()
                .with_http()
                .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
                .with_endpoint(url.as_str())
                .with_timeout(FLUSH_TIMEOUT)
                .with_http_client(OnRuntime { client: client.clone(), runtime: Handle::current() })
                .build(),
        }
    }
}

/// Source of the CA certificates.
enum Ca {
    /// No TLS.
    Plain,
    System,
    /// Certificates of a file, and its text.
    File {
        certificates: Vec<reqwest::Certificate>,
        pem: Vec<u8>,
    },
}

impl Ca {
    fn for_grpc(self) -> Option<ClientTlsConfig> {
        match self {
            Self::Plain => None,
            Self::System => Some(ClientTlsConfig::new().with_native_roots()),
            Self::File { pem, .. } => Some(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))),
        }
    }

    /// Returns a client, or `None` without a usable certificate of the system.
    fn for_http(self) -> Option<reqwest::Client> {
        // The exporter retries. Its headers may contain credentials, which no redirect receives.
        let builder = reqwest::Client::builder().timeout(FLUSH_TIMEOUT).redirect(redirect::Policy::none()).retry(retry::never());
        let builder = match self {
            // A host without CA certificates can export without TLS.
            Self::Plain => builder.tls_certs_only([]),
            Self::System => builder,
            Self::File { certificates, .. } => builder.tls_certs_only(certificates),
        };
        builder.build().ok()
    }
}

/// Returns the URL of the traces below the base URL `endpoint`, or `None` if `endpoint` is no base
/// URL. Credentials belong into headers.
fn traces_url(mut endpoint: Url) -> Option<Url> {
    if endpoint.query().is_some() || endpoint.fragment().is_some() || !endpoint.username().is_empty() || endpoint.password().is_some() {
        return None;
    }
    endpoint.path_segments_mut().ok()?.pop_if_empty().extend(["v1", "traces"]);
    Some(endpoint)
}

/// HTTP client for a thread without a runtime: the batch processor exports from its own thread.
#[derive(Debug)]
struct OnRuntime {
    client: reqwest::Client,
    runtime: Handle,
}

#[async_trait::async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { client.send_bytes(request).await }).await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_endpoint_is_a_base_url() {
        let url = |endpoint: &str| match Exporter::new(Protocol::HttpProtobuf, endpoint, None) {
            Ok(Exporter::Http { url, .. }) => Some(url.to_string()),
            _ => None,
        };
        for (endpoint, traces) in [
            ("http://localhost:4318", Some("http://localhost:4318/v1/traces")),
            ("http://localhost:4318/", Some("http://localhost:4318/v1/traces")),
            ("https://host/otlp", Some("https://host/otlp/v1/traces")),
            ("https://host/otlp/", Some("https://host/otlp/v1/traces")),
            ("http://localhost:4318?key=1", None),
            ("http://user:secret@localhost:4318", None),
            ("ftp://localhost:4318", None),
            ("localhost:4318", None),
            ("http://", None),
        ] {
            assert_eq!(url(endpoint).as_deref(), traces, "{endpoint}");
        }
    }

    #[test]
    fn ca_file_needs_https_and_certificates() {
        let directory = tempfile::tempdir().unwrap();
        let empty = directory.path().join("empty.pem");
        fs::write(&empty, "").unwrap();
        for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
            let key = |endpoint: &str, file: &Path| Exporter::new(protocol, endpoint, Some(file)).unwrap_err().key;
            assert_eq!(key("http://localhost:4318", &empty), CA_FILE);
            assert_eq!(key("https://localhost:4318", &directory.path().join("missing.pem")), CA_FILE);
            assert_eq!(key("https://localhost:4318", &empty), CA_FILE);
        }
    }
}
