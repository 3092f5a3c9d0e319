//! Grafana provisioning: data sources, dashboards, and links between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use palisade_tests::{
    Client, Shop,
    files::{read, repository, yaml},
    shop::SERVICES,
};
use serde_json::Value;

use crate::stack::service;

fn sources() -> Vec<Value> {
    yaml(&repository().join("compose/grafana/datasources/palisade.yaml"))["datasources"].as_array().unwrap().clone()
}

/// Returns every `*.json` that Grafana loads, including subdirectories.
fn dashboards() -> Vec<Value> {
    let provider = &yaml(&repository().join("compose/grafana/dashboards/palisade.yaml"))["providers"][0];
    let folder = service("grafana").repository_path(provider["options"]["path"].as_str().unwrap());
    let mut found = Vec::new();
    collect(&folder, &mut found);
    found
}

fn collect(folder: &Path, found: &mut Vec<Value>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            found.push(serde_json::from_str(&read(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        }
    }
}

/// Collects the values of this member of all nested objects.
fn members<'value>(value: &'value Value, name: &str, found: &mut Vec<&'value Value>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get(name));
            object.values().for_each(|value| members(value, name, found));
        }
        Value::Array(list) => list.iter().for_each(|value| members(value, name, found)),
        _ => {}
    }
}

#[test]
fn data_source_uids_match_references() {
    let sources = sources();
    let uids: BTreeMap<_, _> = sources.iter().map(|source| (source["uid"].as_str().unwrap(), &source["type"])).collect();
    assert_eq!(uids.keys().copied().collect::<Vec<_>>(), ["alertmanager", "jaeger", "loki", "prometheus"]);
    for source in &sources {
        let url = source["url"].as_str().unwrap().strip_prefix("http://").unwrap();
        let (host, port) = url.split_once(':').unwrap();
        assert!(service(host).listens(port), "{url}");
        let mut links = Vec::new();
        members(source, "datasourceUid", &mut links);
        assert!(links.iter().all(|link| uids.contains_key(link.as_str().unwrap())), "{links:?}");
    }
    // Dashboards use a variable whose initial value is the default data source. Other references
    // must exist here or be built into Grafana.
    let defaults: Vec<_> = sources.iter().filter(|source| source["isDefault"] == true).map(|source| &source["type"]).collect();
    assert_eq!(defaults, ["prometheus"]);
    for dashboard in dashboards() {
        let mut named = Vec::new();
        members(&dashboard, "datasource", &mut named);
        for uid in named.iter().filter_map(|source| source["uid"].as_str()) {
            assert!(["${datasource}", "-- Grafana --"].contains(&uid) || uids.contains_key(uid), "{}: {uid}", dashboard["uid"]);
        }
    }
}

#[test]
fn data_source_step_equals_scrape_interval() {
    let prometheus = yaml(&repository().join("compose/prometheus/prometheus.yml"));
    let source = sources().into_iter().find(|source| source["uid"] == "prometheus").unwrap();
    assert_eq!(source["jsonData"]["timeInterval"], prometheus["global"]["scrape_interval"]);
}

#[test]
fn dashboards_are_unique_and_overview_is_home() {
    let dashboards = dashboards();
    for member in ["uid", "title"] {
        let distinct: BTreeSet<_> = dashboards.iter().map(|dashboard| dashboard[member].as_str().unwrap()).collect();
        assert_eq!(distinct.len(), dashboards.len(), "{distinct:?}");
    }
    let grafana = service("grafana");
    let home = read(&grafana.repository_path(&grafana.environment()["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]));
    assert_eq!(serde_json::from_str::<Value>(&home).unwrap()["uid"], "palisade-overview");
}

#[test]
fn jaeger_links_use_published_port() {
    let published = service("jaeger").ports();
    for dashboard in dashboards() {
        let variables = dashboard["templating"]["list"].as_array().cloned().unwrap_or_default();
        for variable in variables.iter().filter(|variable| variable["name"] == "jaeger") {
            let url = variable["query"].as_str().unwrap();
            let port = url.strip_prefix("http://localhost:").unwrap_or_else(|| panic!("{url}"));
            assert!(published.iter().any(|open| open.published.to_string() == port), "{url}");
        }
    }
}

#[tokio::test]
async fn span_links_use_exposed_metrics() {
    let shop = Shop::shared();
    let mut exposed = String::new();
    for name in SERVICES {
        exposed += &Client::new(shop.admin_url(name), None).get("/metrics").attempt().await.unwrap().text();
    }
    let jaeger = sources().into_iter().find(|source| source["uid"] == "jaeger").unwrap();
    let metrics = &jaeger["jsonData"]["tracesToMetrics"];
    let queries = metrics["queries"].as_array().unwrap();
    assert!(!queries.is_empty());
    let tags = metrics["tags"].as_array().unwrap().iter().map(|tag| tag["value"].as_str().unwrap().to_owned());
    let grouped = queries.iter().flat_map(|query| grouping(query["query"].as_str().unwrap()));
    // The `job` label is added by Prometheus.
    for label in tags.chain(grouped).filter(|label| label != "job") {
        assert!(exposed.contains(&format!("{label}=\"")), "{label}");
    }
    for query in queries.iter().map(|query| query["query"].as_str().unwrap()) {
        let (before, _) = query.split_once("{$$__tags}").unwrap_or_else(|| panic!("{query} does not use the span's tags"));
        let name = before.rsplit(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').next().unwrap();
        assert!(exposed.contains(&format!("\n{name}{{")), "{name}");
    }
}

/// Returns the labels of an expression's `by (…)`.
fn grouping(expression: &str) -> Vec<String> {
    let labels = expression.split_once("by (").and_then(|(_, rest)| rest.split_once(')')).map_or("", |(labels, _)| labels);
    labels.split(',').map(|label| label.trim().to_owned()).filter(|label| !label.is_empty()).collect()
}
