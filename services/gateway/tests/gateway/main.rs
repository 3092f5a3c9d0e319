//! HTTP behaviour of the gateway: its router with the real layers and in-memory services.
#![expect(clippy::unwrap_used, reason = "a test may panic on unexpected results")]

mod conditional_requests;
mod documentation;
mod fake_services;
mod fake_stock;
mod orders;
mod products;
mod request_validation;
mod stock;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode},
    response::IntoResponse,
};
use http_body_util::BodyExt;
use palisade_gateway::{Callers, METHODS, Upstreams, router};
use palisade_middleware::{
    auth,
    method_table::MethodTable,
    request_context::RequestContextLayer,
    respond::{Protocol, RespondLayer},
};
use palisade_proto::{
    orders::v1::orders_service_server::OrdersServiceServer, products::v1::products_service_server::ProductsServiceServer,
};
use serde_json::Value;
use tower::{ServiceBuilder, ServiceExt};

use crate::fake_services::{FakeOrders, FakeProducts};

/// The gateway and the services behind it.
struct Gateway {
    router: Router,
    products: FakeProducts,
    orders: FakeOrders,
}

/// Complete response.
#[derive(Debug)]
struct TextResponse {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Gateway {
    fn new() -> Self {
        let (products, orders) = (FakeProducts::default(), FakeOrders::default());
        let upstreams = Upstreams::new(ProductsServiceServer::new(products.clone()), OrdersServiceServer::new(orders.clone()));
        Self { router: router(upstreams, Callers::new(&auth::Config::default())), products, orders }
    }

    async fn send(&self, request: Request<Body>) -> TextResponse {
        let layers = ServiceBuilder::new()
            .layer(RequestContextLayer(Arc::new(MethodTable::new(&[&METHODS]).unwrap())))
            .layer(RespondLayer(Protocol::Http));
        let (head, body) = layers.service(self.router.clone()).oneshot(request).await.into_response().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        TextResponse { status: head.status, headers: head.headers, text: String::from_utf8(body.to_vec()).unwrap() }
    }

    /// Sends a request without a body.
    async fn send_empty(&self, verb: &str, path: &str, headers: &[(&str, &str)]) -> TextResponse {
        self.send(request(verb, path, headers, Body::empty())).await
    }

    /// Sends a request with a JSON body.
    async fn send_json(&self, verb: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TextResponse {
        let headers: Vec<_> = [("content-type", "application/json")].iter().chain(headers).copied().collect();
        self.send(request(verb, path, &headers, Body::from(body.to_owned()))).await
    }
}

fn request(verb: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
    let builder = Request::builder().method(verb).uri(path);
    headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value)).body(body).unwrap()
}

impl TextResponse {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// Asserts that the response is this problem, and returns it.
    #[track_caller]
    fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!((self.status.as_u16(), self.header("content-type")), (status, Some("application/problem+json")), "{}", self.text);
        let problem = self.json();
        assert_eq!((problem["status"].as_u64(), problem["code"].as_str()), (Some(status.into()), Some(code)), "{}", self.text);
        assert_eq!(self.header("cache-control"), Some("no-store"));
        problem
    }

    /// Returns the `field: code` pairs of a problem's `errors`.
    #[track_caller]
    fn errors(&self) -> Vec<String> {
        let problem = self.problem(400, "validation_failed");
        let errors = problem["errors"].as_array().unwrap().iter();
        errors.map(|error| format!("{}: {}", error["field"].as_str().unwrap(), error["code"].as_str().unwrap())).collect()
    }
}
