//! Everything that a dashboard shows and a rule asks is answered by a real Prometheus that scrapes the real services at work: well, badly, slowly
//! and not at all. And they show what the page of metrics says, and nothing else.
#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

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
    resolved_queries::{Windows, substitute_variables, queries},
};
use palisade_tests::{
    Shop, eventually,
    otlp::Collector,
    rules,
    servers::{self, Prometheus, Redis},
};

/// Several scrapes and evaluations, which come every second.
const PATIENCE: Duration = Duration::from_secs(6);

/// Dashboards tell services apart by the admin port that was scraped.
#[tokio::test]
async fn in_one_process_too_each_service_shows_its_own_metrics() {
    let collector = Collector::start();
    let shop = Shop::all_in_one_with(|command| collector.observe(command));
    shop.ready().await;
    page::holds_from_the_start(&shop).await;
    traffic::that_goes_well(&shop).await;
    page::holds(&shop).await;
}

/// Metrics that only another set-up shows, and why.
fn elsewhere(metric: &str) -> bool {
    // Keys and revocations that are read from an address; here they are files read once. Hops without TLS. Addresses that no registry knows.
    let not_configured = [
        "http_client_request_duration_seconds",
        "palisade_http_client_attempt_duration_seconds",
        "palisade_auth_key_set_reads_total",
        "palisade_auth_revocations_reads_total",
        "palisade_discovery_age_seconds",
        "palisade_tls_certificate_expiry_seconds",
        "palisade_tls_reloads_total",
    ];
    // Others' own.
    let of_others = metric.starts_with("k6_") || metric.starts_with("traces_span_metrics_");
    not_configured.contains(&metric) || of_others
}

/// The rules without intervals of their own, so that each group is evaluated every second: a minute's may have missed what was there too late.
fn hurried_rules() -> Vec<PathBuf> {
    let copy = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let kept: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("interval: ")).collect();
        let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(path.file_name().unwrap());
        fs::write(&copy, kept.join("\n")).unwrap();
        copy
    };
    rules::files().into_iter().map(copy).collect()
}

/// Whether `promql` finds anything, now or after the next evaluations.
async fn is_answered(prometheus: &Prometheus, promql: &str) -> bool {
    let answer = eventually(async || (!prometheus.query(promql).await.is_empty()).then_some(()));
    tokio::time::timeout(PATIENCE, answer).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_dashboards_and_rules_ask_is_answered() {
    let (postgres, mongo) = (servers::postgres(), servers::mongo());
    let (collector, redis) = (Collector::start(), Redis::start());
    let shop = Shop::separate_with(Some(&mongo.url("products")), Some(&postgres.url("orders")), |service, command| {
        collector.observe(command);
        traffic::with_faults(command);
        if service == "gateway" {
            traffic::with_cache(command, &redis.url());
        }
    });
    shop.ready().await;
    page::holds_from_the_start(&shop).await;
    let prometheus = Prometheus::watching(&shop, &hurried_rules());
    prometheus.ready().await;
    traffic::of_all_kinds(&shop).await;
    page::holds(&shop).await;

    let windows = Windows { rate: "30s", range: "1m" };
    // The last of what was recorded is there once the objectives are.
    eventually(async || (!prometheus.query("slo:errors:ratio_rate30d").await.is_empty()).then_some(())).await;
    let mut silent = Vec::new();
    for query in queries(windows) {
        let answered = if query.sparse.is_some() {
            prometheus.query(&query.promql).await;
            true
        } else {
            is_answered(&prometheus, &query.promql).await
        };
        if !answered {
            silent.push(format!("{} / {}: {}", query.dashboard, query.panel, query.promql));
        }
    }
    for rule in rules::all() {
        let expr = substitute_variables(&rule.expr, windows);
        prometheus.query(&expr).await;
        if let Some(record) = rule.record
            && !is_answered(&prometheus, &record).await
        {
            silent.push(format!("{record} is never recorded"));
        }
        // An alert is silent on a good day, but not because what it looks at is not there.
        for selector in selectors(&expr).into_iter().filter(|_| rule.alert.is_some()) {
            if !elsewhere(&selector.name) && !is_answered(&prometheus, &selector.text).await {
                silent.push(format!("{:?} looks at nothing: {}", rule.alert, selector.text));
            }
        }
    }
    assert_eq!(silent, Vec::<String>::new());
    let misspelt = "sum(rate(http_server_request_duration_second_count[30s]))";
    assert!(prometheus.query(misspelt).await.is_empty(), "a name that is not there is answered by nothing");
}
