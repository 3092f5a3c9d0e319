//! How many replicas there may be fits what they share, and the autoscalers look at what the services show.

use palisade_tests::{
    Client, Shop,
    files::yaml,
    shop::{ALL_SCOPES, SERVICES},
};
use serde_json::Value;

use crate::{
    settings::environment,
    tree::{Object, deploy, object},
};

fn autoscaler(service: &str) -> Object {
    let autoscaler = object("HorizontalPodAutoscaler", service);
    assert_eq!(autoscaler.spec()["scaleTargetRef"]["name"], service);
    autoscaler
}

/// The metric of its pods that an autoscaler looks at.
fn in_flight(service: &str) -> String {
    let metrics = autoscaler(service).spec()["metrics"].as_array().unwrap().clone();
    let pods = metrics.iter().find(|metric| metric["type"] == "Pods").unwrap();
    assert!(metrics.iter().any(|metric| metric["resource"]["name"] == "cpu"), "{service}");
    pods["pods"]["metric"]["name"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn autoscalers_look_at_metrics_that_the_services_have_and_the_adapter_hands_on() {
    let shop = Shop::shared();
    shop.ready().await;
    let client = Client::new(shop.url(), Some(shop.token("deploy", ALL_SCOPES)));
    for path in ["/products", "/orders"] {
        assert_eq!(client.get(path).attempt().await.unwrap().status, 200);
    }
    let adapter = yaml(&deploy().join("monitoring/prometheus-adapter.yaml"));
    let query = adapter["rules"]["custom"][0]["seriesQuery"].as_str().unwrap();
    let names = query.split_once("^(").and_then(|(_, rest)| rest.split_once(")$")).unwrap().0;
    for service in SERVICES {
        let metric = in_flight(service);
        assert!(names.split('|').any(|name| name == metric), "{service}: the adapter does not know {metric}");
        let exposed = Client::new(shop.admin_url(service), None).get("/metrics").attempt().await.unwrap().text();
        assert!(exposed.contains(&format!("\n# TYPE {metric} gauge\n")), "{service}: {metric}");
    }
}

#[test]
fn all_replicas_together_leave_postgresql_connections_for_others() {
    let orders = object("Deployment", "orders");
    let replicas = autoscaler("orders").spec()["maxReplicas"].as_u64().unwrap();
    let surge = orders.spec()["strategy"]["rollingUpdate"]["maxSurge"].as_u64().unwrap();
    let each = environment("orders")["PALISADE_STORE__MAX_CONNECTIONS"].parse::<u64>().unwrap();
    // 100 by default, of which 3 are kept for superusers; a migration takes one, and so does who looks.
    assert!(each * (replicas + surge) + 2 <= 97, "{each} for each of {replicas} + {surge}");
}

#[test]
fn one_pod_may_always_be_moved_and_never_the_last() {
    for service in SERVICES {
        let budget = object("PodDisruptionBudget", service);
        assert_eq!(budget.spec()["maxUnavailable"], 1, "{service}");
        assert_eq!(budget.spec()["selector"], object("Deployment", service).spec()["selector"], "{service}");
        assert!(autoscaler(service).spec()["minReplicas"].as_u64().unwrap() >= 2, "{service}");
        // A number there would undo what the autoscaler chose, with every roll-out.
        assert!(object("Deployment", service).spec().get("replicas").is_none(), "{service}");
    }
}

#[test]
fn a_service_grows_before_it_refuses() {
    for service in SERVICES {
        let metrics = autoscaler(service).spec()["metrics"].clone();
        let pods = metrics.as_array().unwrap().iter().find(|metric| metric["type"] == "Pods").unwrap();
        let target: u64 = number(&pods["pods"]["target"]["averageValue"]);
        // `max_in_flight` of a client towards one upstream.
        assert!(target <= 128 / 2, "{service}: {target}");
    }
}

fn number(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}
