//! Feed, traces and switches over HTTP.

use std::collections::BTreeSet;

use palisade_tests::{
    Client, Shop, eventually,
    otlp::Collector,
    shop::ALL_SCOPES,
    shop_helpers::{accepted_id, create_product, order_request},
    sse::EventStream,
};
use serde_json::{Value, json};

/// Returns the next event `name` of the feed.
async fn next(feed: &mut EventStream, name: &str) -> Value {
    loop {
        let block = feed.next_block().await.unwrap();
        if block.starts_with(&format!("event: {name}\n")) {
            return serde_json::from_str(block.split_once("data: ").unwrap().1).unwrap();
        }
    }
}

async fn open(console: &Client) -> EventStream {
    let response = console.get("/console/events").send().await.unwrap();
    assert_eq!(response.status(), 200);
    EventStream::reading(response)
}

/// Returns the names of the spans below `parent` as a tree of text.
fn names<'a>(spans: &'a [Value], parent: &Value) -> Vec<&'a str> {
    let children = spans.iter().filter(|span| span["parentId"] == *parent);
    children.flat_map(|span| [vec![span["name"].as_str().unwrap()], names(spans, &span["spanId"])].concat()).collect()
}

#[tokio::test]
async fn order_appears_with_its_trace_at_any_ratio() {
    let collector = Collector::start();
    let mut shop = Shop::all_in_one_with(|command| {
        collector.configure(command);
        command.env("PALISADE_TELEMETRY__SAMPLE_RATIO", "0");
    });
    let console = Client::new(shop.admin_url("gateway"), None);
    let buyer = shop.client("buyer", ALL_SCOPES);
    let product = create_product(&buyer, 5).await;
    // The caller wants the trace to be exported.
    let id = uuid::Uuid::new_v4().simple().to_string();
    let order = order_request(&buyer, &[(&product, 1)]).header("traceparent", format!("00-{id}-00f067aa0ba902b7-01"));
    let order = order.await;
    accepted_id(&order);
    let status = order.status.as_str().to_owned();

    let mut feed = open(&console).await;
    let listed = loop {
        let traces = next(&mut feed, "traces").await;
        let found = traces.as_array().unwrap().iter().find(|trace| trace["traceId"] == id);
        if let Some(trace) = found {
            break trace.clone();
        }
    };
    assert_eq!((&listed["name"], &listed["status"], &listed["service"]), (&json!("POST /orders"), &json!(status), &json!("gateway")));

    let trace = console.get(format!("/console/traces/{id}")).attempt().await.unwrap().ok(200);
    let spans = trace["spans"].as_array().unwrap();
    let services: BTreeSet<_> = spans.iter().filter_map(|span| span["service"].as_str()).collect();
    assert_eq!(services, ["gateway", "orders", "products"].into());
    let root = spans.iter().find(|span| span["name"] == "POST /orders").unwrap();
    let names = [vec!["POST /orders"], names(spans, &root["spanId"])].concat();
    let chain = ["POST /orders", "palisade.orders.v1.OrdersService/CreateOrder", "saga create_order", "step reserve_stock"];
    assert!(chain.iter().all(|name| names.contains(name)), "{names:?}");
    assert_eq!(names.len(), spans.len(), "every span has its parent: {trace}");
    assert_eq!(console.get("/console/traces/00000000000000000000000000000001").attempt().await.unwrap().status, 404);

    let program = shop.program_mut("palisade");
    program.terminate();
    assert_eq!(program.exit_code(), Some(0), "{}", program.last_lines());
    assert_eq!(collector.spans().len(), 0, "the ratio is 0");
}

