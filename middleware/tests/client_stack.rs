//! gRPC client stack against real servers on loopback ports, called through a generated tonic
//! client.
#![expect(clippy::unwrap_used, reason = "an unwrap in a test is an assertion")]

#[path = "support/health_server.rs"]
mod health_server;
#[path = "support/refusals.rs"]
mod refusals;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use health_server::{CHECK, Seen, check, dead_port, hanging, serve, server, serving, unavailable};
use http::{HeaderName, Request, Response};
use palisade_middleware::{
    circuit_breaker::{self, State},
    client::{self, Client, Config},
    context::{self, Context},
    rejection::{Rejection, Retry},
    retry::{self, MethodContracts},
    task,
};
use tokio::{net::TcpListener, time::Instant};
use tonic::{Code, Status, body::Body};
use tower::layer::{layer_fn, util::Identity};

use self::refusals::{advice, reason};

const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

fn config(address: SocketAddr) -> Config {
    Config::at(format!("http://{address}"))
}

/// Breaker that opens after five failures, without retries.
fn breaker_config(address: SocketAddr) -> Config {
    let retry = retry::Config { enabled: false, ..retry::Config::default() };
    let breaker = circuit_breaker::Config { min_calls: 5, ..circuit_breaker::Config::default() };
    Config { retry, circuit_breaker: breaker, ..config(address) }
}

fn connect(config: &Config) -> Client {
    client::connect("health", config, [CHECK].into_iter().collect(), Identity::new()).unwrap()
}

#[tokio::test]
async fn generated_client_call_succeeds() {
    let (address, seen) = server(serving).await;
    let client = connect(&config(address));
    assert_eq!(check(&client).await.unwrap().status, 1);
    assert_eq!(seen.lock().len(), 1);
    assert_eq!(client.breaker().counts().total, 1);
    assert_eq!(client.breaker().counts().failed, 0);
}

#[tokio::test]
async fn remaining_deadline_is_propagated() {
    let (address, seen) = server(serving).await;
    let client = connect(&config(address));
    let request = Context::background().with_deadline(Instant::now() + Duration::from_millis(800));
    context::scope(request, check(&client)).await.unwrap();
    let timeout = seen.lock()[0]["grpc-timeout"].to_str().unwrap().to_owned();
    let micros: u64 = timeout.strip_suffix('u').expect("grpc-timeout in microseconds").parse().unwrap();
    assert!((1..=784_000).contains(&micros), "{timeout}");
}

