//! Autoscaling: replica limits against shared resources, and autoscaler metrics that exist.

use palisade_tests::{
    Client, Shop,
    files::yaml,
    shop::{ALL_SCOPES, SERVICES},
};
use serde_json::Value;

use crate::{
    manifests::{Object, deploy, object},
    settings::environment,
};

fn autoscaler(service: &str) -> Object {
    let autoscaler = object("HorizontalPodAutoscaler", service);
    assert_eq!(autoscaler.spec()["scaleTargetRef"]["name"], service);
    autoscaler
}

/// Returns the pod metric of an autoscaler.
fn in_flight(service: &str) -> String {
    let metrics = autoscaler(service).spec()["metrics"].as_array().unwrap().clone();
    let pods = metrics.iter().find(|metric| metric["type"] == "Pods").unwrap();
    assert!(metrics.iter().any(|metric| metric["resource"]["name"] == "cpu"), "{service}");
    pods["pods"]["metric"]["name"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn autoscaler_metrics_are_exposed_and_adapted() {
    let shop = Shop::shared();
    let client = Client::new(shop.url(), Some(shop.token("deploy", ALL_SCOPES)));
    for path in ["/products", "/orders"] {
        assert_eq!(client.get(path).attempt().await.unwrap().status, 200);
    }
    let adapter = yaml(&deploy().join("monitoring/prometheus-adapter.yaml"));
    let query = adapter["rules"]["custom"][0]["seriesQuery"].as_str().unwrap();
    let names = query.split_once("^(").and_then(|(_, rest)| rest.split_once(")$")).unwrap().0;
    for service in SERVICES {
        let metric = in_flight(service);
        assert!(names.split('|').any(|name| name == metric), "{service}: the adapter does not export {metric}");
        let exposed = Client::new(shop.admin_url(service), None).get("/metrics").attempt().await.unwrap().text();
        assert!(exposed.contains(&format!("\n# TYPE {metric} gauge\n")), "{service}: {metric}");
    }
}

#[test]
fn max_replicas_fit_postgresql_connections() {
    let orders = object("Deployment", "orders");
    let replicas = autoscaler("orders").spec()["maxReplicas"].as_u64().unwrap();
    let surge = orders.spec()["strategy"]["rollingUpdate"]["maxSurge"].as_u64().unwrap();
    let each = environment("orders")["PALISADE_STORE__MAX_CONNECTIONS"].parse::<u64>().unwrap();
    // PostgreSQL's default of 100, minus 3 for superusers. A migration and an operator use one
    // connection each.
    assert!(each * (replicas + surge) + 2 <= 97, "{each} connections for each of {replicas} + {surge} replicas");
}

#[test]
fn disruption_budget_allows_one_pod_of_several() {
    for service in SERVICES {
        let budget = object("PodDisruptionBudget", service);
        assert_eq!(budget.spec()["maxUnavailable"], 1, "{service}");
        assert_eq!(budget.spec()["selector"], object("Deployment", service).spec()["selector"], "{service}");
        assert!(autoscaler(service).spec()["minReplicas"].as_u64().unwrap() >= 2, "{service}");
        // A replica count here would override the autoscaler with every rollout.
        assert!(object("Deployment", service).spec().get("replicas").is_none(), "{service}");
    }
}

#[test]
fn autoscaler_target_is_below_bulkhead() {
    for service in SERVICES {
        let metrics = autoscaler(service).spec()["metrics"].clone();
        let pods = metrics.as_array().unwrap().iter().find(|metric| metric["type"] == "Pods").unwrap();
        let target: u64 = number(&pods["pods"]["target"]["averageValue"]);
        // Half of a client's `max_in_flight` per upstream.
        assert!(target <= 128 / 2, "{service}: {target}");
    }
}

fn number(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}