#[tokio::test]
async fn snapshot_has_every_metric_of_the_page() {
    let shop = Shop::shared();
    let buyer = shop.client("reader", ALL_SCOPES);
    let product = create_product(&buyer, 5).await;
    order_request(&buyer, &[(&product, 1)]).await;
    let mut feed = open(&Client::new(shop.admin_url("gateway"), None)).await;
    let snapshot = next(&mut feed, "snapshot").await;
    let services = snapshot["services"].as_array().unwrap();
    let all =
        |member: &str| services.iter().flat_map(|service| service[member].as_array().cloned().unwrap_or_default()).collect::<Vec<_>>();
    let text = |value: &Value, member: &str| value[member].as_str().unwrap().to_owned();

    let hops: BTreeSet<_> = all("hops").iter().map(|hop| text(hop, "from") + " " + &text(hop, "to")).collect();
    let expected = ["clients gateway", "gateway orders", "gateway products", "orders products", "orders sqlite", "products sqlite"];
    assert_eq!(hops, expected.map(str::to_owned).into());
    let shown: BTreeSet<_> = all("series").iter().map(|series| text(series, "name")).collect();
    let page = include_str!("../../../services/palisade/src/console/snapshot.rs");
    let listed = page.split('"').filter(|name| name.starts_with("palisade_") && !name.contains(['{', ' ']));
    let missing: Vec<_> = listed.filter(|name| !shown.contains(*name)).collect();
    assert!(missing.is_empty(), "no service exports {missing:?}");
    let breakers: BTreeSet<_> = all("breakers").iter().map(|breaker| text(breaker, "target")).collect();
    assert_eq!(breakers, ["orders", "products"].map(str::to_owned).into());
}

#[tokio::test]
async fn fault_of_a_service_is_set_on_the_gateway() {
    let shop = Shop::all_in_one();
    let console = Client::new(shop.admin_url("gateway"), None);
    let reader = shop.client("reader", ALL_SCOPES);
    let product = create_product(&reader, 1).await;
    let fault = json!({ "rules": [{ "name": "test", "method": "*", "rate": 1.0, "kind": { "error": "internal" } }] });
    let path = "/console/services/products/faults";

    let foreign = console.put(path, &fault).header("origin", "http://evil.example").attempt().await.unwrap();
    foreign.problem(421, "misdirected_request");
    console.put(path, &fault).attempt().await.unwrap().ok(200);
    let failed = reader.get(format!("/products/{product}")).attempt().await.unwrap();
    assert_eq!(failed.status, 500);
    let id = failed.header("x-trace-id").unwrap();
    let trace = eventually(async || {
        let trace = console.get(format!("/console/traces/{id}")).attempt().await.ok().filter(|answer| answer.status == 200)?.json();
        (!trace["records"].as_array()?.is_empty()).then_some(trace)
    });
    let trace = trace.await;
    assert!(trace["spans"].as_array().unwrap().iter().any(|span| span["error"] == true && span["service"] == "products"), "{trace}");

    let rules = console.get(path).attempt().await.unwrap().ok(200);
    assert_eq!(rules["rules"][0]["name"], "test");
    assert_eq!(console.delete(path).attempt().await.unwrap().status, 204);
    reader.get(format!("/products/{product}")).await.ok(200);
    assert_eq!(console.put("/console/services/store/faults", &fault).attempt().await.unwrap().status, 404);
    assert_eq!(console.get("/console/services/orders/invariants").attempt().await.unwrap().status, 404, "only the switches");
}

#[tokio::test]
async fn console_is_bounded_and_can_be_disabled() {
    let shop = Shop::all_in_one();
    let console = Client::new(shop.admin_url("gateway"), None);
    let mut open_feeds = Vec::new();
    for _ in 0..8 {
        open_feeds.push(open(&console).await);
    }
    console.get("/console/events").attempt().await.unwrap().problem(503, "overloaded");
    drop(open_feeds);
    eventually(async || console.get("/console/events").send().await.ok().filter(|answer| answer.status() == 200)).await;

    let disabled = Shop::all_in_one_with(|command| {
        command.env("PALISADE_CONSOLE", "false");
    });
    let admin = Client::new(disabled.admin_url("gateway"), None);
    for path in ["/console", "/console/events", "/faults"] {
        assert_eq!(admin.get(path).attempt().await.unwrap().status, 404, "{path}");
    }
    assert!(!disabled.program("palisade").log().contains("/console"));
}
