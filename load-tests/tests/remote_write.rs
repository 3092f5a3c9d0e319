//! What k6 sends to a Prometheus are the series that the load dashboard asks for.
#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

use std::{fs, net::SocketAddr, path::Path};

use palisade_load_tests::{remote_write, run, settings, trust_scripts};
use palisade_tests::{Shop, eventually, servers::Prometheus};
use serde_json::Value;

/// Every query of the load dashboard about k6.
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
                found.push(query.replace("$__rate_interval", "10s"));
            }
            members.values().for_each(|member| collect(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}

/// The label of `… by (label) (…)`.
fn grouped_by(query: &str) -> Option<&str> {
    Some(query.split_once(" by (")?.1.split_once(')')?.0)
}

#[tokio::test]
async fn every_query_about_k6_has_an_answer() {
    let shop = Shop::separate_with(None, None, |_, command| trust_scripts(command));
    shop.ready().await;
    let prometheus = Prometheus::start("scrape_configs: []");
    let address: SocketAddr = prometheus.url().trim_start_matches("http://").parse().unwrap();
    let url = eventually(async || remote_write::at(address)).await;
    let with = |more: &[(&str, &str)]| {
        let own = [(remote_write::URL, url.as_str()), ("K6_PROMETHEUS_RW_PUSH_INTERVAL", "1s")];
        let more = own.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        settings(&shop).into_iter().chain(more).collect::<Vec<_>>()
    };
    let smoke = run("smoke", &with(&[("ITERATIONS", "60"), ("VUS", "5")]));
    assert_eq!(smoke.code, Some(0), "{}", smoke.output);
    // Four users cannot begin so much: iterations are dropped, which no green run shows. How it ends is not the question.
    let load = run("load", &with(&[("RATE", "2000"), ("DURATION", "3s"), ("VUS", "1"), ("PRODUCTS", "5")]));

    let queries = queries();
    assert!(queries.len() >= 10, "{queries:?}");
    for query in queries {
        // The runs are over, and their series with them: as they were meanwhile.
        let lines = prometheus.query(&format!("max_over_time(({query})[3m:1s])")).await;
        assert!(!lines.is_empty(), "{query} has no answer\n{}", load.output);
        if let Some(label) = grouped_by(&query) {
            // Those of setup and teardown belong to no scenario.
            assert!(lines.iter().any(|line| !line.label(label).is_empty()), "{query}: {lines:?}");
        }
    }
    // Under the test's id, and in seconds.
    let latest = prometheus.query(r#"max(max_over_time(k6_http_req_duration_p95{testid="smoke"}[3m]))"#).await;
    assert!(latest[0].value > 0.000_1 && latest[0].value < 10.0, "{latest:?}");
}

#[tokio::test]
async fn nothing_is_sent_to_who_does_not_take_it() {
    let shop = Shop::shared();
    shop.ready().await;
    let gateway: SocketAddr = shop.url().trim_start_matches("http://").parse().unwrap();
    assert_eq!(remote_write::at(gateway), None);
    let free: SocketAddr = ([127, 0, 0, 1], palisade_tests::servers::free_port()).into();
    assert_eq!(remote_write::at(free), None);
}
