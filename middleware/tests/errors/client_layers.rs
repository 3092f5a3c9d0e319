//! Rejections of each client layer, in the order of the stack: as the generated client sees them,
//! and as a handler forwards them to its own caller.

use std::{net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use futures_util::poll;
use palisade_middleware::{
    circuit_breaker::Mode,
    client::{self, Client, Config, balance::Balancer},
    context::{self, Context},
    method_table::{Access, Method},
    rejection::{Rejection, Violation, reasons},
    respond::Protocol,
    retry::{self, MethodContracts},
    server,
};
use tokio::{net::TcpListener, time::Instant};
use tonic::{Status, body::Body};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient};
use tonic_types::StatusExt;
use tower::layer::{layer_fn, util::Identity};

use super::{
    expected::{ExpectedRejection, ExpectedRetry},
    servers,
};

static METHODS: [Method; 1] = [Method::http("GET", "/call", Access::Public)];

/// Port that accepts connections and sends nothing, while the listener lives.
async fn silent() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn dead() -> SocketAddr {
    silent().await.1
}

/// Without retries.
fn config(address: SocketAddr) -> Config {
    let retry = retry::Config { enabled: false, ..retry::Config::default() };
    Config { retry, ..Config::at(format!("http://{address}")) }
}

fn connect(config: &Config) -> Client {
    client::connect("health", config, MethodContracts::default(), Identity::new()).unwrap()
}

async fn call(client: &Client) -> Result<HealthCheckResponse, Status> {
    HealthClient::new(client.clone()).check(HealthCheckRequest::default()).await.map(tonic::Response::into_inner)
}

async fn call_within(client: Client, context: Option<Context>) -> Result<HealthCheckResponse, Status> {
    match context {
        Some(context) => context::scope(context, call(&client)).await,
        None => call(&client).await,
    }
}

/// Converts the status of an upstream to the rejection of this service's own caller.
fn forward(status: Status) -> Rejection {
    let details = status.get_error_details();
    let slug = details.error_info().map(|info| info.reason.as_str());
    let reason = slug.and_then(reasons::find);
    let rejection = match reason {
        Some(reason) if !reason.is_internal_fault() => Rejection::new(reason, status.message().to_owned()),
        _ => Rejection::new(&reasons::INTERNAL, "an unexpected error"),
    };
    let rejection = rejection.with_violations(Violation::from_error_details(&details));
    match details.retry_info().and_then(|info| info.retry_delay) {
        Some(wait) => rejection.with_retry_after(wait).with_source(status),
        None => rejection.with_source(status),
    }
}

/// Asserts that the direct call and the forwarded HTTP response both match `expected`. The calls
/// run in `context`, if any.
async fn assert_rejected(case: &str, expected: &ExpectedRejection, client: &Client, context: Option<Context>) {
    expected.assert_grpc(case, &call_within(client.clone(), context.clone()).await.unwrap_err());
    let client = client.clone();
    let handler = get(move || {
        let call = call_within(client.clone(), context.clone());
        async move { call.await.map(|_| "ok").map_err(forward) }
    });
    let address = servers::serve(Protocol::Http, Router::new().route("/call", handler), &METHODS, server::Config::default()).await;
    expected.assert_http(case, servers::http_client().get(format!("http://{address}/call")).send().await.unwrap()).await;
}

#[tokio::test]
async fn total_deadline() {
    let expired = Context::background().with_deadline(Instant::now());
    assert_rejected(
        "deadline expired",
        &ExpectedRejection::of(&reasons::DEADLINE_EXCEEDED, ExpectedRetry::Silent),
        &connect(&config(dead().await)),
        Some(expired),
    )
    .await;
}

#[tokio::test]
async fn bulkhead() {
    let (_listener, address) = silent().await;
    let client = connect(&Config { max_in_flight: 1, ..config(address) });
    let mut first = Box::pin(call(&client));
    assert!(poll!(&mut first).is_pending());
    assert_rejected(
        "bulkhead full",
        &ExpectedRejection::of(&reasons::OVERLOADED, ExpectedRetry::AtMost(Duration::from_millis(1_500))),
        &client,
        None,
    )
    .await;
}

#[tokio::test]
async fn retry() {
    let enabled = Config { retry: retry::Config::default(), ..config(dead().await) };
    let methods = ["/grpc.health.v1.Health/Check"].into_iter().collect();
    let client = client::connect("health", &enabled, methods, Identity::new()).unwrap();
    assert_rejected(
        "retries exhausted",
        &ExpectedRejection::of(&reasons::UPSTREAM_UNAVAILABLE, ExpectedRetry::Never).with_origin("health"),
        &client,
        None,
    )
    .await;
}

#[tokio::test]
async fn circuit_breaker() {
    let client = connect(&config(dead().await));
    client.breaker().open_for(Duration::from_secs(20));
    assert_rejected(
        "open",
        &ExpectedRejection::of(&reasons::UPSTREAM_UNAVAILABLE, ExpectedRetry::AtMost(Duration::from_secs(20))),
        &client,
        None,
    )
    .await;
    client.breaker().set_mode(Mode::ForcedOpen);
    assert_rejected("forced open", &ExpectedRejection::of(&reasons::UPSTREAM_UNAVAILABLE, ExpectedRetry::Silent), &client, None).await;
}

#[tokio::test]
async fn attempt_timeout() {
    let (_listener, address) = silent().await;
    let client = connect(&Config { attempt_timeout_ms: 50, ..config(address) });
    assert_rejected(
        "attempt timed out",
        &ExpectedRejection::of(&reasons::DEADLINE_EXCEEDED, ExpectedRetry::Silent).with_origin("health"),
        &client,
        None,
    )
    .await;
}

#[tokio::test]
async fn credentials() {
    let no_key = layer_fn(|_: Balancer| {
        tower::service_fn(async |_: http::Request<Body>| Err::<http::Response<Body>, _>(Rejection::internal("password=hunter2")))
    });
    let client = client::connect("health", &config(dead().await), MethodContracts::default(), no_key).unwrap();
    assert_rejected("missing signing key", &ExpectedRejection::of(&reasons::INTERNAL, ExpectedRetry::Silent), &client, None).await;
}

#[tokio::test]
async fn endpoint() {
    let client = connect(&config(dead().await));
    assert_rejected(
        "connection refused",
        &ExpectedRejection::of(&reasons::UPSTREAM_UNAVAILABLE, ExpectedRetry::Silent).with_origin("health"),
        &client,
        None,
    )
    .await;
}
