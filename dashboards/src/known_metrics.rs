//! Every name that a query may use, with its labels: those of the catalogues, and a few that others expose.

use std::collections::{BTreeMap, BTreeSet};

use palisade_middleware::metrics::{CATALOG, Kind, Metric};

/// What Prometheus adds to every series that it scrapes.
pub const TARGET_LABELS: [&str; 2] = ["job", "instance"];

/// What a query may name.
#[derive(Debug, Clone)]
pub struct Names(BTreeMap<String, KnownMetric>);

/// What is known of one name.
#[derive(Debug, Clone)]
pub struct KnownMetric {
    /// Its labels, as Prometheus has them.
    pub labels: BTreeSet<String>,
    /// Whether it is of our processes: theirs, or what Prometheus says of scraping them. Such is asked for by job and instance.
    pub ours: bool,
}

/// Metrics of others: name and labels. Short on purpose: a dashboard of ours is about ours.
const EXTERNAL_METRICS: [(&str, &[&str]); 18] = [
    ("up", &TARGET_LABELS),
    ("scrape_duration_seconds", &TARGET_LABELS),
    ("scrape_samples_scraped", &TARGET_LABELS),
    ("scrape_samples_post_metric_relabeling", &TARGET_LABELS),
    ("scrape_series_added", &TARGET_LABELS),
    ("ALERTS", &["job", "instance", "alertname", "alertstate", "severity", "slo"]),
    ("k6_http_reqs_total", K6_LABELS),
    ("k6_http_req_duration_p95", K6_LABELS),
    ("k6_http_req_failed_rate", K6_LABELS),
    ("k6_checks_rate", &["check", "group", "scenario", "testid"]),
    ("k6_iterations_total", &["group", "scenario", "testid"]),
    ("k6_dropped_iterations_total", &["group", "scenario", "testid"]),
    ("k6_vus", &["testid"]),
    ("k6_vus_max", &["testid"]),
    ("traces_span_metrics_calls_total", SPAN_LABELS),
    ("traces_span_metrics_duration_milliseconds_bucket", SPAN_LABELS_OF_BUCKETS),
    ("traces_span_metrics_duration_milliseconds_sum", SPAN_LABELS),
    ("traces_span_metrics_duration_milliseconds_count", SPAN_LABELS),
];
const K6_LABELS: &[&str] = &["expected_response", "group", "method", "name", "scenario", "status", "testid", "url"];
const SPAN_LABELS: &[&str] = &["service_name", "span_name", "span_kind", "status_code"];
const SPAN_LABELS_OF_BUCKETS: &[&str] = &["service_name", "span_name", "span_kind", "status_code", "le"];

/// Those of [`FOREIGN`] that Prometheus has for each of our processes, by job and instance.
const OF_THE_SCRAPE: [&str; 2] = ["up", "scrape_"];

/// What the recording rules make that dashboards use, by `slo`.
const RECORDED: [&str; 3] = ["slo:objective:ratio", "slo:errors:ratio_rate1h", "slo:errors:ratio_rate30d"];

/// Every metric of the middleware and of the services, once.
pub fn catalogue() -> Vec<&'static Metric> {
    let mut all: Vec<&Metric> = Vec::new();
    let services = [palisade_gateway::metrics::METRICS, palisade_orders::metrics::METRICS, palisade_products::metrics::METRICS];
    for metric in [CATALOG].into_iter().chain(services).flatten() {
        if !all.contains(&metric) {
            all.push(metric);
        }
    }
    all
}

/// A label as Prometheus has it.
pub fn exposed_label(label: &str) -> String {
    label.replace('.', "_")
}

/// Whether a metric that is not ours is of our processes.
pub(crate) fn is_of_target(name: &str) -> bool {
    OF_THE_SCRAPE.iter().any(|prefix| name.starts_with(prefix))
}

impl Default for Names {
    /// Everything a dashboard may use.
    fn default() -> Self {
        let mut names = Self::exposed();
        for name in RECORDED {
            names.add(name, ["slo".to_owned()]);
        }
        names
    }
}

impl Names {
    /// What processes expose, without what rules record.
    pub fn exposed() -> Self {
        let mut names = Self(BTreeMap::new());
        for (name, labels) in EXTERNAL_METRICS {
            names.insert(name, labels.iter().map(|label| (*label).to_owned()), is_of_target(name));
        }
        for metric in catalogue() {
            let labels = || metric.labels.iter().map(|label| exposed_label(label)).chain(TARGET_LABELS.map(str::to_owned));
            let name = metric.exposed();
            if matches!(metric.kind, Kind::Histogram | Kind::CountHistogram) {
                names.insert(&format!("{name}_bucket"), labels().chain(["le".to_owned()]), true);
                names.insert(&format!("{name}_sum"), labels(), true);
                names.insert(&format!("{name}_count"), labels(), true);
            } else {
                names.insert(&name, labels(), true);
            }
        }
        names
    }

    /// Adds what a rule records.
    pub fn add(&mut self, name: &str, labels: impl IntoIterator<Item = String>) {
        self.insert(name, labels, false);
    }

    /// What is known of `name`; `None` if nobody exposes it.
    pub fn get(&self, name: &str) -> Option<&KnownMetric> {
        self.0.get(name)
    }

    fn insert(&mut self, name: &str, labels: impl IntoIterator<Item = String>, ours: bool) {
        self.0.insert(name.to_owned(), KnownMetric { labels: labels.into_iter().collect(), ours });
    }
}
