//! Traces of sagas that outlive their request or process.

use palisade_tests::{
    Client, eventually,
    otlp::{
        Collector,
        span::{Span, Trace},
    },
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{accepted_id, all_items, create_product, id_of, order_request, wait_until_settled},
};
use serde_json::json;

use super::{RESERVE, assert_catalogued, complete_with, inject, put_admin, shop, with_fault_injection};

/// Returns the trace in which a worker finished this order.
async fn resumed_trace(collector: &Collector, order: &str) -> Trace {
    let of_order = |span: &Span| {
        span.name == "saga create_order"
            && span.attribute("app.order.id") == json!(order)
            && span.attribute("app.saga.outcome") == json!("CONFIRMED")
    };
    let saga = collector.span(of_order).await;
    let trace = collector.trace(&saga.trace_id, complete_with(4)).await;
    assert_eq!(trace.root().id, saga.id, "a resumed saga must start a new trace:\n{}", trace.tree());
    trace
}

#[tokio::test]
async fn resumed_saga_is_linked_to_its_original_trace() {
    let collector = Collector::start();
    let mut shop = shop(&collector, |service, command| {
        with_fault_injection(service, command);
        if service == "orders" {
            // Records only traces sampled by their parent or link.
            command.env("PALISADE_SAGA__LEASE_MS", "1000").env("PALISADE_TELEMETRY__SAMPLE_RATIO", "0");
        }
    });
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 5).await;

    // Products is down: the order is accepted and finished later.
    shop.program_mut("products").kill();
    let answer = order_request(&buyer, &[(&product, 1)]).await;
    let id = accepted_id(&answer);
    let begun = collector.trace(answer.header("x-trace-id").unwrap(), complete_with(6)).await;
    let saga = begun.single("INTERNAL", "saga create_order");
    assert_eq!((saga.attribute("app.saga.outcome"), saga.status, saga.links.len()), (json!("PUT_OFF"), "Unset", 0));
    let step = begun.single("INTERNAL", "step reserve_stock");
    assert_eq!((step.status, step.attribute("error.type")), ("Error", json!("unanswered")));
    shop.program_mut("products").restart();
    wait_until_settled(&buyer, &id).await;
    let after = resumed_trace(&collector, &id).await;
    let creator = begun.single("SERVER", super::CREATE);
    assert_eq!(after.root().links, [(creator.trace_id.clone(), creator.id.clone())]);
    let attempt = after.single("INTERNAL", "step reserve_stock").attribute("app.saga.attempt").as_i64().unwrap();
    assert!(attempt > 1, "{attempt}");

    // Orders is killed while its call to products hangs.
    inject(&shop, Some((RESERVE, json!("hang")))).await;
    let killed = async {
        // Only the gateway's spans of this trace are exported.
        let at_work = async || all_items(&buyer, "/orders").await.iter().find(|order| order["status"] == "PENDING").map(id_of);
        let id = eventually(at_work).await;
        shop.program_mut("orders").kill();
        id
    };
    let (answer, id) = futures_util::future::join(async { order_request(&buyer, &[(&product, 2)]).await }, killed).await;
    answer.any_problem(503);
    inject(&shop, None).await;
    shop.program_mut("orders").restart();
    shop.ready().await;
    wait_until_settled(&buyer, &id).await;
    let after = resumed_trace(&collector, &id).await;
    assert_eq!(after.root().links[0].0, answer.header("x-trace-id").unwrap());
    assert_catalogued(&collector);
}

#[tokio::test]
async fn waiting_order_has_no_trace_until_a_call_is_made() {
    let collector = Collector::start();
    let shop = shop(&collector, |_, _| {});
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 5).await;
    put_admin(&shop, "orders", "/breakers/products", &json!({ "mode": "forced_open" })).await;
    let id = accepted_id(&order_request(&buyer, &[(&product, 1)]).await);
    let admin = Client::new(shop.admin_url("orders"), None);
    let attempts = async || {
        let metrics = admin.get("/metrics").attempt().await.ok()?.text();
        let steps = metrics.lines().filter(|line| line.starts_with("palisade_saga_step_duration_seconds_count{"));
        let attempts: f64 = steps.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        (attempts >= 3.0).then_some(())
    };
    eventually(attempts).await;
    put_admin(&shop, "orders", "/breakers/products", &json!({ "mode": "active" })).await;
    wait_until_settled(&buyer, &id).await;
    resumed_trace(&collector, &id).await;
    let is_of_order = |span: &&Span| span.name == "saga create_order" && span.attribute("app.order.id") == json!(id);
    let sagas: Vec<_> = collector.spans().iter().filter(is_of_order).map(|span| span.attribute("app.saga.outcome")).collect();
    assert_eq!(sagas, ["PUT_OFF", "CONFIRMED"], "the request and the attempt that made a call");
    assert_catalogued(&collector);
}
