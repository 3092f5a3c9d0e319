//! Truncated responses: every metric and span records the same outcome, on the server and on the
//! client.

#[path = "support/in_memory_exporter.rs"]
mod in_memory_exporter;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use opentelemetry::{Value, trace::TracerProvider};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use palisade_middleware::{
    auth::Verifier,
    client,
    clock::SystemClock,
    fault_injection::Faults,
    method_table::{Access, Method, MethodTable},
    rejection::Rejection,
    respond::Protocol,
    retry::MethodContracts,
    server,
};
use tonic::{Status, body::Body};
use tower::{ServiceExt, layer::util::Identity};
use tracing::instrument::WithSubscriber;
use tracing_subscriber::layer::SubscriberExt;

use self::in_memory_exporter::Kept;

static METHODS: [Method; 1] = [Method::http("GET", "/things", Access::Public)];

/// Runs `work` on one thread and returns its metrics and its single span.
async fn record(work: impl Future<Output = ()>) -> (PrometheusHandle, SpanData) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _local = metrics::set_default_local_recorder(&recorder);
    let exporter = Kept::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    work.with_subscriber(tracing_subscriber::registry().with(layer)).await;
    let mut spans = std::mem::take(&mut *exporter.0.lock());
    assert_eq!(spans.len(), 1, "{spans:?}");
    (recorder.handle(), spans.remove(0))
}

/// Asserts that a histogram recorded one sample, with this label only.
#[track_caller]
fn assert_counted_once(metrics: &PrometheusHandle, name: &str, label: &str) {
    let text = metrics.render();
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with(&format!("{name}_count{{")) && !line.ends_with(" 0")).collect();
    assert!(matches!(lines.as_slice(), [line] if line.contains(label) && line.ends_with(" 1")), "{name} {label}: {lines:?}");
}

fn attribute(span: &SpanData, key: &str) -> Option<Value> {
    span.attributes.iter().find(|pair| pair.key.as_str() == key).map(|pair| pair.value.clone())
}

#[tokio::test(start_paused = true)]
async fn response_truncated_by_deadline_is_a_timeout() {
    let (metrics, span) = record(async {
        let first_chunk = || stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from("first chunk")))]);
        let handler = tower::service_fn(move |_: Request<axum::body::Body>| async move {
            let hanging = futures_util::StreamExt::chain(first_chunk(), stream::pending());
            Ok::<_, Infallible>(Response::new(axum::body::Body::new(StreamBody::new(hanging))))
        });
        let table = Arc::new(MethodTable::new(&[&METHODS]).unwrap());
        let verifier = Arc::new(Verifier::new(Vec::new(), Arc::new(SystemClock)).unwrap());
        let stack = server::stack(Protocol::Http, handler, table, verifier, Faults::disabled(), &server::Config::default());
        let request =
            Request::get("/things").header("host", "shop").header("x-request-timeout", "100").body(axum::body::Body::empty()).unwrap();
        let response = stack.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.into_body().collect().await.is_err());
    })
    .await;
    assert_counted_once(&metrics, "http_server_request_duration", r#"http_response_status_code="504""#);
    assert_eq!(attribute(&span, "http.response.status_code"), Some(504_i64.into()));
    assert_eq!(attribute(&span, "error.type"), Some("caller_deadline".into()));
    assert_eq!(attribute(&span, "app.deadline_ms"), Some(100_i64.into()));
}

#[tokio::test]
async fn truncated_upstream_response_is_unavailable() {
    let (metrics, span) = record(async {
        let endpoint = tower::service_fn(async |_: Request<Body>| {
            let truncated = stream::iter([Ok(Frame::data(Bytes::from("first chunk"))), Err(Status::internal("reset"))]);
            Ok::<_, Rejection>(Response::new(Body::new(StreamBody::new(truncated))))
        });
        let config = client::Config::at("http://127.0.0.1:1");
        let client = client::stack("test", &config, MethodContracts::unary(["/test.v1.Test/Get"]), Identity::new(), endpoint).unwrap();
        let request = Request::post("/test.v1.Test/Get").body(Body::empty()).unwrap();
        let response = client.oneshot(request).await.unwrap();
        assert!(response.into_body().collect().await.is_err());
    })
    .await;
    assert_counted_once(&metrics, "rpc_client_call_duration", r#"rpc_status_code="UNAVAILABLE""#);
    assert_counted_once(&metrics, "grpc_client_attempt_duration", r#"grpc_status="UNAVAILABLE""#);
    assert_eq!(attribute(&span, "rpc.status_code"), Some("UNAVAILABLE".into()));
    assert_eq!(attribute(&span, "app.rpc.attempts"), Some(1_i64.into()));
}

/// A server that dies between the message and the status: a call that can be repeated is repeated.
#[tokio::test(start_paused = true)]
async fn idempotent_call_truncated_after_data_is_retried() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let seen = attempts.clone();
    let endpoint = tower::service_fn(move |_: Request<Body>| {
        let attempt = seen.fetch_add(1, Ordering::Relaxed);
        let end = if attempt == 0 { Err(Status::internal("reset")) } else { Ok(Frame::trailers(HeaderMap::from_iter([ok()]))) };
        let frames = stream::iter([Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\0"))), end]);
        std::future::ready(Ok::<_, Rejection>(Response::new(Body::new(StreamBody::new(frames)))))
    });
    let config = client::Config::at("http://127.0.0.1:1");
    for (path, expected) in [("/test.v1.Test/Get", 2), ("/test.v1.Test/Put", 1)] {
        attempts.store(0, Ordering::Relaxed);
        let idempotent = ["/test.v1.Test/Get"].into_iter().collect::<MethodContracts>();
        let client = client::stack("test", &config, idempotent, Identity::new(), endpoint.clone()).unwrap();
        let response = client.oneshot(Request::post(path).body(Body::empty()).unwrap()).await.unwrap();
        let collected = response.into_body().collect().await;
        assert_eq!((collected.is_ok(), attempts.load(Ordering::Relaxed)), (expected == 2, expected), "{path}");
    }
}

fn ok() -> (HeaderName, HeaderValue) {
    (HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))
}
