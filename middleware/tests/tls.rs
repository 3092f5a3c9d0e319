//! TLS and mTLS between client and server stack: accepted and rejected peers, certificate reload.
#![expect(clippy::unwrap_used, reason = "an unwrap in a test is an assertion")]

#[path = "support/test_ca.rs"]
mod test_ca;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use palisade_middleware::{
    auth::{CredentialsLayer, InternalTokens, Issuer, TokenPolicy, Verifier, jwks::JwksSource, keys::SigningKey},
    client::{self, Client},
    clock::SystemClock,
    fault_injection::Faults,
    method_table::{Access, Method, MethodTable},
    respond::Protocol,
    retry::MethodContracts,
    server::{self, accept},
    task,
    tls::{PortTls, UpstreamTls},
};
use tempfile::TempDir;
use test_ca::{Authority, Issued};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use tonic::{Code, service::Routes};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::layer::util::Identity;

const CHECK: &str = "/grpc.health.v1.Health/Check";
static METHODS: [Method; 1] = [Method::grpc(CHECK, Access::Scope("check"))];
/// Expiry year of a certificate.
const VALID: i32 = 2999;
const EXPIRED: i32 = 2001;
/// Reload interval, milliseconds.
const RELOAD_MS: u64 = 20;
/// Test timeout, long enough for a busy machine.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A CA with the certificates of `products` and `gateway`.
struct Fixture {
    directory: TempDir,
    authority: Authority,
    products: Issued,
    gateway: Issued,
    signing: SigningKey,
}

impl Fixture {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path();
        let authority = Authority::new(path, "authority");
        let products = authority.issue(&path.join("products"), &["products", "products.example"], VALID);
        let gateway = authority.issue(&path.join("gateway"), &["gateway.example", "gateway"], VALID);
        let signing = SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap();
        Self { directory, authority, products, gateway, signing }
    }

    fn port(&self) -> PortTls {
        PortTls {
            cert_file: Some(self.products.cert.clone()),
            key_file: Some(self.products.key.clone()),
            client_ca_file: Some(self.authority.file.clone()),
            reload_ms: RELOAD_MS,
        }
    }

    fn upstream(&self) -> UpstreamTls {
        self.upstream_as(&self.gateway)
    }

    fn upstream_as(&self, issued: &Issued) -> UpstreamTls {
        UpstreamTls {
            ca_file: Some(self.authority.file.clone()),
            cert_file: Some(issued.cert.clone()),
            key_file: Some(issued.key.clone()),
            server_name: None,
            reload_ms: RELOAD_MS,
        }
    }

    /// Starts a service that trusts the gateway's tokens.
    fn serve(&self, tls: &PortTls) -> SocketAddr {
        let listener = accept::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let port = accept::Listener { tls: tls.acceptor(Protocol::Grpc).unwrap(), ..listener.into() };
        let issuer = Issuer::of_service("gateway", "products", JwksSource::fixed(vec![self.signing.trusted().unwrap()]));
        let verifier = Arc::new(Verifier::new(vec![issuer], Arc::new(SystemClock)).unwrap());
        let handler = Routes::new(tonic_health::server::health_reporter().1).prepare().into_axum_router();
        let (config, table) = (server::Config::default(), Arc::new(MethodTable::new(&[&METHODS]).unwrap()));
        let stack = server::stack(Protocol::Grpc, handler, table, verifier, Faults::disabled(), &config);
        drop(task::spawn(async move { accept::serve(port, Protocol::Grpc, stack, &config, CancellationToken::new()).await }));
        address
    }

    /// Client of the gateway, identified by its tokens.
    fn connect(&self, address: SocketAddr, tls: UpstreamTls) -> Client {
        let scheme = if tls.is_on() { "https" } else { "http" };
        let config = client::Config { tls, ..client::Config::at(format!("{scheme}://{address}")) };
        let tokens = InternalTokens::new("gateway", TokenPolicy::Service(&["check"]), self.signing.clone(), Arc::new(SystemClock));
        let credentials = CredentialsLayer::new(Arc::new(tokens), "products");
        client::connect("products", &config, MethodContracts::default(), credentials).unwrap()
    }
}

async fn call(client: &Client) -> Code {
    let answer = HealthClient::new(client.clone()).check(HealthCheckRequest::default()).await;
    answer.err().map_or(Code::Ok, |status| status.code())
}

async fn eventually(condition: impl AsyncFn() -> bool) {
    let polling = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(RELOAD_MS)).await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, polling).await.expect("condition met in time");
}

#[tokio::test]
async fn server_accepts_only_matching_client_certificate() {
    let fixture = Fixture::new();
    let path = fixture.directory.path();
    let address = fixture.serve(&fixture.port());
    assert_eq!(call(&fixture.connect(address, fixture.upstream())).await, Code::Ok);

    let untrusted_ca = Authority::new(path, "strangers");
    let cases = [
        ("no certificate", UpstreamTls { cert_file: None, key_file: None, ..fixture.upstream() }, Code::Unavailable),
        ("expired certificate", fixture.upstream_as(&fixture.authority.issue(&path.join("old"), &["gateway"], EXPIRED)), Code::Unavailable),
        ("untrusted CA", fixture.upstream_as(&untrusted_ca.issue(&path.join("stranger"), &["gateway"], VALID)), Code::Unavailable),
        (
            "certificate of another service",
            fixture.upstream_as(&fixture.authority.issue(&path.join("orders"), &["orders"], VALID)),
            Code::Unauthenticated,
        ),
        (
            "name with the expected suffix",
            fixture.upstream_as(&fixture.authority.issue(&path.join("x"), &["xgateway"], VALID)),
            Code::Unauthenticated,
        ),
        ("no TLS", UpstreamTls::default(), Code::Unavailable),
    ];
    for (case, tls, expected) in cases {
        assert_eq!(call(&fixture.connect(address, tls)).await, expected, "{case}");
    }
}

