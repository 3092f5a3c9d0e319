//! Dashboards, alert rules and metrics reference against a real Prometheus.
//!
//! The services run with successful, rejected, slow and failing requests. Every query must return
//! series, and the exposed metrics must match `docs/metrics.md`.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

mod live {
    pub(crate) mod page;
    pub(crate) mod traffic;
}

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use live::{page, traffic};
use palisade_dashboards::{
    promql_check::selectors,
    resolved_queries::{Windows, queries, substitute_variables},
};
use palisade_tests::{
    HANG_TIMEOUT, Shop, eventually,
    otlp::Collector,
    rules,
    servers::{self, Prometheus, Redis},
};
use tokio::time::{Instant, interval};

/// Dashboards tell services apart by the admin port of the scrape.
#[tokio::test]
async fn all_in_one_services_export_their_own_metrics() {
    let collector = Collector::start();
    let shop = Shop::all_in_one_with(|command| collector.configure(command));
    page::assert_preregistered(&shop).await;
    traffic::successful_traffic(&shop).await;
    page::assert_documented(&shop).await;
}

/// Returns whether a metric cannot appear in this set-up.
fn is_absent_in_this_setup(metric: &str) -> bool {
    // Here keys and revocations are static files, hops have no TLS, endpoints are static lists, and
    // nothing probes the gateway.
    let not_configured = [
        "http_client_request_duration_seconds",
        "palisade_http_client_attempt_duration_seconds",
        "palisade_jwks_refreshes_total",
        "palisade_revocation_list_reloads_total",
        "palisade_discovery_last_success_age_seconds",
        "palisade_tls_certificate_expiry_seconds",
        "palisade_tls_reloads_total",
        "palisade_registration_up",
        "probe_success",
    ];
    // Series of firing alerts, metrics of k6 and of Jaeger's span metrics connector.
    let is_external = metric == "ALERTS" || metric.starts_with("k6_") || metric.starts_with("traces_span_metrics_");
    not_configured.contains(&metric) || is_external
}

/// Copies the rules without their own intervals, so that each group is evaluated every second. A
/// one-minute group may be evaluated before the series exist.
fn rules_without_intervals() -> Vec<PathBuf> {
    let copy = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("interval: ")).collect();
        let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(path.file_name().unwrap());
        fs::write(&copy, lines.join("\n")).unwrap();
        copy
    };
    rules::files().into_iter().map(copy).collect()
}

/// Query that must have a result, with its description.
type RequiredQuery = (String, String);

/// Waits until all queries have a result. Returns the descriptions of those without one after
/// [`HANG_TIMEOUT`].
async fn without_result(prometheus: &Prometheus, mut queries: Vec<RequiredQuery>) -> Vec<String> {
    let deadline = Instant::now() + HANG_TIMEOUT;
    // Results depend on scrapes and evaluations at intervals of one second.
    let mut ticks = interval(Duration::from_millis(500));
    while !queries.is_empty() && Instant::now() < deadline {
        ticks.tick().await;
        let mut remaining = Vec::new();
        for query in queries {
            if prometheus.query(&query.1).await.is_empty() {
                remaining.push(query);
            }
        }
        queries = remaining;
    }
    queries.into_iter().map(|(description, promql)| format!("{description}: {promql}")).collect()
}

/// Rate window and range of the panels.
const WINDOWS: Windows = Windows { rate: "30s", range: "1m" };

/// Returns the queries of panels that have a result without a special condition. The others must at
/// least be valid.
async fn panel_queries(prometheus: &Prometheus) -> Vec<RequiredQuery> {
    let mut required = Vec::new();
    for query in queries(WINDOWS) {
        if query.absence_reason.is_none() {
            required.push((format!("{} / {}", query.dashboard, query.panel), query.promql));
        } else {
            prometheus.query(&query.promql).await;
        }
    }
    required
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn panel_queries_survive_dead_replicas() {
    let (postgres, mongo) = (servers::postgres(), servers::mongo());
    let (collector, redis) = (Collector::start(), Redis::start());
    let mut shop = Shop::replicated(&mongo.url("products"), &postgres.url("orders"), |service, command| {
        collector.configure(command);
        traffic::with_faults(command);
        if service == "gateway" {
            traffic::with_cache(command, &redis.url());
        }
    });
    let prometheus = Prometheus::scraping(&shop, &rules_without_intervals());
    prometheus.ready().await;
    traffic::mixed_traffic(&shop).await;
    eventually(async || (!prometheus.query("slo:errors:ratio_rate30d").await.is_empty()).then_some(())).await;
    let panels = panel_queries(&prometheus).await;
    assert_eq!(without_result(&prometheus, panels.clone()).await, Vec::<String>::new(), "all replicas");

    for service in ["gateway", "products", "orders"] {
        shop.replicas_mut(service).last_mut().unwrap().kill();
    }
    // Until the samples of the dead are out of every rate window.
    let silent = format!("count(up == 0 unless count_over_time(process_start_time_seconds[{}])) == 3", WINDOWS.rate);
    eventually(async || (!prometheus.query(&silent).await.is_empty()).then_some(())).await;
    traffic::mixed_traffic(&shop).await;
    assert_eq!(without_result(&prometheus, panels).await, Vec::<String>::new(), "one replica of each service is dead");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dashboard_and_rule_queries_have_results() {
    let (postgres, mongo) = (servers::postgres(), servers::mongo());
    let (collector, redis) = (Collector::start(), Redis::start());
    let shop = Shop::separate_with(Some(&mongo.url("products")), Some(&postgres.url("orders")), |service, command| {
        collector.configure(command);
        traffic::with_faults(command);
        if service == "gateway" {
            traffic::with_cache(command, &redis.url());
        }
    });
    page::assert_preregistered(&shop).await;
    let prometheus = Prometheus::scraping(&shop, &rules_without_intervals());
    prometheus.ready().await;
    traffic::mixed_traffic(&shop).await;
    page::assert_documented(&shop).await;

    // The SLO series are recorded last.
    eventually(async || (!prometheus.query("slo:errors:ratio_rate30d").await.is_empty()).then_some(())).await;
    let mut required = panel_queries(&prometheus).await;
    for rule in rules::all() {
        let expr = substitute_variables(&rule.expr, WINDOWS);
        prometheus.query(&expr).await;
        required.extend(rule.record.map(|record| ("recording rule".to_owned(), record)));
        // An alert has no result on a healthy system, but its selectors must have one. Only the
        // services are scraped here.
        let is_required = rule.alert.as_ref().is_some_and(|alert| alert != "MonitoringDown");
        for selector in selectors(&expr).into_iter().filter(|_| is_required) {
            if !is_absent_in_this_setup(&selector.name) {
                required.push((format!("selector of {:?}", rule.alert), selector.text));
            }
        }
    }
    assert_eq!(without_result(&prometheus, required).await, Vec::<String>::new());
    let misspelt = "sum(rate(http_server_request_duration_second_count[30s]))";
    assert!(prometheus.query(misspelt).await.is_empty(), "an unknown metric must have no result");
}
