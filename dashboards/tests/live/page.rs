//! `docs/metrics.md` against the metrics that the services expose.

use std::collections::{BTreeMap, BTreeSet};

use palisade_tests::{
    Client, Shop,
    metrics_recorder::{Labels, labels},
};

const SERVICES: [&str; 3] = ["gateway", "products", "orders"];
/// Prefixes of metrics created by their first event, because their labels are methods or key
/// sources. The last three require TLS or a service registry.
const CREATED_ON_FIRST_EVENT: [&str; 12] = [
    "http_client_request_duration_seconds",
    "palisade_http_client_attempt_duration_seconds",
    "grpc_client_attempt_started_total",
    "grpc_client_attempt_duration_seconds",
    "grpc_client_call_retries",
    "grpc_client_call_transparent_retries",
    "rpc_client_call_duration_seconds",
    "palisade_jwks_refreshes_total",
    "palisade_revocation_list_reloads_total",
    "palisade_discovery_",
    "palisade_registration_",
    "palisade_tls_",
];

/// Table row of the page.
struct Row {
    labels: BTreeSet<String>,
    exposed_by: String,
}

fn page() -> BTreeMap<String, Row> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let page = std::fs::read_to_string(path).unwrap();
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let rows = rows.map(|line| {
        let cells: Vec<_> = line.split('|').collect();
        let row = Row { labels: quoted(cells[4]), exposed_by: cells[5].trim().to_owned() };
        (quoted(cells[1]).pop_first().unwrap(), row)
    });
    rows.collect()
}

/// Returns the metrics and labels that a service exposes.
async fn exposed_labels(shop: &Shop, service: &str) -> Labels {
    labels(&Client::new(shop.admin_url(service), None).get("/metrics").attempt().await.unwrap().text())
}

fn is_exposed_by(row: &Row, service: &str) -> bool {
    row.exposed_by == "all" || row.exposed_by.split(", ").any(|name| name == service)
}

/// Asserts that a service exposes all its metrics at start, except those with labels from the first
/// event.
pub(crate) async fn assert_preregistered(shop: &Shop) {
    let page = page();
    for service in SERVICES {
        let shown = exposed_labels(shop, service).await;
        let late = |name: &str| CREATED_ON_FIRST_EVENT.iter().any(|later| name.starts_with(later));
        let expected = page.iter().filter(|(name, row)| is_exposed_by(row, service) && !late(name));
        let missing: Vec<_> = expected.filter(|(name, _)| !shown.contains_key(*name)).map(|(name, _)| name).collect();
        assert_eq!(missing, Vec::<&String>::new(), "{service} does not expose these metrics at start");
    }
}

/// Asserts that every exposed metric and label is documented.
pub(crate) async fn assert_documented(shop: &Shop) {
    let page = page();
    for service in SERVICES {
        for (name, labels) in exposed_labels(shop, service).await {
            let row = page.get(&name).unwrap_or_else(|| panic!("{service} exposes {name}, which is missing in docs/metrics.md"));
            assert!(is_exposed_by(row, service), "{service} exposes {name}, docs/metrics.md says {}", row.exposed_by);
            assert!(labels.is_subset(&row.labels), "{name} has the labels {labels:?}, docs/metrics.md says {:?}", row.labels);
        }
    }
}
