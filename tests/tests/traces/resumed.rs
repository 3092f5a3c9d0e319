//! Orders that outlive the request, or the process, that they began in.

use palisade_tests::{
    otlp::{
        Collector,
        span::{Span, Trace},
    },
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{accepted, all, id_of, order, settled, create_product},
};
use serde_json::json;

use super::{RESERVE, catalogued, inject, injecting, shop, whole};

/// The trace in which a worker brought this order to its end.
async fn resumed(collector: &Collector, order: &str) -> Trace {
    let of_order = |span: &Span| {
        span.name == "saga create_order"
            && span.attribute("app.order.id") == json!(order)
            && span.attribute("app.saga.outcome") == json!("CONFIRMED")
    };
    let saga = collector.span(of_order).await;
    let trace = collector.trace(&saga.trace_id, whole(7)).await;
    assert_eq!(trace.root().id, saga.id, "it is a root of its own:\n{}", trace.tree());
    trace
}

#[tokio::test]
async fn a_resumed_saga_is_a_trace_of_its_own_linked_to_the_one_that_it_began_in() {
    let collector = Collector::start();
    let mut shop = shop(&collector, |service, command| {
        injecting(service, command);
        if service == "orders" {
            // Of its own accord it would record nothing.
            command.env("PALISADE_SAGA__LEASE_MS", "1000").env("PALISADE_TELEMETRY__SAMPLE_RATIO", "0");
        }
    })
    .await;
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 5).await;

    // Products is gone: accepted, and finished later.
    shop.program_mut("products").kill();
    let answer = order(&buyer, &[(&product, 1)]).await;
    let id = accepted(&answer);
    let begun = collector.trace(answer.header("x-trace-id").unwrap(), whole(6)).await;
    let saga = begun.one("INTERNAL", "saga create_order");
    assert_eq!((saga.attribute("app.saga.outcome"), saga.status, saga.links.len()), (json!("PUT_OFF"), "Unset", 0));
    let step = begun.one("INTERNAL", "step reserve_stock");
    assert_eq!((step.status, step.attribute("error.type")), ("Error", json!("unanswered")));
    shop.program_mut("products").restart();
    settled(&buyer, &id).await;
    let after = resumed(&collector, &id).await;
    let creator = begun.one("SERVER", super::CREATE);
    assert_eq!(after.root().links, [(creator.trace_id.clone(), creator.id.clone())]);
    let attempt = after.one("INTERNAL", "step reserve_stock").attribute("app.saga.attempt").as_i64().unwrap();
    assert!(attempt > 1, "{attempt}");

    // Orders is killed while products thinks about it.
    inject(&shop, Some((RESERVE, json!("hang")))).await;
    let killed = async {
        // The gateway's spans are all that is left of it.
        let at_work = async || all(&buyer, "/orders").await.iter().find(|order| order["status"] == "PENDING").map(id_of);
        let id = palisade_tests::eventually(at_work).await;
        shop.program_mut("orders").kill();
        id
    };
    let (answer, id) = futures_util::future::join(async { order(&buyer, &[(&product, 2)]).await }, killed).await;
    answer.any_problem(503);
    inject(&shop, None).await;
    shop.program_mut("orders").restart();
    shop.ready().await;
    settled(&buyer, &id).await;
    let after = resumed(&collector, &id).await;
    assert_eq!(after.root().links[0].0, answer.header("x-trace-id").unwrap());
    catalogued(&collector);
}
