//! What a collector receives of real processes: whole trees, of the requests that went well and of those that did not.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod failures;
mod loss;
mod order;
mod resumed;
mod retries;

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

/// The three services apart, with embedded stores, all of whose spans come to `collector`.
async fn shop(collector: &Collector, configure: impl Fn(&str, &mut Command)) -> Shop {
    let shop = Shop::separate_with(None, None, |service, command| {
        collector.observe(command);
        configure(service, command);
    });
    shop.ready().await;
    shop
}

/// Products can be told to fail.
fn injecting(service: &str, command: &mut Command) {
    if service == "products" {
        command.env("PALISADE_SERVER__FAULTS__ENABLED", "true");
    }
}

/// Tells products to do this to every call of a method; nothing, to do it no more.
async fn inject(shop: &Shop, fault: Option<(&str, Value)>) {
    let rules: Vec<_> =
        fault.into_iter().map(|(method, kind)| json!({ "name": "test", "method": method, "rate": 1, "kind": kind })).collect();
    tell(shop, "products", "/faults", &json!({ "rules": rules })).await;
}

/// Tells a service's admin port something.
async fn tell(shop: &Shop, service: &str, path: &str, what: &Value) {
    let put = Client::new(shop.admin_url(service), None).put(path, what);
    assert_eq!(put.attempt().await.unwrap().status, 200);
}

/// The kinds, names and states of these spans.
fn shown<'a>(spans: impl IntoIterator<Item = &'a Span>) -> Vec<(&'a str, &'a str, &'a str)> {
    spans.into_iter().map(|span| (span.kind, span.name.as_str(), span.status)).collect()
}

/// So many spans, and none whose parent is missing.
fn whole(spans: usize) -> impl Fn(&Trace) -> bool {
    move |trace| trace.0.len() >= spans && trace.is_whole()
}

/// Holds every span that came to the catalogue.
fn catalogued(collector: &Collector) {
    let catalogue = Catalogue::read();
    collector.spans().iter().for_each(|span| catalogue.check(span));
}
