//! Known metrics and their labels: the catalogs and a few external metrics.

use std::collections::{BTreeMap, BTreeSet};

use palisade_middleware::metrics::{CATALOG, Kind, Metric};

/// Labels that Prometheus adds to every scraped series.
pub const TARGET_LABELS: [&str; 2] = ["job", "instance"];

/// Metrics that a query may use, by name.
#[derive(Debug, Clone)]
pub struct Names(BTreeMap<String, KnownMetric>);

/// Labels and origin of a metric.
#[derive(Debug, Clone)]
pub struct KnownMetric {
    /// Labels in Prometheus form.
    pub labels: BTreeSet<String>,
    /// Belongs to a Palisade process: its own metric, or a scrape metric about it. Must be filtered
    /// by job and instance.
    pub is_palisade: bool,
}

/// External metrics: name and labels. Kept short because the dashboards are about Palisade's own
/// metrics.
const EXTERNAL_METRICS: [(&str, &[&str]); 51] = [
    ("up", &TARGET_LABELS),
    ("probe_success", &TARGET_LABELS),
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
    ("pg_up", &TARGET_LABELS),
    ("pg_stat_activity_count", &["job", "instance", "datname", "state"]),
    ("pg_stat_database_xact_commit", POSTGRES_LABELS),
    ("pg_stat_database_xact_rollback", POSTGRES_LABELS),
    ("pg_stat_database_blks_hit", POSTGRES_LABELS),
    ("pg_stat_database_blks_read", POSTGRES_LABELS),
    ("pg_stat_database_deadlocks", POSTGRES_LABELS),
    ("pg_database_size_bytes", POSTGRES_LABELS),
    ("mongodb_up", &TARGET_LABELS),
    ("mongodb_ss_opcounters", &["job", "instance", "legacy_op_type"]),
    ("mongodb_ss_connections", &["job", "instance", "conn_type"]),
    ("mongodb_ss_wt_cache_bytes_currently_in_the_cache", &TARGET_LABELS),
    ("mongodb_ss_wt_cache_maximum_bytes_configured", &TARGET_LABELS),
    ("mongodb_ss_mem_resident", &TARGET_LABELS),
    ("mongodb_dbstats_dataSize", &["job", "instance", "database"]),
    ("gnatsd_varz_in_msgs", &TARGET_LABELS),
    ("gnatsd_varz_out_msgs", &TARGET_LABELS),
    ("gnatsd_varz_connections", &TARGET_LABELS),
    ("gnatsd_varz_slow_consumers", &TARGET_LABELS),
    ("gnatsd_varz_mem", &TARGET_LABELS),
    ("jetstream_server_total_streams", &TARGET_LABELS),
    ("jetstream_stream_total_messages", &["job", "instance", "stream_name"]),
    ("jetstream_stream_total_bytes", &["job", "instance", "stream_name"]),
    ("node_cpu_seconds_total", &["job", "instance", "cpu", "mode"]),
    ("node_memory_MemAvailable_bytes", &TARGET_LABELS),
    ("node_memory_MemTotal_bytes", &TARGET_LABELS),
    ("node_pressure_cpu_waiting_seconds_total", &TARGET_LABELS),
    ("node_disk_io_time_seconds_total", DISK_LABELS),
    ("node_disk_read_bytes_total", DISK_LABELS),
    ("node_disk_written_bytes_total", DISK_LABELS),
    ("node_filesystem_avail_bytes", FILESYSTEM_LABELS),
    ("node_filesystem_size_bytes", FILESYSTEM_LABELS),
    ("traces_span_metrics_calls_total", SPAN_LABELS),
    ("traces_span_metrics_duration_milliseconds_bucket", SPAN_LABELS_OF_BUCKETS),
    ("traces_span_metrics_duration_milliseconds_sum", SPAN_LABELS),
    ("traces_span_metrics_duration_milliseconds_count", SPAN_LABELS),
];
const POSTGRES_LABELS: &[&str] = &["job", "instance", "datname"];
const DISK_LABELS: &[&str] = &["job", "instance", "device"];
const FILESYSTEM_LABELS: &[&str] = &["job", "instance", "device", "fstype", "mountpoint"];
const K6_LABELS: &[&str] = &["expected_response", "group", "method", "name", "scenario", "status", "testid", "url"];
const SPAN_LABELS: &[&str] = &["service_name", "span_name", "span_kind", "status_code"];
const SPAN_LABELS_OF_BUCKETS: &[&str] = &["service_name", "span_name", "span_kind", "status_code", "le"];

/// Prefixes of the [`EXTERNAL_METRICS`] that Prometheus records per scraped process, with job and
/// instance.
const SCRAPE_PREFIXES: [&str; 2] = ["up", "scrape_"];

/// Series of the recording rules that dashboards use, with the label `slo`.
const RECORDED_SERIES: [&str; 8] = [
    "slo:objective:ratio",
    "slo:requests:rate5m",
    "slo:bad_requests:rate5m",
    "slo:errors:ratio_rate1h",
    "slo:errors:ratio_rate6h",
    "slo:errors:ratio_rate3d",
    "slo:errors:ratio_rate30d",
    "slo:error_budget:remaining_ratio",
];

/// Returns every metric of the middleware and the services, without duplicates.
pub fn catalog() -> Vec<&'static Metric> {
    let mut all: Vec<&Metric> = Vec::new();
    let services = [palisade_gateway::metrics::METRICS, palisade_orders::metrics::METRICS, palisade_products::metrics::METRICS];
    for metric in [CATALOG].into_iter().chain(services).flatten() {
        if !all.contains(&metric) {
            all.push(metric);
        }
    }
    all
}

/// Converts a label to its Prometheus form.
pub fn exposed_label(label: &str) -> String {
    label.replace('.', "_")
}

/// Returns whether an external metric describes a Palisade process.
pub(crate) fn is_target_metric(name: &str) -> bool {
    SCRAPE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

impl Default for Names {
    /// All metrics that a dashboard may use.
    fn default() -> Self {
        let mut names = Self::exposed();
        for name in RECORDED_SERIES {
            names.add_recorded(name, ["slo".to_owned()]);
        }
        names
    }
}

impl Names {
    /// Returns the metrics exposed by processes, without recording rules.
    pub fn exposed() -> Self {
        let mut names = Self(BTreeMap::new());
        for (name, labels) in EXTERNAL_METRICS {
            names.insert(name, labels.iter().map(|label| (*label).to_owned()), is_target_metric(name));
        }
        for metric in catalog() {
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

    /// Adds the series of a recording rule.
    pub fn add_recorded(&mut self, name: &str, labels: impl IntoIterator<Item = String>) {
        self.insert(name, labels, false);
    }

    /// Looks up a metric. `None` if it is unknown.
    pub fn get(&self, name: &str) -> Option<&KnownMetric> {
        self.0.get(name)
    }

    fn insert(&mut self, name: &str, labels: impl IntoIterator<Item = String>, is_palisade: bool) {
        self.0.insert(name.to_owned(), KnownMetric { labels: labels.into_iter().collect(), is_palisade });
    }
}
