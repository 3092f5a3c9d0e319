//! Requests to the routes of the gateway, in front of services with fixed answers.

use std::sync::Arc;

use axum::{Router, body::Body, response::IntoResponse};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
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
use tonic::{Code, Status};
use tower::{ServiceBuilder, ServiceExt};

use crate::{
    fake_services::{FakeOrders, FakeProducts, ID},
    targets::deadlines::block_on,
};

pub(crate) mod bodies;
pub(crate) mod headers;

/// The gateway and the services behind it.
struct Gateway {
    router: Router,
    methods: Arc<MethodTable>,
    products: FakeProducts,
    orders: FakeOrders,
}

thread_local! {
    static GATEWAY: Gateway = Gateway::new();
}

/// Complete response.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Gateway {
    fn new() -> Self {
        let (products, orders) = (FakeProducts::default(), FakeOrders::default());
        let upstreams = Upstreams::new(ProductsServiceServer::new(products.clone()), OrdersServiceServer::new(orders.clone()));
        Self {
            router: router(upstreams, Callers::new(&auth::Config::default())),
            methods: Arc::new(MethodTable::new(&[&METHODS]).unwrap()),
            products,
            orders,
        }
    }

    /// Sends a request and checks what holds for every response.
    fn send(&self, request: Request<Body>) -> Answer {
        let layers = ServiceBuilder::new().layer(RequestContextLayer(self.methods.clone())).layer(RespondLayer(Protocol::Http));
        let (head, body) = block_on(async {
            let (head, body) = layers.service(self.router.clone()).oneshot(request).await.into_response().into_parts();
            (head, body.collect().await.unwrap().to_bytes().to_vec())
        });
        let answer = Answer { status: head.status, headers: head.headers, body };
        answer.check();
        answer
    }
}

impl Answer {
    /// A failure is a problem document with the status of the response.
    fn check(&self) {
        assert!(self.headers.contains_key("x-request-id"));
        if self.status.is_client_error() || self.status.is_server_error() {
            assert_eq!(self.headers["content-type"], "application/problem+json");
            let problem = self.json();
            assert_eq!(problem["status"], self.status.as_u16());
            assert!(problem["code"].as_str().is_some_and(|code| !code.is_empty()));
        }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends a request without a body.
fn get(path: &str, headers: HeaderMap) -> Answer {
    let mut request = Request::get(path).body(Body::empty()).unwrap();
    *request.headers_mut() = headers;
    GATEWAY.with(|gateway| gateway.send(request))
}

/// Any query is answered with a page, or with the name of the wrong parameter.
pub(crate) fn query(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    let list = ["/products".to_owned(), "/orders".to_owned(), format!("/products/{ID}/stock-adjustments")];
    let path = &list[usize::from(*first) % list.len()];
    let Ok(query) = std::str::from_utf8(rest) else { return };
    let Ok(uri) = format!("{path}?{query}").parse::<http::Uri>() else { return };
    let answer = get(&uri.to_string(), HeaderMap::new());
    match answer.status {
        StatusCode::OK => assert!(answer.json()["items"].is_array()),
        StatusCode::BAD_REQUEST => {
            assert!(["invalid_parameter", "invalid_cursor", "validation_failed"].contains(&answer.code().as_str()), "{}", answer.code());
        }
        // The fake service knows no administrator.
        status => assert_eq!(status, StatusCode::FORBIDDEN),
    }
}

/// Any status of a called service, with any details, becomes a problem. Its message is shown only
/// if the status names our error domain.
pub(crate) fn status_details(input: &[u8]) {
    const MESSAGE: &str = "connection to 10.0.0.7 refused";
    let Some((code, details)) = input.split_first() else { return };
    let code = Code::from(i32::from(*code % 17));
    if code == Code::Ok {
        return;
    }
    GATEWAY.with(|gateway| *gateway.products.error.lock().unwrap() = Some(Status::with_details(code, MESSAGE, details.to_vec().into())));
    let answer = get(&format!("/products/{ID}"), HeaderMap::new());
    GATEWAY.with(|gateway| *gateway.products.error.lock().unwrap() = None);
    assert!(answer.status.is_client_error() || answer.status.is_server_error());
    let is_own = details.windows(8).any(|part| part == b"palisade");
    assert!(is_own || !answer.body.windows(MESSAGE.len()).any(|part| part == MESSAGE.as_bytes()));
    if let Some(delay) = answer.headers.get("retry-after").map(HeaderValue::as_bytes) {
        assert!(crate::targets::input::digits(delay).is_some(), "{delay:?}");
    }
}
