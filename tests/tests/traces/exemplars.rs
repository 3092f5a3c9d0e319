//! Exemplars of histograms: exported traces, as read by a real Prometheus.

use palisade_tests::{Client, Response, eventually, otlp::Collector, servers::Prometheus, shop::ALL_SCOPES, shop_helpers::create_product};
use serde_json::{Value, json};

use super::{FIND, complete_with, inject, shop, with_fault_injection};

const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0";
const LATENCY: &str = "http_server_request_duration_seconds_bucket";

async fn scrape(admin: &Client, accept: &str) -> Response {
    admin.get("/metrics").header("accept", accept).attempt().await.unwrap()
}

/// Returns the trace ids of the exemplars of a histogram.
async fn exemplars(prometheus: &Prometheus, histogram: &str) -> Vec<String> {
    let path = format!("/api/v1/query_exemplars?query={histogram}&start=0&end=99999999999");
    let series = prometheus.api(&path).await;
    let found = series.as_array().unwrap().iter().flat_map(|series| series["exemplars"].as_array().unwrap());
    found.map(|exemplar| exemplar["labels"]["trace_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn exemplar_of_a_slow_request_is_its_trace() {
    let collector = Collector::start();
    let shop = shop(&collector, |service, command| {
        with_fault_injection(service, command);
        command.env("PALISADE_TELEMETRY__SAMPLE_RATIO", "0");
    });
    let prometheus = Prometheus::scraping(&shop, &[] as &[&str]);
    prometheus.ready().await;
    let seller = shop.client("seller", ALL_SCOPES);
    let path = format!("/products/{}", create_product(&seller, 1).await);
    let fast = seller.get(&path).await;
    fast.ok(200);
    inject(&shop, Some((FIND, json!({ "latency": { "ms": 300 } })))).await;
    let slow = seller.get(&path).await;
    slow.ok(200);
    let id = slow.header("x-trace-id").unwrap();
    collector.trace(id, complete_with(3)).await;

    for histogram in [LATENCY, "rpc_server_call_duration_seconds_bucket", "rpc_client_call_duration_seconds_bucket"] {
        let found = async || exemplars(&prometheus, histogram).await.contains(&id.to_owned()).then_some(());
        eventually(found).await;
    }
    assert!(!exemplars(&prometheus, LATENCY).await.contains(&fast.header("x-trace-id").unwrap().to_owned()), "it has no trace");
    assert!(!prometheus.query("palisade_orders_total").await.is_empty(), "counters keep their names");
    let failed = prometheus.api("/api/v1/targets?state=active").await;
    let errors: Vec<&Value> = failed["activeTargets"].as_array().unwrap().iter().map(|target| &target["lastError"]).collect();
    assert!(errors.iter().all(|error| **error == json!("")), "{errors:?}");

    let admin = Client::new(shop.admin_url("gateway"), None);
    let openmetrics = scrape(&admin, OPENMETRICS).await;
    assert!(openmetrics.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let text = openmetrics.text();
    assert!(text.ends_with("# EOF\n") && text.contains(&format!(" # {{trace_id=\"{id}\"}} ")), "{text}");
    let plain = scrape(&admin, "text/plain").await;
    assert!(plain.header("content-type").unwrap().starts_with("text/plain"));
    assert!(!plain.text().contains("trace_id"));
    let compressed = admin.get("/metrics").header("accept-encoding", "gzip").attempt().await.unwrap();
    assert_eq!(compressed.header("content-encoding"), Some("gzip"));
    assert!(compressed.body.len() * 4 < plain.body.len(), "{} {}", compressed.body.len(), plain.body.len());
}
