//! Traces of rejected requests and of a failed order.

use palisade_tests::{
    Client, Response,
    otlp::{Collector, span::Span},
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{create_product, order_request},
};
use reqwest::Method;
use serde_json::{Value, json};

use super::{CREATE, RESERVE, assert_catalogued, complete_with, kinds_names_statuses, shop};

/// Returns the only span of a request that ended at the gateway.
async fn only_span(collector: &Collector, answer: &Response) -> Span {
    let trace = collector.trace(answer.header("x-trace-id").unwrap(), complete_with(1)).await;
    assert_eq!(trace.0.len(), 1, "{}", trace.tree());
    let span = trace.root().clone();
    assert_eq!(span.attribute("http.response.status_code"), json!(answer.status.as_u16()));
    assert_eq!((span.status, span.attribute("error.type")), ("Unset", Value::Null), "client errors must not set the span status");
    span
}

#[tokio::test]
async fn rejected_request_has_one_span_without_error() {
    let collector = Collector::start();
    let shop = shop(&collector, |service, command| {
        if service == "gateway" {
            command.env("PALISADE_SERVER__RATE_LIMIT__PER_SECOND", "1").env("PALISADE_SERVER__RATE_LIMIT__BURST", "5");
            command.env("PALISADE_SERVER__ADDRESS_LIMIT__TRUSTED_PROXIES", "127.0.0.1");
        }
    });
    let (nobody, reader) = (shop.anonymous(), shop.client("reader", "products:read"));

    let answer = nobody.get("/products").header("x-forwarded-for", "203.0.113.9, 198.51.100.7").await;
    answer.problem(401, "unauthenticated");
    let span = only_span(&collector, &answer).await;
    assert_eq!((span.name.as_str(), span.attribute("client.address")), ("GET /products", json!("198.51.100.7")));
    let answer = reader.delete(format!("/orders/{}", uuid::Uuid::new_v4())).await;
    answer.problem(403, "insufficient_scope");
    assert_eq!(only_span(&collector, &answer).await.name, "DELETE /orders/{id}");
    let answer = nobody.get("/admin.php").await;
    let span = only_span(&collector, &answer).await;
    assert_eq!((span.name.as_str(), span.attribute("http.route"), span.attribute("url.path")), ("GET", Value::Null, json!("/admin.php")));
    let answer = nobody.request(Method::from_bytes(b"BREW").unwrap(), "/products").await;
    let span = only_span(&collector, &answer).await;
    assert_eq!(span.name, "HTTP");
    assert_eq!(["http.request.method", "http.request.method_original"].map(|key| span.attribute(key)), ["_OTHER", "BREW"]);

    // An unknown method is a server error in the semantic conventions.
    let products = Client::new(shop.grpc_url("products"), None).with_http2();
    products.request(Method::POST, "/a.Scanner/Call").header("content-type", "application/grpc").attempt().await.unwrap();
    let span = collector.span(|span| span.attribute("rpc.method_original") == json!("a.Scanner/Call")).await;
    assert_eq!((span.kind, span.name.as_str(), span.attribute("rpc.method")), ("SERVER", "grpc", json!("_OTHER")));
    assert_eq!(span.attribute("rpc.status_code"), span.attribute("error.type"));

    let greedy = shop.client("greedy", ALL_SCOPES);
    let refused = async || Some(greedy.get("/orders").await).filter(|answer| answer.status == 429);
    let answer = palisade_tests::eventually(refused).await;
    assert_eq!(only_span(&collector, &answer).await.name, "GET /orders");
    assert_catalogued(&collector);
}

#[tokio::test]
async fn failed_order_is_an_error_only_in_client_spans() {
    let collector = Collector::start();
    let shop = shop(&collector, |_, _| {});
    let product = create_product(&shop.client("seller", ALL_SCOPES), 1).await;
    let answer = order_request(&shop.client("buyer", CUSTOMER), &[(&product, 2)]).await;
    answer.problem(409, "insufficient_stock");
    let trace = collector.trace(answer.header("x-trace-id").unwrap(), complete_with(7)).await;
    let mut spans = trace.0.clone();
    spans.sort_by(|one, other| (&one.name, one.kind).cmp(&(&other.name, other.kind)));
    assert_eq!(
        kinds_names_statuses(&spans),
        [
            ("SERVER", "POST /orders", "Unset"),
            ("CLIENT", CREATE, "Error"),
            ("SERVER", CREATE, "Unset"),
            ("CLIENT", RESERVE, "Error"),
            ("SERVER", RESERVE, "Unset"),
            ("INTERNAL", "saga create_order", "Unset"),
            ("INTERNAL", "step reserve_stock", "Unset"),
        ]
    );
    for span in spans.iter().filter(|span| ["CLIENT", "SERVER"].contains(&span.kind) && span.name != "POST /orders") {
        assert_eq!(span.attribute("error.type"), json!("FAILED_PRECONDITION"), "{span:?}");
    }
    assert_eq!(trace.single("INTERNAL", "saga create_order").attribute("app.saga.outcome"), json!("FAILED"));
    assert_catalogued(&collector);
}
