//! k6's remote write series are those used by the load test dashboard.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

use std::{fs, net::SocketAddr, path::Path};

use palisade_load_tests::{TimeLimits, remote_write, run, settings, trust_scripts};
use palisade_tests::{Shop, eventually, servers::Prometheus};
use serde_json::Value;
use tokio::time::Instant;

/// Returns the k6 queries of the load test dashboard.
fn queries() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards/load.json");
    let mut found = Vec::new();
    collect(&serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap(), &mut found);
    found
}

fn collect(json: &Value, found: &mut Vec<String>) {
    match json {
        Value::Object(members) => {
            if let Some(query) = members.get("expr").and_then(Value::as_str).filter(|query| query.contains("k6_")) {
                found.push(query.replace("$__rate_interval", "10s").replace("$__range", "3m"));
            }
            members.values().for_each(|member| collect(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}

/// Returns the label of `… by (label) (…)`.
fn grouped_by(query: &str) -> Option<&str> {
    Some(query.split_once(" by (")?.1.split_once(')')?.0)
}

#[tokio::test]
async fn k6_queries_of_the_dashboard_have_results() {
    let shop = Shop::separate_with(None, None, |service, command| {
        trust_scripts(command);
        TimeLimits::Raised.configure(service, command);
    });
    let prometheus = Prometheus::start("scrape_configs: []");
    let address: SocketAddr = prometheus.url().trim_start_matches("http://").parse().unwrap();
    let url = eventually(async || remote_write::url_at(address)).await;
    let with = |more: &[(&str, &str)]| {
        let own = [(remote_write::URL, url.as_str()), ("K6_PROMETHEUS_RW_PUSH_INTERVAL", "1s"), ("JUDGE_LATENCY", "false")];
        let more = own.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        settings(&shop).into_iter().chain(more).collect::<Vec<_>>()
    };
    let started = Instant::now();
    let smoke = run("smoke", &with(&[("ITERATIONS", "60"), ("VUS", "5")]));
    let smoke_duration = started.elapsed().as_secs_f64();
    assert_eq!(smoke.code, Some(0), "{}", smoke.last_lines());
    // Four users cannot start that many iterations, so some are dropped, which no successful run
    // shows. The outcome is irrelevant.
    let load = run("load", &with(&[("RATE", "2000"), ("DURATION", "3s"), ("VUS", "1"), ("PRODUCTS", "5")]));

    let queries = queries();
    assert!(queries.len() >= 10, "{queries:?}");
    for query in queries {
        // The series ended with the runs: query their history.
        let lines = prometheus.query(&format!("max_over_time(({query})[3m:1s])")).await;
        assert!(!lines.is_empty(), "{query} has no result\n{}", load.last_lines());
        if let Some(label) = grouped_by(&query) {
            // Series of setup and teardown have no scenario.
            assert!(lines.iter().any(|line| !line.label(label).is_empty()), "{query}: {lines:?}");
        }
    }
    // Series have the test ID and are in seconds.
    let latest = prometheus.query(r#"max(max_over_time(k6_http_req_duration_p95{testid="smoke"}[3m]))"#).await;
    assert!(latest[0].value > 0.000_1 && latest[0].value < smoke_duration, "{latest:?}");
}

#[tokio::test]
async fn remote_write_requires_a_receiver() {
    let shop = Shop::shared();
    let gateway: SocketAddr = shop.url().trim_start_matches("http://").parse().unwrap();
    assert_eq!(remote_write::url_at(gateway), None);
    let free: SocketAddr = ([127, 0, 0, 1], palisade_tests::servers::free_port()).into();
    assert_eq!(remote_write::url_at(free), None);
}
