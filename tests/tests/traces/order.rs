//! Trace of one order across three processes and their stores.

use std::collections::BTreeMap;

use palisade_tests::{
    Shop,
    otlp::{Collector, catalogue::Catalogue, span::Trace},
    servers,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{create_product, order_request},
    unique,
};
use serde_json::{Value, json};

use super::{CREATE, RESERVE, assert_catalogued, complete_with};

/// Asserts the resource attributes: one instance ID per process, name, version, environment.
fn assert_resources(trace: &Trace) {
    let mut instances = BTreeMap::new();
    for span in &trace.0 {
        let resource = |key: &str| span.resource.get(key).and_then(Value::as_str);
        assert_eq!((resource("service.name"), resource("service.namespace")), (Some(span.service.as_str()), Some("palisade")));
        assert!(resource("service.version").is_some_and(|version| version.starts_with(|first: char| first.is_ascii_digit())), "{span:?}");
        let instance = resource("service.instance.id").unwrap();
        assert_eq!(instances.entry(&span.service).or_insert(instance), &instance);
        if span.resource.contains_key("deployment.environment.name") {
            assert!(resource("deployment.environment.name").is_some_and(|name| !name.is_empty()), "{span:?}");
        }
    }
    assert_eq!(instances.len(), 3);
}

#[tokio::test]
async fn order_is_one_trace_across_three_processes() {
    let collector = Collector::start();
    let (postgres, mongo) = (servers::postgres(), servers::mongo());
    let shop = Shop::separate_with(Some(&mongo.url("products")), Some(&postgres.url("orders")), |_, command| collector.configure(command));
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 5).await;

    let placed = || order_request(&buyer, &[(&product, 2)]).header("idempotency-key", "once").header("user-agent", "a test".repeat(100));
    let answer = placed().await;
    let id = answer.ok(201)["id"].clone();
    let trace = collector.trace(answer.header("x-trace-id").unwrap(), complete_with(7)).await;
    assert_eq!(trace.tree(), Catalogue::read().example());
    assert_resources(&trace);

    let statuses: Vec<_> = trace.0.iter().filter(|span| span.status != "Unset").collect();
    assert!(statuses.is_empty(), "{statuses:#?}");
    let root = trace.root();
    let port = shop.url().rsplit(':').next().unwrap().parse::<i64>().unwrap();
    for (key, value) in [
        ("http.request.method", json!("POST")),
        ("http.route", json!("/orders")),
        ("http.response.status_code", json!(201)),
        ("url.path", json!("/orders")),
        ("url.scheme", json!("http")),
        ("server.address", json!("127.0.0.1")),
        ("server.port", json!(port)),
        ("client.address", json!("127.0.0.1")),
        ("network.protocol.version", json!("1.1")),
        ("user_agent.original", json!("a test".repeat(100)[..256])),
        ("app.request_id", json!(answer.header("x-request-id").unwrap())),
        ("app.deadline_ms", json!(10_000)),
        ("app.idempotency.outcome", json!("new")),
    ] {
        assert_eq!(root.attribute(key), value, "{key}");
    }
    let called = trace.single("CLIENT", CREATE);
    assert_eq!((called.attribute("rpc.status_code"), called.attribute("app.rpc.attempts")), (json!("OK"), json!(1)));
    assert!(called.attribute("server.port").is_i64());
    let answered = trace.single("SERVER", CREATE);
    assert_eq!(answered.attribute("server.port"), called.attribute("server.port"));
    assert_eq!(answered.attribute("network.peer.address"), json!("127.0.0.1"));
    let left = answered.attribute("app.deadline_ms").as_i64().unwrap();
    assert!((1..10_000).contains(&left), "deadline must shrink with each hop: {left}");
    let saga = trace.single("INTERNAL", "saga create_order");
    assert_eq!(
        [saga.attribute("app.saga.id"), saga.attribute("app.order.id"), saga.attribute("app.saga.outcome")],
        [id.clone(), id, json!("CONFIRMED")]
    );
    assert_eq!(trace.single("INTERNAL", "step reserve_stock").attribute("app.saga.attempt"), json!(1));
    assert_eq!(trace.single("SERVER", RESERVE).service, "products");

    // A replay makes no calls.
    let answer = placed().await;
    let trace = collector.trace(answer.header("x-trace-id").unwrap(), complete_with(3)).await;
    assert_eq!(trace.root().attribute("app.idempotency.outcome"), json!("replay"));
    assert!(trace.0.iter().all(|span| span.kind != "INTERNAL"), "{}", trace.tree());

    // A trace of the client continues under its ID, below a foreign span.
    let theirs = [unique("").trim_start_matches('-').to_owned(), "00f067aa0ba902b7".to_owned()];
    let brought = seller.get("/products").header("traceparent", format!("00-{}-{}-01", theirs[0], theirs[1])).await;
    assert_eq!(brought.header("x-trace-id"), Some(theirs[0].as_str()));
    let trace = collector.trace(&theirs[0], complete_with(3)).await;
    let ours = trace.0.iter().find(|span| span.service == "gateway" && span.kind == "SERVER").unwrap();
    assert_eq!(ours.parent, Some(theirs[1].clone()));
    assert_catalogued(&collector);
}
