//! `docs/metrics.md` against what the services show.

use std::collections::{BTreeMap, BTreeSet};

use palisade_tests::{
    Client, Shop,
    metrics_recorder::{Labels, labels},
};

const SERVICES: [&str; 3] = ["gateway", "products", "orders"];
/// The first event of its kind makes these: their labels are methods of calls, or where keys come from. The last three are there only where TLS
/// or a registry is configured.
const LATER: [&str; 12] = [
    "http_client_request_duration_seconds",
    "palisade_http_client_attempt_duration_seconds",
    "grpc_client_attempt_started_total",
    "grpc_client_attempt_duration_seconds",
    "grpc_client_call_retries",
    "grpc_client_call_transparent_retries",
    "rpc_client_call_duration_seconds",
    "palisade_auth_key_set_reads_total",
    "palisade_auth_revocations_reads_total",
    "palisade_discovery_",
    "palisade_registration_",
    "palisade_tls_",
];

/// A row of the page.
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

/// What a service shows.
async fn shown(shop: &Shop, service: &str) -> Labels {
    labels(&Client::new(shop.admin_url(service), None).get("/metrics").attempt().await.unwrap().text())
}

fn is_shown_by(row: &Row, service: &str) -> bool {
    row.exposed_by == "all" || row.exposed_by.split(", ").any(|name| name == service)
}

/// From its first moment a service shows what it will ever show, but what needs an event to have a label.
pub(crate) async fn holds_from_the_start(shop: &Shop) {
    let page = page();
    for service in SERVICES {
        let shown = shown(shop, service).await;
        let late = |name: &str| LATER.iter().any(|later| name.starts_with(later));
        let expected = page.iter().filter(|(name, row)| is_shown_by(row, service) && !late(name));
        let missing: Vec<_> = expected.filter(|(name, _)| !shown.contains_key(*name)).map(|(name, _)| name).collect();
        assert_eq!(missing, Vec::<&String>::new(), "{service} does not show these at its start");
    }
}

/// Nothing is shown that the page does not name, nor with other labels.
pub(crate) async fn holds(shop: &Shop) {
    let page = page();
    for service in SERVICES {
        for (name, labels) in shown(shop, service).await {
            let row = page.get(&name).unwrap_or_else(|| panic!("{service} shows {name}, which docs/metrics.md does not name"));
            assert!(is_shown_by(row, service), "{service} shows {name}, docs/metrics.md says {}", row.exposed_by);
            assert!(labels.is_subset(&row.labels), "{name} has the labels {labels:?}, docs/metrics.md says {:?}", row.labels);
        }
    }
}
