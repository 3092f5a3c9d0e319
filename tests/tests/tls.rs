//! TLS and mTLS on every hop: orders succeed, certificates are renewed under load, and
//! unauthenticated peers are rejected.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

#[path = "../../middleware/tests/support/test_ca.rs"]
mod test_ca;

use std::{fs, path::Path, process::Command};

use palisade_tests::{
    Client, Shop, eventually,
    otlp::{Collector, Protocol},
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{create_product, place_confirmed_order},
};
use tempfile::TempDir;
use test_ca::Authority;

/// Year at whose start the certificates expire.
const EXPIRY_YEAR: i32 = 2999;
const SERVICES: [&str; 3] = ["gateway", "products", "orders"];

/// Issues certificates for all services, each with the name used in its tokens.
fn issue(authority: &Authority, directory: &Path) {
    for service in SERVICES {
        authority.issue(&directory.join(service), &[service, "localhost", "127.0.0.1"], EXPIRY_YEAR);
    }
}

/// Creates a directory with a CA and its certificates.
fn certificates() -> (TempDir, Authority) {
    let directory = TempDir::new().unwrap();
    let authority = Authority::new(directory.path(), "authority");
    issue(&authority, directory.path());
    (directory, authority)
}

/// Configures TLS for a service's own port and its upstreams.
fn configure_tls(directory: &Path, service: &str, command: &mut Command) {
    let file = |name: String| directory.join(name).display().to_string();
    let own = [("CERT_FILE", file(format!("{service}.crt"))), ("KEY_FILE", file(format!("{service}.key"))), ("RELOAD_MS", "50".to_owned())];
    let upstreams: Vec<_> =
        command.get_envs().filter_map(|(key, value)| Some((key.to_str()?.to_owned(), value?.to_str()?.to_owned()))).collect();
    for (key, url) in upstreams.iter().filter(|(key, _)| key.starts_with("PALISADE_UPSTREAMS__") && key.ends_with("__URL")) {
        command.env(key, url.replace("http://", "https://"));
        let tls = key.replace("__URL", "__TLS__");
        command.env(format!("{tls}CA_FILE"), file("authority.pem".to_owned()));
        command.envs(own.clone().map(|(setting, value)| (format!("{tls}{setting}"), value)));
    }
    command.envs(own.map(|(setting, value)| (format!("PALISADE_SERVER__TLS__{setting}"), value)));
    if service != "gateway" {
        command.env("PALISADE_SERVER__TLS__CLIENT_CA_FILE", file("authority.pem".to_owned()));
    }
}

#[tokio::test]
async fn certificates_are_renewed_under_load() {
    let (directory, authority) = certificates();
    let path = directory.path();
    let collector = Collector::start();
    let shop = Shop::separate_with(None, None, |service, command| {
        configure_tls(path, service, command);
        collector.configure(command);
    });
    assert!(shop.url().starts_with("https://"), "{}", shop.url());
    let (seller, buyer) =
        (shop.client("seller", ALL_SCOPES).with_ca(&authority.file), shop.client("buyer", CUSTOMER).with_ca(&authority.file));
    let product = create_product(&seller, 100).await;
    place_confirmed_order(&buyer, &[(&product, 1)]).await;

    let answer = buyer.get("/products").await;
    assert_eq!(answer.header("strict-transport-security"), Some("max-age=63072000; includeSubDomains"));
    let trace = collector.trace(answer.header("x-trace-id").unwrap(), |trace| trace.0.len() >= 3 && trace.is_complete()).await;
    assert_eq!(trace.root().attribute("url.scheme"), "https");
    let metrics = Client::new(shop.admin_url("gateway"), None).get("/metrics").attempt().await.unwrap().text();
    let requests = |scheme: &str| {
        let label = format!("url_scheme=\"{scheme}\"");
        let counts =
            metrics.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count{") && line.contains(&label));
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    assert!(requests("https") >= 3.0 && requests("http") < 1.0, "requests under TLS have the scheme https");
    let plain = Client::new(shop.url().replace("https://", "http://"), None).get("/products").attempt().await;
    assert!(plain.is_err(), "plain HTTP must fail");
    assert!(shop.client("buyer", CUSTOMER).get("/products").attempt().await.is_err(), "an unknown CA must be rejected");

    // Renews the certificates under load until all three services have reloaded them.
    issue(&authority, path);
    eventually(async || {
        place_confirmed_order(&buyer, &[(&product, 1)]).await;
        let mut renewed = Vec::new();
        for service in SERVICES {
            let metrics = Client::new(shop.admin_url(service), None).get("/metrics").attempt().await.unwrap().text();
            let line = r#"palisade_tls_reloads_total{certificate="server",outcome="ok"} "#;
            renewed.push(metrics.lines().any(|shown| shown.strip_prefix(line).is_some_and(|times| times != "0")));
        }
        renewed.iter().all(|renewed| *renewed).then_some(())
    })
    .await;
    for service in ["products", "orders"] {
        shop.invariants(service).await;
    }
}

#[tokio::test]
async fn certificate_must_match_token_issuer() {
    let (directory, authority) = certificates();
    let path = directory.path();
    for file in ["crt", "key"] {
        fs::copy(path.join("orders").with_extension(file), path.join("gateway").with_extension(file)).unwrap();
    }
    let shop = Shop::separate_with(None, None, |service, command| {
        configure_tls(path, service, command);
        // Client errors are logged at this level.
        command.env("PALISADE_TELEMETRY__LOG_FILTER", "info,palisade_resilience::rejection=debug");
    });
    let buyer = shop.client("buyer", CUSTOMER).with_ca(&authority.file);
    let refused = buyer.get("/products").attempt().await.unwrap();
    assert_eq!(refused.status, 500, "rejected internal tokens must be a server error");
    let why = "token issued by gateway received from a peer with certificate names";
    eventually(async || shop.program("products").log().contains(why).then_some(())).await;
}

#[tokio::test]
async fn spans_are_exported_over_tls() {
    export_over_tls(Protocol::Grpc).await;
}

#[tokio::test]
async fn spans_are_exported_over_https() {
    export_over_tls(Protocol::Http).await;
}

/// Exports spans to a collector whose CA one of the services does not trust.
async fn export_over_tls(protocol: Protocol) {
    let (directory, _authority) = certificates();
    let stranger = Authority::new(directory.path(), "stranger");
    let file = |name: &str| directory.path().join(name);
    let collector = Collector::start_tls(protocol, &file("gateway.crt"), &file("gateway.key"));
    let shop = Shop::separate_with(None, None, |service, command| {
        collector.configure(command);
        let trusted = if service == "orders" { stranger.file.clone() } else { file("authority.pem") };
        command.env("PALISADE_TELEMETRY__OTLP_CA_FILE", trusted);
    });
    let seller = shop.client("seller", ALL_SCOPES);
    seller.get("/orders").await.ok(200);
    let answer = seller.get("/products").await;
    let id = answer.header("x-trace-id").unwrap().to_owned();
    for service in ["gateway", "products"] {
        collector.span(|span| span.trace_id == id && span.service == service).await;
    }
    eventually(async || shop.program("orders").log().contains("span export failed").then_some(())).await;
    assert!(collector.spans().iter().all(|span| span.service != "orders"), "spans were sent to an untrusted collector");
}
