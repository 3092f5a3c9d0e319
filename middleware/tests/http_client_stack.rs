//! HTTP client stack against real servers on loopback ports.
#![expect(clippy::unwrap_used, reason = "an unwrap in a test is an assertion")]

#[path = "support/in_memory_exporter.rs"]
mod in_memory_exporter;

use std::{error::Error, future::pending, net::SocketAddr, sync::Arc, time::Duration};

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use in_memory_exporter::Kept;
use metrics_exporter_prometheus::PrometheusBuilder;
use opentelemetry::trace::{SpanKind, Status, TracerProvider};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use palisade_middleware::{
    circuit_breaker::{self, State},
    client::{self, HttpBody, HttpClient, HttpConfig},
    context::{self, Context},
    deadline::Elapsed,
    rejection::{Rejection, Retry, TransportError, reasons},
    retry::{self, IdempotencyKeyed},
    task,
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::Instant,
};
use tower::ServiceExt;
use tracing::instrument::WithSubscriber;
use tracing_subscriber::layer::SubscriberExt;

/// Method, URI, headers and body of each received request.
type Seen = Arc<Mutex<Vec<(Method, String, HeaderMap, Bytes)>>>;
type Answer = Result<http::Response<HttpBody>, Arc<Rejection>>;

/// Server that responds to the n-th request with `answer(n)`, from 1.
async fn server<F>(answer: impl Fn(usize) -> F + Clone + Send + Sync + 'static) -> (SocketAddr, Seen)
where
    F: Future<Output = Response> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Seen::default());
    let received = seen.clone();
    let handler = axum::Router::new().fallback(async move |request: axum::extract::Request| {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let number = {
            let mut log = received.lock();
            log.push((head.method, head.uri.to_string(), head.headers, body));
            log.len()
        };
        answer(number).await
    });
    drop(task::spawn(async move { axum::serve(listener, handler).await }));
    (address, seen)
}

fn client(address: SocketAddr, config: &HttpConfig) -> HttpClient {
    let origin = format!("http://me:secret@{address}").parse().unwrap();
    client::http("idp", &origin, config, reqwest::Client::builder().no_proxy()).unwrap()
}

/// Breaker that opens after three failures, without retries.
fn breaker_config() -> HttpConfig {
    let retry = retry::Config { enabled: false, ..retry::Config::default() };
    let breaker = circuit_breaker::Config { min_calls: 3, ..circuit_breaker::Config::default() };
    HttpConfig { retry, circuit_breaker: breaker, ..HttpConfig::default() }
}

fn request(method: Method) -> Request<Bytes> {
    Request::builder().method(method).uri("/keys?secret=1").body(Bytes::from_static(b"message")).unwrap()
}

async fn get(client: &HttpClient) -> Answer {
    client.clone().oneshot(request(Method::GET)).await
}

async fn status(client: &HttpClient, request: Request<Bytes>) -> StatusCode {
    let response = client.clone().oneshot(request).await.unwrap();
    let status = response.status();
    response.into_body().collect().await.unwrap();
    status
}

fn unavailable() -> Response {
    StatusCode::SERVICE_UNAVAILABLE.into_response()
}

/// Responds with 503 twice, then succeeds.
async fn flaky(number: usize) -> Response {
    if number <= 2 { unavailable() } else { "keys".into_response() }
}

/// Runs `call` and returns its single client span.
async fn span_of<F: Future>(call: F) -> (F::Output, SpanData) {
    let exporter = Kept::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let subscriber = tracing_subscriber::registry().with(tracing_opentelemetry::layer().with_tracer(provider.tracer("test")));
    let outcome = call.with_subscriber(subscriber).await;
    let spans = exporter.0.lock();
    let ours: Vec<_> = spans.iter().filter(|span| span.span_kind == SpanKind::Client).collect();
    let [span] = ours.as_slice() else { panic!("{spans:?}") };
    (outcome, (*span).clone())
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    span.attributes.iter().find(|pair| pair.key.as_str() == key).map(|pair| pair.value.to_string())
}

