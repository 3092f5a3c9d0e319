//! Generator of `docs/metrics.md`: a table of every metric in the catalogs.

use std::fmt::Write;

use anyhow::ensure;
use palisade_middleware::metrics::{CATALOG, Kind, Metric};

use crate::known_metrics::{catalog, exposed_label};

/// Section of the page, selected by metric name prefixes. The first matching group wins.
struct Group {
    title: &'static str,
    names: &'static [&'static str],
    /// Services that expose the middleware metrics of this group. Service metrics are exposed by
    /// their own service.
    exposed_by: &'static str,
}

const ALL: &str = "all";
const CALLERS: &str = "gateway, orders";
const STORES: &str = "orders, products";

const GROUPS: [Group; 18] = [
    Group { title: "HTTP server", names: &["http.server."], exposed_by: "gateway" },
    Group { title: "gRPC server", names: &["rpc.server.", "palisade.rpc.server."], exposed_by: STORES },
    Group { title: "gRPC client", names: &["rpc.client.", "grpc.client."], exposed_by: CALLERS },
    Group { title: "HTTP client", names: &["http.client.", "palisade.http.client."], exposed_by: ALL },
    Group {
        title: "Retries, circuit breakers, load balancing",
        names: &["palisade.retry.", "palisade.retries.", "palisade.breaker.", "palisade.outlier.", "palisade.lb."],
        exposed_by: CALLERS,
    },
    Group { title: "Deadlines", names: &["palisade.request.timeouts", "palisade.grpc_timeout.", "palisade.deadline."], exposed_by: ALL },
    Group {
        title: "Load shedding and concurrency limits",
        names: &[
            "palisade.requests.shed",
            "palisade.rate_limit.",
            "palisade.concurrency.",
            "palisade.queue.",
            "palisade.responses.",
            "palisade.rejections.",
        ],
        exposed_by: ALL,
    },
    Group {
        title: "Connections, streams, fault injection, panics, background jobs",
        names: &["palisade.connections.", "palisade.streams.", "palisade.faults.", "palisade.panics", "palisade.job."],
        exposed_by: ALL,
    },
    Group { title: "Readiness", names: &["palisade.ready", "palisade.dependency."], exposed_by: ALL },
    Group { title: "Service discovery", names: &["palisade.discovery."], exposed_by: CALLERS },
    Group { title: "Registration", names: &["palisade.registration."], exposed_by: STORES },
    Group {
        title: "Tokens and certificates",
        names: &["palisade.auth.", "palisade.jwks.", "palisade.revocation_list.", "palisade.tls."],
        exposed_by: ALL,
    },
    Group { title: "Callers", names: &["palisade.caller."], exposed_by: "gateway" },
    Group { title: "Response cache", names: &["palisade.cache."], exposed_by: "gateway" },
    Group { title: "Stores", names: &["db.client.", "palisade.store."], exposed_by: STORES },
    Group {
        title: "Orders, sagas, outbox",
        names: &["palisade.orders", "palisade.idempotency.", "palisade.saga.", "palisade.outbox."],
        exposed_by: "orders",
    },
    Group { title: "Stock", names: &["palisade.stock.", "palisade.invariant."], exposed_by: "products" },
    Group {
        title: "Process, runtime, telemetry",
        names: &["build.", "process_", "tokio", "otel.sdk.", "palisade.tail_sampling.", "palisade.log."],
        exposed_by: ALL,
    },
];

const INTRODUCTION: &str = "\
# Metrics

Every process serves `GET /metrics` on its admin port: gateway 9464, products 9465, orders 9466.
The format is Prometheus text, or OpenMetrics with exemplars if `Accept` prefers it, with gzip.
Scrape every 5 s with the jobs `gateway`, `products`, `orders`. Prometheus adds `job` and
`instance`. This page is generated from the catalogs in the code by `make dashboards`.

**Names.** In code OpenTelemetry: `http.server.request.duration`, label `http.route`. In Prometheus
underscores, unit and `_total` for counters: `http_server_request_duration_seconds`, `http_route`.

**Kinds.** Query counters with `rate(…[1m])`. Histograms have `…_bucket` (`le`), `…_count`, `…_sum`:
count with `…_count`, compute quantiles from `…_bucket`, use `…_sum` only for time spent.

**Buckets.** 0.5, 1, 2.5, 5, 10, 25, 50, 75, 100, 250, 500, 750 ms, 1, 2.5, 5, 7.5, 10 s, or 1 to 5.
Latency objectives use one of them. Match `le=~\"1|1.0\"`: Prometheus 2 has `1`, Prometheus 3 `1.0`.

**Errors.** Only failures have an `error_type` (`error_type!=\"\"`): 5xx on the HTTP server, 4xx/5xx
on the HTTP client, every gRPC code but `OK`. A 404 of the HTTP server is not an error.

**Exposed by** lists the services that export the metric with default settings. A service with an
`auth.issuers.….jwks_url` also has HTTP client, retry and breaker series, `target` is the issuer.

**Label values** are bounded by the code. Client input never becomes a label value.
";

/// Renders the page.
pub(crate) fn render() -> anyhow::Result<String> {
    let mut page = INTRODUCTION.to_owned();
    let mut remaining = catalog();
    for group in &GROUPS {
        let (in_group, others): (Vec<_>, Vec<_>) = remaining.into_iter().partition(|metric| group.matches(metric));
        remaining = others;
        writeln!(page, "\n## {}\n\n| name | kind | unit | labels | exposed by | meaning |\n|---|---|---|---|---|---|", group.title)?;
        for metric in in_group {
            row(&mut page, metric, group)?;
        }
    }
    ensure!(remaining.is_empty(), "metrics without a group: {:?}", remaining.iter().map(|metric| metric.name).collect::<Vec<_>>());
    Ok(page)
}

impl Group {
    fn matches(&self, metric: &Metric) -> bool {
        self.names.iter().any(|prefix| metric.name.starts_with(prefix))
    }
}

fn row(page: &mut String, metric: &Metric, group: &Group) -> std::fmt::Result {
    let kind = match metric.kind {
        Kind::Counter | Kind::FractionCounter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
        Kind::CountHistogram => "histogram of counts",
    };
    let unit = metric.unit.map_or("", |unit| unit.as_str());
    let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{}`", exposed_label(label))).collect();
    let (name, labels, by, help) = (metric.exposed(), labels.join(", "), exposed_by(metric, group), metric.help);
    writeln!(page, "| `{name}` | {kind} | {unit} | {labels} | {by} | {help} |")
}

fn exposed_by(metric: &Metric, group: &Group) -> &'static str {
    let of_orders = palisade_orders::metrics::METRICS.contains(metric);
    let of_products = palisade_products::metrics::METRICS.contains(metric);
    match (of_orders, of_products) {
        _ if CATALOG.contains(metric) => group.exposed_by,
        (true, true) => STORES,
        (true, false) => "orders",
        (false, true) => "products",
        (false, false) => "gateway",
    }
}
