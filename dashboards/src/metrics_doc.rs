//! `docs/metrics.md`: every metric of the catalogues in a table.

use std::fmt::Write;

use anyhow::ensure;
use palisade_middleware::metrics::{CATALOG, Kind, Metric};

use crate::known_metrics::{catalogue, exposed_label};

/// Metrics that belong together, by the beginnings of their names; the first group that fits has them.
struct Group {
    title: &'static str,
    names: &'static [&'static str],
    /// Which services expose those of the middleware; a service's own are its own.
    by: &'static str,
}

const ALL: &str = "all";
const CALLERS: &str = "gateway, orders";
const STORES: &str = "orders, products";

const GROUPS: [Group; 16] = [
    Group { title: "HTTP requests answered", names: &["http.server."], by: "gateway" },
    Group { title: "gRPC calls answered", names: &["rpc.server.", "palisade.rpc.server."], by: STORES },
    Group { title: "gRPC calls made", names: &["rpc.client.", "grpc.client."], by: CALLERS },
    Group { title: "HTTP calls made", names: &["http.client.", "palisade.http.client."], by: ALL },
    Group { title: "Retries, breakers, balance", names: &["palisade.retry.", "palisade.breaker.", "palisade.balance."], by: CALLERS },
    Group { title: "Deadlines", names: &["palisade.request.timeouts", "palisade.deadline."], by: ALL },
    Group { title: "Load", names: &["palisade.requests.shed", "palisade.concurrency.", "palisade.queue."], by: ALL },
    Group {
        title: "Connections, streams, faults, panics",
        names: &["palisade.connections.", "palisade.streams.", "palisade.faults.", "palisade.panics"],
        by: ALL,
    },
    Group { title: "Discovery", names: &["palisade.discovery."], by: CALLERS },
    Group { title: "Registration", names: &["palisade.registration."], by: STORES },
    Group { title: "Tokens and certificates", names: &["palisade.auth.", "palisade.tls."], by: ALL },
    Group { title: "The cache", names: &["palisade.cache."], by: "gateway" },
    Group { title: "Stores", names: &["db.client."], by: STORES },
    Group {
        title: "Orders and their sagas",
        names: &["palisade.orders", "palisade.idempotency.", "palisade.saga.", "palisade.outbox."],
        by: "orders",
    },
    Group { title: "Stock", names: &["palisade.stock.", "palisade.invariant."], by: "products" },
    Group { title: "Process, runtime, telemetry", names: &["build.", "process_", "tokio", "otel.sdk.", "palisade.log."], by: ALL },
];

const TOP: &str = "\
# Metrics

Every process shows its metrics at `GET /metrics` of its admin port (gateway 9464, products 9465, orders 9466), as Prometheus text. Scrape each
every 5 s, under the job names `gateway`, `products`, `orders`; Prometheus adds `job` and `instance`. This page and the dashboards are written from
the catalogues in the code by `make dashboards`: change a metric there, not here.

**Names.** In code a metric has its OpenTelemetry name, `http.server.request.duration`. Prometheus sees underscores for dots, then the unit, then
`_total` for counters: `http_server_request_duration_seconds`. Labels likewise: `http.route` is `http_route`.

**Kinds.** A counter only grows: ask for `rate(…[1m])`. A gauge is what it is. A histogram is three families: `…_bucket` (by `le`), `…_count`,
`…_sum`. Count with `…_count`, take quantiles of `…_bucket`, and use `…_sum` only for time spent.

**Buckets.** Durations: 0.5, 1, 2.5, 5, 10, 25, 50, 75, 100, 250, 500, 750 ms, 1, 2.5, 5, 7.5, 10 s. Counts: 1 to 5. An objective on latency lies on
one of these. Prometheus 2 writes `le=\"1\"` and Prometheus 3 `le=\"1.0\"`: match whole numbers by `le=~\"1|1.0\"`.

**Errors.** `error_type` is there only if something failed: `error_type!=\"\"` are the failures. A domain's \"no\" (`NOT_FOUND`, 404) is an answer:
of HTTP requests answered only 5xx have an `error_type`, of HTTP calls made 4xx too; for gRPC every code but `OK` has.

**Exposed by** is what a service shows as it comes. One that reads an issuer's keys from an address (`auth.issuers.….jwks_url`) calls too: it has the
series of HTTP calls made, and of retries and breakers, with the issuer's name as `target`.

**Values of labels** are bounded by code: what a client sends never becomes a label.
";

/// The page.
pub(crate) fn text() -> anyhow::Result<String> {
    let mut page = TOP.to_owned();
    let mut left = catalogue();
    for group in &GROUPS {
        let (here, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|metric| group.has(metric));
        left = others;
        writeln!(page, "\n## {}\n\n| name | kind | unit | labels | exposed by | meaning |\n|---|---|---|---|---|---|", group.title)?;
        for metric in here {
            row(&mut page, metric, group)?;
        }
    }
    ensure!(left.is_empty(), "no group of the page has {:?}", left.iter().map(|metric| metric.name).collect::<Vec<_>>());
    Ok(page)
}

impl Group {
    fn has(&self, metric: &Metric) -> bool {
        self.names.iter().any(|beginning| metric.name.starts_with(beginning))
    }
}

fn row(page: &mut String, metric: &Metric, group: &Group) -> std::fmt::Result {
    let kind = match metric.kind {
        Kind::Counter => "counter",
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
        _ if CATALOG.contains(metric) => group.by,
        (true, true) => STORES,
        (true, false) => "orders",
        (false, true) => "products",
        (false, false) => "gateway",
    }
}
