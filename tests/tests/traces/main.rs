//! Exported traces of real processes: complete trees of successful and failed requests.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

mod collector_outage;
mod exemplars;
mod failures;
mod order;
mod retries;
mod saga_resume;
mod tail_sampling;

use std::process::Command;

use palisade_tests::{
    Client, Shop,
    otlp::{
        Collector,
        catalogue::Catalogue,
        span::{Span, Trace},
    },
};
use serde_json::{Value, json};

const CREATE: &str = "palisade.orders.v1.OrdersService/CreateOrder";
const FIND: &str = "palisade.products.v1.ProductsService/FindOne";
const RESERVE: &str = "palisade.products.v1.ProductsService/ReserveStock";

/// Starts three separate services with embedded stores that export all spans to `collector`.
fn shop(collector: &Collector, configure: impl Fn(&str, &mut Command)) -> Shop {
    Shop::separate_with(None, None, |service, command| {
        collector.configure(command);
        configure(service, command);
    })
}

/// Enables fault injection in products.
fn with_fault_injection(service: &str, command: &mut Command) {
    if service == "products" {
        command.env("PALISADE_SERVER__FAULT_INJECTION__ENABLED", "true");
    }
}

/// Injects a fault into every call of a method of products, or removes it.
async fn inject(shop: &Shop, fault: Option<(&str, Value)>) {
    let rules: Vec<_> =
        fault.into_iter().map(|(method, kind)| json!({ "name": "test", "method": method, "rate": 1, "kind": kind })).collect();
    put_admin(shop, "products", "/faults", &json!({ "rules": rules })).await;
}

/// Sends a `PUT` to a service's admin port.
async fn put_admin(shop: &Shop, service: &str, path: &str, body: &Value) {
    let put = Client::new(shop.admin_url(service), None).put(path, body);
    assert_eq!(put.attempt().await.unwrap().status, 200);
}

/// Returns the kinds, names and statuses of these spans.
fn kinds_names_statuses<'a>(spans: impl IntoIterator<Item = &'a Span>) -> Vec<(&'a str, &'a str, &'a str)> {
    spans.into_iter().map(|span| (span.kind, span.name.as_str(), span.status)).collect()
}

/// Accepts a complete trace with at least this many spans.
fn complete_with(spans: usize) -> impl Fn(&Trace) -> bool {
    move |trace| trace.0.len() >= spans && trace.is_complete()
}

/// Validates every received span against the span catalogue.
fn assert_catalogued(collector: &Collector) {
    let catalogue = Catalogue::read();
    collector.spans().iter().for_each(|span| catalogue.check(span));
}