#[tokio::test]
async fn retried_call_is_one_span_with_three_attempts() {
    // The test runs on one thread, so that the local recorder sees everything.
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _local = metrics::set_default_local_recorder(&recorder);
    let (address, seen) = server(flaky).await;
    let (port, client) = (address.port(), client(address, &HttpConfig::default()));
    let (answer, span) = span_of(async { get(&client).await.unwrap().into_body().collect().await.unwrap().to_bytes() }).await;
    assert_eq!(answer, "keys");

    let seen = seen.lock();
    assert_eq!(seen.len(), 3);
    let parent = format!("00-{}-{}-01", span.span_context.trace_id(), span.span_context.span_id());
    for (method, uri, headers, body) in seen.iter() {
        assert_eq!((method, uri.as_str(), body.as_ref()), (&Method::GET, "/keys?secret=1", b"message".as_slice()));
        assert_eq!(headers["traceparent"], parent.as_str());
        assert_eq!(headers[header::AUTHORIZATION], "Basic bWU6c2VjcmV0");
        let ours = ["grpc-timeout", "grpc-previous-rpc-attempts", "x-request-timeout"];
        assert!(ours.iter().all(|name| !headers.contains_key(*name)), "no Palisade headers to an external server: {headers:?}");
    }

    assert_eq!((span.name.as_ref(), &span.status), ("GET", &Status::Unset), "the call succeeded after retries");
    for (key, value) in [
        ("http.request.method", "GET".to_owned()),
        ("server.address", "127.0.0.1".to_owned()),
        ("server.port", port.to_string()),
        ("url.full", format!("http://{address}/keys")),
        ("http.response.status_code", "200".to_owned()),
        ("http.request.resend_count", "2".to_owned()),
    ] {
        assert_eq!(attribute(&span, key), Some(value), "{key}");
    }
    assert_eq!(attribute(&span, "error.type"), None);
    let retries: Vec<_> = span.events.iter().filter(|event| event.name == "retry").collect();
    assert_eq!(retries.len(), 2);
    assert!(
        retries
            .iter()
            .all(|event| { event.attributes.iter().any(|pair| *pair == opentelemetry::KeyValue::new("http.response.status_code", 503)) })
    );

    let text = handle.render();
    let counted = |series: &str| text.lines().filter(|line| line.starts_with(series)).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        counted("http_client_request_duration_count"),
        [format!(
            r#"http_client_request_duration_count{{http_request_method="GET",server_address="127.0.0.1",server_port="{port}",http_response_status_code="200",error_type=""}} 1"#
        )]
    );
    let mut attempts = counted("palisade_http_client_attempt_duration_count");
    attempts.sort();
    let attempt = |kind: &str, status: u16, error: &str| {
        format!(
            r#"palisade_http_client_attempt_duration_count{{http_request_method="GET",target="idp",attempt_type="{kind}",http_response_status_code="{status}",error_type="{error}"}} 1"#
        )
    };
    assert_eq!(attempts, [attempt("original", 503, "503"), attempt("retry", 200, ""), attempt("retry", 503, "503")]);
    assert_eq!((client.breaker().counts().total, client.breaker().counts().failed), (3, 2));
}

#[tokio::test]
async fn failures_and_rejections_set_span_error() {
    let (address, _) = server(async |_| StatusCode::NOT_FOUND.into_response()).await;
    let idp = client(address, &HttpConfig::default());
    let ((), span) = span_of(async { drop(get(&idp).await.unwrap()) }).await;
    assert_eq!(span.status, Status::error(""));
    assert_eq!((attribute(&span, "http.response.status_code"), attribute(&span, "error.type")), (Some("404".into()), Some("404".into())));

    idp.breaker().set_mode(circuit_breaker::Mode::ForcedOpen);
    let (answer, span) = span_of(get(&idp)).await;
    assert_eq!(answer.unwrap_err().detail(), "circuit open: idp");
    assert_eq!(attribute(&span, "http.response.status_code"), None);
    assert_eq!(attribute(&span, "error.type").as_deref(), Some("upstream_unavailable"));
    assert_eq!(span.status, Status::error(""));
}

#[tokio::test]
async fn post_is_retried_only_with_idempotency_key() {
    let (address, seen) = server(flaky).await;
    let client = client(address, &HttpConfig::default());
    assert_eq!(status(&client, request(Method::POST)).await, 503);
    assert_eq!(seen.lock().len(), 1);
    let mut keyed = request(Method::POST);
    keyed.extensions_mut().insert(IdempotencyKeyed);
    assert_eq!(status(&client, keyed).await, 200);
    let seen = seen.lock();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|(_, _, _, body)| body == "message"));
}

#[tokio::test]
async fn long_retry_after_opens_the_breaker() {
    let (address, seen) = server(async |_| (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "20")]).into_response()).await;
    let config = HttpConfig {
        circuit_breaker: circuit_breaker::Config { min_calls: 1, ..circuit_breaker::Config::default() },
        ..HttpConfig::default()
    };
    let client = client(address, &config);
    assert_eq!(status(&client, request(Method::GET)).await, 503);
    assert_eq!(seen.lock().len(), 1, "Retry-After exceeds the deadline");
    let refusal = get(&client).await.unwrap_err();
    assert!(matches!(refusal.retry(), Retry::After(wait) if wait > Duration::from_secs(18)), "{:?}", refusal.retry());
    assert_eq!(seen.lock().len(), 1);
}

#[tokio::test]
async fn breaker_opens_rejects_and_closes_after_recovery() {
    let (address, seen) = server(async |number| if number <= 4 { unavailable() } else { StatusCode::OK.into_response() }).await;
    let config = breaker_config();
    let breaker = circuit_breaker::Config { open_ms: 500, max_open_ms: 500, probes: 1, ..config.circuit_breaker };
    let client = client(address, &HttpConfig { circuit_breaker: breaker, ..config });
    for _ in 0..3 {
        assert_eq!(status(&client, request(Method::GET)).await, 503);
    }
    assert_eq!(client.breaker().state(), State::Open);
    let refusal = get(&client).await.unwrap_err();
    assert_eq!((refusal.reason(), refusal.detail()), (&reasons::UPSTREAM_UNAVAILABLE, "circuit open: idp"));
    assert_eq!(seen.lock().len(), 3);
    let recovery = async {
        while !get(&client).await.is_ok_and(|response| response.status() == 200) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), recovery).await.expect("the breaker probes in time");
    assert_eq!(client.breaker().state(), State::Closed);
    assert_eq!(seen.lock().len(), 5, "one probe failed");
}

