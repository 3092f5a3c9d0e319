//! The three services with TLS on every hop: orders go through, certificates are changed under load, and nobody comes in without.
#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

#[path = "../../middleware/tests/support/authority.rs"]
mod authority;

use std::{fs, path::Path, process::Command};

use authority::Authority;
use palisade_tests::{
    Client, Shop, eventually,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{confirmed, create_product},
};
use tempfile::TempDir;

/// The year at whose beginning certificates end.
const VALID: i32 = 2999;
const SERVICES: [&str; 3] = ["gateway", "products", "orders"];

/// Certificates for all, each with the name that its tokens have.
fn issue(authority: &Authority, directory: &Path) {
    for service in SERVICES {
        authority.issue(&directory.join(service), &[service, "localhost", "127.0.0.1"], VALID);
    }
}

/// A folder with an authority and what it has issued.
fn certificates() -> (TempDir, Authority) {
    let directory = TempDir::new().unwrap();
    let authority = Authority::new(directory.path(), "authority");
    issue(&authority, directory.path());
    (directory, authority)
}

/// Sets a service up for TLS: its own port, and what it calls.
fn secure(directory: &Path, service: &str, command: &mut Command) {
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
async fn orders_go_through_with_tls_on_every_hop_while_certificates_are_renewed() {
    let (directory, authority) = certificates();
    let path = directory.path();
    let shop = Shop::separate_with(None, None, |service, command| secure(path, service, command));
    shop.ready().await;
    assert!(shop.url().starts_with("https://"), "{}", shop.url());
    let (seller, buyer) =
        (shop.client("seller", ALL_SCOPES).trusting(&authority.file), shop.client("buyer", CUSTOMER).trusting(&authority.file));
    let product = create_product(&seller, 100).await;
    confirmed(&buyer, &[(&product, 1)]).await;

    let answer = buyer.get("/products").await;
    assert_eq!(answer.header("strict-transport-security"), Some("max-age=63072000; includeSubDomains"));
    let plain = Client::new(shop.url().replace("https://", "http://"), None).get("/products").attempt().await;
    assert!(plain.is_err(), "in plain text nothing is answered");
    assert!(
        shop.client("buyer", CUSTOMER).get("/products").attempt().await.is_err(),
        "an authority that nobody has heard of is not believed"
    );

    // New certificates of the same authority, then orders until all three have taken them up.
    issue(&authority, path);
    eventually(async || {
        confirmed(&buyer, &[(&product, 1)]).await;
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
async fn a_service_with_another_ones_certificate_is_not_believed() {
    let (directory, authority) = certificates();
    let path = directory.path();
    for file in ["crt", "key"] {
        fs::copy(path.join("orders").with_extension(file), path.join("gateway").with_extension(file)).unwrap();
    }
    let shop = Shop::separate_with(None, None, |service, command| {
        secure(path, service, command);
        // What is a caller's fault is told at this level.
        command.env("PALISADE_TELEMETRY__LOG", "info,palisade_middleware::rejection=debug");
    });
    shop.ready().await;
    let buyer = shop.client("buyer", CUSTOMER).trusting(&authority.file);
    let refused = buyer.get("/products").attempt().await.unwrap();
    assert_eq!(refused.status, 500, "its tokens are refused, which is nothing a user could mend");
    let why = "a token made by gateway came by a connection of";
    eventually(async || shop.program("products").log().contains(why).then_some(())).await;
}