#[tokio::test]
async fn expired_deadline_sends_no_request() {
    let (address, seen) = server(serving).await;
    let client = connect(&config(address));
    let request = Context::background().with_deadline(Instant::now());
    let refusal = context::scope(request, check(&client)).await.unwrap_err();
    assert_eq!((refusal.code(), reason(&refusal).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    assert!(seen.lock().is_empty());
    assert_eq!(client.breaker().counts().total, 0);
}

#[tokio::test]
async fn hang_after_headers_times_out_as_failure() {
    let (address, _) = server(hanging).await;
    let client = connect(&Config { attempt_timeout_ms: 100, ..breaker_config(address) });
    assert_eq!(check(&client).await.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(client.breaker().counts().failed, 1);
}

#[tokio::test]
async fn breaker_opens_on_trailers_only_errors() {
    let (address, seen) = server(unavailable).await;
    let client = connect(&breaker_config(address));
    for _ in 0..5 {
        assert_eq!(check(&client).await.unwrap_err().message(), "not now");
    }
    assert_eq!(client.breaker().state(), State::Open);
    let refusal = check(&client).await.unwrap_err();
    assert_eq!((refusal.code(), refusal.message()), (Code::Unavailable, "circuit open: health"));
    assert_eq!(reason(&refusal), "UPSTREAM_UNAVAILABLE");
    assert!(matches!(advice(&refusal), Retry::After(wait) if wait > Duration::from_secs(1)));
    assert_eq!(seen.lock().len(), 5);
}

#[tokio::test]
async fn breaker_opens_on_connect_failures() {
    let client = connect(&breaker_config(dead_port()));
    while client.breaker().state() == State::Closed {
        let refusal = check(&client).await.unwrap_err();
        assert_eq!((refusal.code(), reason(&refusal).as_str()), (Code::Unavailable, "UPSTREAM_UNAVAILABLE"));
    }
    assert_eq!(client.breaker().state(), State::Open);
    assert_eq!(check(&client).await.unwrap_err().message(), "circuit open: health");
}

#[tokio::test]
async fn idempotent_call_gets_three_attempts_then_no_retry() {
    let (address, seen) = server(unavailable).await;
    let refusal = check(&connect(&config(address))).await.unwrap_err();
    assert_eq!((refusal.code(), refusal.message()), (Code::Unavailable, "not now"));
    assert_eq!(advice(&refusal), Retry::Never);
    let previous: Vec<_> = seen.lock().iter().map(|headers| headers.get(PREVIOUS_ATTEMPTS).cloned()).collect();
    assert_eq!(previous, [None, Some(1.into()), Some(2.into())]);
}

#[tokio::test]
async fn negative_pushback_prevents_retry() {
    let (address, seen) = server(async || {
        let mut response = unavailable().await;
        response.headers_mut().insert("grpc-retry-pushback-ms", (-1).into());
        response
    })
    .await;
    assert_eq!(check(&connect(&config(address))).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(seen.lock().len(), 1);
}

#[tokio::test]
async fn non_idempotent_call_is_not_retried() {
    let (address, seen) = server(unavailable).await;
    let client = client::connect("health", &config(address), MethodContracts::default(), Identity::new()).unwrap();
    assert_eq!(check(&client).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(seen.lock().len(), 1);
}

#[tokio::test]
async fn refused_stream_is_retried_transparently() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let received = seen.clone();
    task::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            received.lock().push(request.headers().clone());
            if received.lock().len() == 1 {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            } else {
                respond.send_response(Status::not_found("seen").into_http(), true).unwrap();
            }
        }
    });
    let client = client::connect("health", &config(address), MethodContracts::default(), Identity::new()).unwrap();
    assert_eq!(check(&client).await.unwrap_err().message(), "seen");
    let previous: Vec<_> = seen.lock().iter().map(|headers| headers.get(PREVIOUS_ATTEMPTS).cloned()).collect();
    assert_eq!(previous, [None, None]);
}

#[tokio::test]
async fn client_reconnects_to_restarted_server() {
    let address = dead_port();
    let breaker = circuit_breaker::Config { mode: circuit_breaker::Mode::Disabled, ..circuit_breaker::Config::default() };
    let client = connect(&Config { circuit_breaker: breaker, ..config(address) });
    assert_eq!(check(&client).await.unwrap_err().code(), Code::Unavailable);
    serve(TcpListener::bind(address).await.unwrap(), serving);
    let reconnect = async { while check(&client).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(10), reconnect).await.expect("the client reconnects in time");
}

#[tokio::test]
async fn calls_above_the_bulkhead_are_rejected() {
    let (address, seen) = server(hanging).await;
    let client = connect(&Config { max_in_flight: 1, ..config(address) });
    let first = task::spawn({
        let client = client.clone();
        async move { check(&client).await }
    });
    while seen.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    let refusal = check(&client).await.unwrap_err();
    assert_eq!((refusal.code(), reason(&refusal).as_str()), (Code::Unavailable, "OVERLOADED"));
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(seen.lock().len(), 1);
}

#[tokio::test]
async fn credentials_error_sends_no_request() {
    let credential_calls = Arc::new(AtomicUsize::new(0));
    let counter = credential_calls.clone();
    let no_credentials = layer_fn(move |_endpoint| {
        let counter = counter.clone();
        tower::service_fn(move |_: Request<Body>| {
            counter.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Err::<Response<Body>, _>(Rejection::internal("missing signing key")))
        })
    });
    let (address, seen) = server(serving).await;
    let client = client::connect("health", &config(address), [CHECK].into_iter().collect(), no_credentials).unwrap();
    let refusal = check(&client).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Internal);
    assert!(!refusal.message().contains("key"));
    assert_eq!(credential_calls.load(Ordering::Relaxed), 1);
    assert_eq!(client.breaker().counts().total, 0);
    assert!(seen.lock().is_empty());
}
