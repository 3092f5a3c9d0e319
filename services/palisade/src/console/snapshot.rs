//! State of one service, from its metrics and its admin routes.

use std::collections::BTreeMap;

use palisade_middleware::{
    admin::AdminPorts,
    telemetry::{Format, Telemetry},
};
use serde::Serialize;
use serde_json::Value;

use super::{
    admin_calls,
    exposition::{Sample, samples},
};

/// Metrics that the page shows as they are.
pub(super) const SERIES: [&str; 15] = [
    "palisade_breaker_rejected_total",
    "palisade_concurrency_in_use",
    "palisade_concurrency_limit",
    "palisade_orders_total",
    "palisade_outbox_dead_lettered",
    "palisade_outbox_oldest_seconds",
    "palisade_outbox_pending",
    "palisade_queue_depth",
    "palisade_requests_shed_total",
    "palisade_retries_denied_total",
    "palisade_retry_budget_tokens",
    "palisade_saga_in_flight",
    "palisade_saga_oldest_in_flight_seconds",
    "palisade_stock_out_products",
    "palisade_stock_units",
];

/// State of one service.
#[derive(Debug, Serialize)]
pub(super) struct Snapshot {
    service: &'static str,
    hops: Vec<Hop>,
    series: Vec<Series>,
    /// Response of `/breakers`. `None` without breakers.
    breakers: Option<Value>,
    /// Response of `/faults`. `None` if fault injection is disabled.
    faults: Option<Value>,
}

/// Requests of one service, or calls from it to one target, since its start: rate, errors and
/// duration (RED) of any interval are the differences of two snapshots.
#[derive(Debug, Default, Serialize)]
struct Hop {
    from: String,
    to: String,
    requests: f64,
    errors: f64,
    retries: f64,
    /// Upper bounds in seconds and cumulative counts, without the last bucket, which is unbounded.
    buckets: Vec<(f64, f64)>,
}

/// Current value of a series.
#[derive(Debug, Serialize)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Snapshot {
    /// Reads the state of `service`.
    pub(super) async fn read(telemetry: &Telemetry, ports: &AdminPorts, service: &'static str) -> Self {
        let (breakers, faults) = tokio::join!(
            admin_calls::read(ports, service, "/breakers"), //
            admin_calls::read(ports, service, "/faults")
        );
        let telemetry = telemetry.clone();
        // Rendering a large registry takes milliseconds.
        let metrics = tokio::task::spawn_blocking(move || of_metrics(service, &telemetry.render(service, Format::Text))).await;
        let (hops, series) = metrics.unwrap_or_default();
        Self { service, hops, series, breakers, faults: faults.map(|mut faults| faults["rules"].take()) }
    }
}

/// Returns the hops and series of `service` in the Prometheus text of its metrics.
fn of_metrics(service: &'static str, text: &str) -> (Vec<Hop>, Vec<Series>) {
    let (mut hops, mut series) = (BTreeMap::new(), Vec::new());
    for sample in samples(text) {
        if SERIES.contains(&sample.name) {
            let labels = sample.labels.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into_owned())).collect();
            series.push(Series { name: sample.name.to_owned(), labels, value: sample.value });
        } else {
            add_to_hop(&mut hops, service, &sample);
        }
    }
    let hops = hops.into_iter().map(|((_, from, to), hop)| Hop {
        from,
        to,
        buckets: hop.1.into_iter().map(|(bound, count)| (f64::from_bits(bound), count)).collect(),
        ..hop.0
    });
    (hops.collect(), series)
}

/// Hops in the order of the page, with their buckets by the bits of their bounds: those of positive
/// numbers have the same order.
type Hops = BTreeMap<(usize, String, String), (Hop, BTreeMap<u64, f64>)>;

fn add_to_hop(hops: &mut Hops, service: &str, sample: &Sample<'_>) {
    if sample.name == "grpc_client_attempt_started_total" {
        if sample.label("grpc_attempt_type") == "retry" {
            hops.entry((1, service.to_owned(), sample.label("grpc_target").to_owned())).or_default().0.retries += sample.value;
        }
        return;
    }
    let Some((family, part)) = sample.name.rsplit_once("_seconds_") else { return };
    let key = match family {
        "http_server_request_duration" => (0, "clients".to_owned(), service.to_owned()),
        "rpc_client_call_duration" => (1, service.to_owned(), sample.label("server_address").to_owned()),
        "db_client_operation_duration" => (2, service.to_owned(), sample.label("db_system_name").to_owned()),
        _ => return,
    };
    let (hop, buckets) = hops.entry(key).or_default();
    match (part, sample.label("le")) {
        ("count", _) => {
            hop.requests += sample.value;
            hop.errors += if sample.label("error_type").is_empty() { 0.0 } else { sample.value };
        }
        ("bucket", bound) => {
            if let Some(bound) = bound.parse().ok().filter(|bound: &f64| bound.is_finite()) {
                *buckets.entry(bound.to_bits()).or_default() += sample.value;
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_are_summed_over_routes() {
        let text = r#"
http_server_request_duration_seconds_bucket{http_route="/a",error_type="",le="0.5"} 3
http_server_request_duration_seconds_bucket{http_route="/a",error_type="",le="+Inf"} 4
http_server_request_duration_seconds_count{http_route="/a",error_type=""} 4
http_server_request_duration_seconds_bucket{http_route="/b",error_type="503",le="0.5"} 1
http_server_request_duration_seconds_bucket{http_route="/b",error_type="503",le="0.25"} 0
http_server_request_duration_seconds_count{http_route="/b",error_type="503"} 1
rpc_client_call_duration_seconds_count{server_address="orders",error_type=""} 2
grpc_client_attempt_started_total{grpc_target="orders",grpc_attempt_type="original"} 2
grpc_client_attempt_started_total{grpc_target="orders",grpc_attempt_type="retry"} 5
palisade_stock_units{state="sold"} 7
unknown_total 1
"#;
        let (hops, series) = of_metrics("gateway", text);
        assert_eq!(hops.iter().map(|hop| (&*hop.from, &*hop.to)).collect::<Vec<_>>(), [("clients", "gateway"), ("gateway", "orders")]);
        let sums = |hop: &Hop| [hop.requests, hop.errors, hop.retries].map(|count| format!("{count}"));
        assert_eq!(sums(&hops[0]), ["5", "1", "0"]);
        assert_eq!(sums(&hops[1]), ["2", "0", "5"]);
        assert_eq!(format!("{:?}", hops[0].buckets), "[(0.25, 0.0), (0.5, 4.0)]");
        assert_eq!(series.len(), 1);
        assert_eq!(series[0].labels["state"], "sold");
    }
}