#[tokio::test]
async fn client_accepts_only_the_expected_server_name() {
    let fixture = Fixture::new();
    let path = fixture.directory.path();
    let untrusted_ca = Authority::new(path, "strangers");
    let port = |issued: Issued| PortTls { cert_file: Some(issued.cert), key_file: Some(issued.key), ..fixture.port() };
    let cases = [
        ("untrusted CA", port(untrusted_ca.issue(&path.join("stranger"), &["products"], VALID)), Code::Unavailable),
        ("expired certificate", port(fixture.authority.issue(&path.join("old"), &["products"], EXPIRED)), Code::Unavailable),
        ("another service", port(fixture.authority.issue(&path.join("orders"), &["orders"], VALID)), Code::Unavailable),
        ("plain text", PortTls::default(), Code::Unavailable),
        ("server without client certificates", PortTls { client_ca_file: None, ..fixture.port() }, Code::Ok),
    ];
    for (case, tls, expected) in cases {
        let address = fixture.serve(&tls);
        assert_eq!(call(&fixture.connect(address, fixture.upstream())).await, expected, "{case}");
    }
    let named = UpstreamTls { server_name: Some("products.example".to_owned()), ..fixture.upstream() };
    assert_eq!(call(&fixture.connect(fixture.serve(&fixture.port()), named)).await, Code::Ok);
}

#[tokio::test]
async fn tls_port_rejects_plain_http() {
    let fixture = Fixture::new();
    let address = fixture.serve(&fixture.port());
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: products\r\n\r\n").await.unwrap();
    let mut received = Vec::new();
    let _ = tokio::time::timeout(TEST_TIMEOUT, stream.read_to_end(&mut received)).await.unwrap();
    assert!(!received.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&received));
}

#[tokio::test]
async fn certificates_reload_and_invalid_ones_are_ignored() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let prometheus = recorder.handle();
    let _here = metrics::set_default_local_recorder(&recorder);
    let fixture = Fixture::new();
    let path = fixture.directory.path();
    let address = fixture.serve(&fixture.port());
    let before = fixture.upstream();
    assert_eq!(call(&fixture.connect(address, before.clone())).await, Code::Ok);

    std::fs::write(&fixture.products.cert, "half of a cert").unwrap();
    let is_failed_reload =
        |line: &str| line.starts_with(r#"palisade_tls_reloads{certificate="server",outcome="failed"}"#) && !line.ends_with(" 0");
    eventually(async || prometheus.render().lines().any(is_failed_reload)).await;
    assert_eq!(call(&fixture.connect(address, before.clone())).await, Code::Ok, "the old certificate stays in use");

    // Replaces the CA and all certificates; the existing client was built from the old files.
    let client = fixture.connect(address, before.clone());
    let next = Authority::new(path, "next");
    next.issue(&path.join("products"), &["products"], VALID);
    next.issue(&path.join("gateway"), &["gateway"], VALID);
    std::fs::copy(&next.file, &fixture.authority.file).unwrap();
    eventually(async || call(&fixture.connect(address, before.clone())).await == Code::Ok).await;
    eventually(async || call(&client).await == Code::Ok).await;
}

#[tokio::test]
async fn invalid_tls_settings_fail_at_startup() {
    let fixture = Fixture::new();
    let other = fixture.authority.issue(&fixture.directory.path().join("other"), &["products"], VALID);
    let port = fixture.port();
    let invalid = [
        (PortTls { key_file: None, ..port.clone() }, "tls.cert_file requires tls.key_file"),
        (PortTls { cert_file: None, key_file: None, ..port.clone() }, "tls.client_ca_file requires tls.cert_file"),
        (PortTls { key_file: Some(other.key), ..port.clone() }, "cannot use the certificate with its key"),
        (PortTls { cert_file: Some("nowhere.crt".into()), ..port.clone() }, "cannot read nowhere.crt"),
        (PortTls { cert_file: port.key_file.clone(), ..port.clone() }, "contains no certificate in PEM"),
        (PortTls { key_file: port.cert_file.clone(), ..port.clone() }, "contains no private key in PEM"),
    ];
    for (tls, text) in invalid {
        let error = tls.check().unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    assert!(port.check().is_ok() && PortTls::default().check().is_ok());
    let upstream = fixture.upstream();
    for (tls, text) in [
        (UpstreamTls { ca_file: None, ..upstream.clone() }, "tls.cert_file requires tls.ca_file"),
        (UpstreamTls { server_name: Some("no name".to_owned()), ..upstream.clone() }, "is not a host name"),
    ] {
        let error = tls.check().unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    assert!(upstream.check().is_ok());
    for (url, tls) in [("https://a:1", UpstreamTls::default()), ("http://a:1", upstream)] {
        let config = client::Config { tls, ..client::Config::at(url) };
        let error = client::connect("products", &config, MethodContracts::default(), Identity::new()).unwrap_err().to_string();
        assert!(error.starts_with("url must be https://"), "{error}");
    }
}