#[tokio::test]
async fn hanging_server_times_out_as_failure() {
    let (address, _) = server(async |_| pending().await).await;
    let client = client(address, &HttpConfig { attempt_timeout_ms: 100, ..breaker_config() });
    let started = Instant::now();
    let refusal = get(&client).await.unwrap_err();
    assert_eq!(refusal.reason(), &reasons::DEADLINE_EXCEEDED);
    assert!(refusal.source().unwrap().is::<Elapsed>());
    assert!(started.elapsed() >= Duration::from_millis(100));
    assert_eq!(client.breaker().counts().failed, 1);
}

#[tokio::test]
async fn expired_deadline_sends_no_request() {
    let (address, seen) = server(flaky).await;
    let client = client(address, &HttpConfig::default());
    let refusal = context::scope(Context::background().with_deadline(Instant::now()), get(&client)).await.unwrap_err();
    assert_eq!(refusal.reason(), &reasons::DEADLINE_EXCEEDED);
    assert!(seen.lock().is_empty());
    assert_eq!(client.breaker().counts().total, 0);
}

/// Server that reads the start of each request, writes `text` and then closes, or stays silent.
async fn raw_server(text: &'static str, close: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(task::spawn(async move {
        let mut held = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            stream.write_all(text.as_bytes()).await.unwrap();
            if !close {
                held.push(stream);
            }
        }
    }));
    address
}

const HALF: &str = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc";

#[tokio::test]
async fn truncated_or_hanging_body_is_a_failure() {
    let client = client(raw_server(HALF, true).await, &breaker_config());
    let response = get(&client).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.unwrap_err();
    assert_eq!(client.breaker().counts().failed, 1);

    let client = self::client(raw_server(HALF, false).await, &HttpConfig { attempt_timeout_ms: 100, ..breaker_config() });
    let (error, span) = span_of(async { get(&client).await.unwrap().into_body().collect().await.unwrap_err() }).await;
    assert!(error.is::<Elapsed>(), "{error}");
    assert_eq!(client.breaker().counts().failed, 1);
    assert_eq!(attribute(&span, "http.response.status_code").as_deref(), Some("200"));
    assert_eq!(attribute(&span, "error.type").as_deref(), Some("deadline_exceeded"));
}

#[tokio::test]
async fn empty_or_unread_response_is_a_success() {
    let (address, _) = server(async |number| if number == 1 { StatusCode::OK.into_response() } else { "keys".into_response() }).await;
    let client = client(address, &breaker_config());
    assert_eq!(status(&client, request(Method::GET)).await, 200);
    drop(get(&client).await.unwrap());
    assert_eq!((client.breaker().counts().total, client.breaker().counts().failed), (2, 0));
}

#[tokio::test]
async fn failure_shows_whether_request_was_sent() {
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (address, unsent) in [(dead, true), (raw_server("", true).await, false)] {
        let client = client(address, &breaker_config());
        let refusal = get(&client).await.unwrap_err();
        assert_eq!(refusal.reason(), &reasons::UPSTREAM_UNAVAILABLE);
        let failure = refusal.source().unwrap().downcast_ref::<TransportError>().unwrap();
        assert_eq!((failure.never_sent, failure.connect_backoff), (unsent, false));
        let text = format!("{:?}", refusal.source());
        assert!(!text.contains("secret"), "{text}");
        // A request that was never sent is retried transparently, once.
        assert_eq!(client.breaker().counts().failed, if unsent { 2 } else { 1 });
    }
}

#[tokio::test]
async fn redirect_is_returned_not_followed() {
    let (address, seen) = server(async |_| (StatusCode::FOUND, [(header::LOCATION, "/elsewhere")]).into_response()).await;
    assert_eq!(status(&client(address, &HttpConfig::default()), request(Method::GET)).await, 302);
    assert_eq!(seen.lock().len(), 1);
}

#[tokio::test]
async fn dropped_call_releases_permit_and_is_not_counted() {
    let (address, seen) = server(async |number| if number == 1 { pending().await } else { "keys".into_response() }).await;
    let client = client(address, &HttpConfig { max_in_flight: 1, ..breaker_config() });
    let first = task::spawn({
        let client = client.clone();
        async move { get(&client).await.map(drop) }
    });
    while seen.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(get(&client).await.unwrap_err().reason(), &reasons::OVERLOADED);
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let unread = get(&client).await.unwrap();
    assert_eq!(get(&client).await.unwrap_err().reason(), &reasons::OVERLOADED, "the permit is held until the body is read");
    drop(unread);
    assert_eq!(status(&client, request(Method::GET)).await, 200);
    assert_eq!(client.breaker().counts().total, 2, "the dropped call is not counted");
}
