use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use tonic::{Code, Status};
use tower::{ServiceExt, service_fn, util::BoxCloneService};

use super::*;
use crate::{deadline::AttemptTimeoutLayer, rejection::Retry, time_limit::TimeLimit};

type Answer = BoxBody<Bytes, Infallible>;
/// `None`: the service hangs.
type Answers = fn() -> Option<Result<Response<Answer>, Rejection>>;

/// A body of one message and these trailers.
fn body(trailers: Option<HeaderMap>) -> Answer {
    let message = Frame::data(Bytes::from_static(b"message"));
    let frames = [Some(message), trailers.map(Frame::trailers)].into_iter().flatten().map(Ok);
    BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames.collect::<Vec<_>>())))
}

fn in_trailers(code: Code) -> Response<Answer> {
    let status: Response<()> = Status::new(code, "").into_http();
    Response::new(body(Some(status.headers().clone())))
}

fn trailers_only(code: Code) -> Response<Answer> {
    Status::new(code, "").into_http::<()>().map(|()| body(None))
}

fn hanging_body() -> Answer {
    BodyExt::boxed(StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>()))
}

/// Returns the state of a breaker after one call that got `answer` and read it to its end.
async fn state_after(answer: Result<Response<Answer>, Rejection>) -> State {
    let layer = CircuitBreakerLayer::new("products", &Config { min_calls: 1, ..Config::default() });
    let mut answer = Some(answer);
    let mut service = layer.layer(service_fn(move |_: Request<()>| std::future::ready(answer.take().expect("called once"))));
    if let Ok(response) = service.call(Request::new(())).await {
        response.into_body().collect().await.unwrap();
    }
    layer.handle().state()
}

#[tokio::test(start_paused = true)]
async fn breaker_reads_status_from_head_and_trailers() {
    assert_eq!(state_after(Ok(trailers_only(Code::Unavailable))).await, State::Open);
    assert_eq!(state_after(Ok(in_trailers(Code::Unavailable))).await, State::Open);
    assert_eq!(state_after(Ok(Response::new(body(None)))).await, State::Open);
    assert_eq!(state_after(Ok(in_trailers(Code::Ok))).await, State::Closed);
    assert_eq!(state_after(Ok(trailers_only(Code::NotFound))).await, State::Closed);
}

#[tokio::test(start_paused = true)]
async fn timeout_is_a_failure_and_local_rejection_is_not() {
    assert_eq!(state_after(Err(crate::deadline::elapsed(std::time::Duration::from_secs(1)))).await, State::Open);
    assert_eq!(state_after(Err(Rejection::new(&reasons::OVERLOADED, ""))).await, State::Closed);
}

#[tokio::test(start_paused = true)]
async fn open_breaker_rejects_without_calling() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let layer = CircuitBreakerLayer::new("products", &Config { min_calls: 3, open_ms: 5_000, ..Config::default() });
    let service = BoxCloneService::new(layer.layer(service_fn(move |_: Request<()>| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok::<_, Rejection>(trailers_only(Code::Unavailable)))
    })));
    for _ in 0..3 {
        assert!(service.clone().oneshot(Request::new(())).await.is_ok());
    }
    let refusal = service.clone().oneshot(Request::new(())).await.unwrap_err();
    assert_eq!(refusal.reason(), &reasons::UPSTREAM_UNAVAILABLE);
    assert_eq!(refusal.detail(), "circuit open: products");
    assert!(matches!(refusal.retry(), Retry::After(wait) if wait.as_millis() >= 4_000));
    assert_eq!(calls.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn open_time_follows_hint_in_head_or_trailers() {
    let with_hint = |mut answer: Response<Answer>, name: &'static str| {
        answer.headers_mut().insert(name, http::HeaderValue::from_static(if name == "retry-after" { "20" } else { "20000" }));
        answer
    };
    let mut trailers: HeaderMap = Status::unavailable("").into_http::<()>().headers().clone();
    trailers.insert("grpc-retry-pushback-ms", http::HeaderValue::from(20_000));
    let mut proxy_response = Response::new(body(None));
    *proxy_response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    for (name, answer, secs) in [
        ("nothing asked", trailers_only(Code::Unavailable), 2),
        ("in the head", with_hint(trailers_only(Code::Unavailable), "grpc-retry-pushback-ms"), 20),
        ("in the trailers", Response::new(body(Some(trailers))), 20),
        ("by a proxy", with_hint(proxy_response, "retry-after"), 20),
        ("not by gRPC", with_hint(trailers_only(Code::Unavailable), "retry-after"), 2),
    ] {
        let layer = CircuitBreakerLayer::new("products", &Config { min_calls: 1, ..Config::default() });
        let mut answer = Some(answer);
        let mut service =
            layer.layer(service_fn(move |_: Request<()>| std::future::ready(Ok::<_, Rejection>(answer.take().expect("called once")))));
        service.call(Request::new(())).await.unwrap().into_body().collect().await.unwrap();
        let remaining = layer.handle().remaining().expect("the breaker is open").as_secs_f64();
        assert!((remaining / f64::from(secs) - 1.0).abs() <= 0.2, "{name}: {remaining} s");
    }
}

#[tokio::test(start_paused = true)]
async fn panic_in_call_is_a_failure() {
    let layer = CircuitBreakerLayer::new("products", &Config { min_calls: 1, ..Config::default() });
    let panics = layer.layer(service_fn(async |_: Request<()>| -> Result<Response<Answer>, Rejection> { panic!("on purpose") }));
    // As in the server, the future outlives the panic.
    let caught = crate::catch_panic::CatchPanicLayer::new().layer(panics).oneshot(Request::new(())).await;
    assert!(caught.is_err());
    assert_eq!(layer.handle().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn dropped_call_is_not_counted() {
    let layer = CircuitBreakerLayer::new("products", &Config { min_calls: 1, ..Config::default() });
    let mut hangs = layer.layer(service_fn(|_: Request<()>| std::future::pending::<Result<Response<Answer>, Rejection>>()));
    drop(hangs.call(Request::new(())));
    let mut answers = layer.layer(service_fn(async |_: Request<()>| Ok::<_, Rejection>(in_trailers(Code::Unavailable))));
    drop(answers.call(Request::new(())).await.unwrap());
    assert_eq!(layer.handle().counts().total, 0);
}

#[tokio::test(start_paused = true)]
async fn call_dropped_at_deadline_is_a_failure() {
    let layer = CircuitBreakerLayer::new("products", &Config { min_calls: 1, ..Config::default() });
    let mut hangs = layer.layer(service_fn(|_: Request<()>| std::future::pending::<Result<Response<Answer>, Rejection>>()));
    let second = std::time::Duration::from_secs(1);
    let mut request = Request::new(());
    request.extensions_mut().insert(CallDeadline(TimeLimit::operator(Instant::now(), second)));
    assert!(tokio::time::timeout(second, hangs.call(request)).await.is_err());
    assert_eq!(layer.handle().state(), State::Open);
}

/// Calls a service that gives one of `answers`, or hangs, with this deadline and an attempt timeout
/// of 5 s. Returns the failures that the breaker counted.
async fn failures_within(limit: TimeLimit, answers: Answers) -> u32 {
    let breaker = CircuitBreakerLayer::new("products", &Config { min_calls: 100, ..Config::default() });
    let slow = service_fn(move |_: Request<()>| async move {
        let Some(answer) = answers() else { std::future::pending().await };
        // Remote servers answer when their time is over, shortly before ours.
        tokio::time::sleep(SECOND * 19 / 20).await;
        answer
    });
    let mut service = breaker.layer(AttemptTimeoutLayer::new("products", 5 * SECOND).layer(slow));
    let mut request = Request::new(());
    request.extensions_mut().insert(CallDeadline(limit));
    if let Ok(response) = service.call(request).await {
        let _ = response.into_body().collect().await;
    }
    breaker.handle().counts().failed
}

const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn expiry_of_a_callers_time_is_no_failure() {
    let caller: fn(u32) -> TimeLimit = |seconds| TimeLimit::caller(Instant::now(), seconds * SECOND, 9 * SECOND);
    let operator: fn(u32) -> TimeLimit = |seconds| TimeLimit::operator(Instant::now(), seconds * SECOND);
    // The service hangs before the head, or behind it, in the body.
    let hangs: [Answers; 2] = [|| None, || Some(Ok(Response::new(hanging_body())))];
    for hang in hangs {
        for (limit, seconds, failures) in [(caller, 1, 0), (caller, 8, 1), (operator, 3, 1), (operator, 9, 1)] {
            let limit = limit(seconds);
            assert_eq!(failures_within(limit, hang).await, failures, "{limit:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn remote_expiry_of_a_callers_time_is_no_failure() {
    let expired: [Answers; 2] = [|| Some(Ok(trailers_only(Code::DeadlineExceeded))), || Some(Ok(in_trailers(Code::DeadlineExceeded)))];
    for answers in expired {
        assert_eq!(failures_within(TimeLimit::caller(Instant::now(), SECOND, 9 * SECOND), answers).await, 0);
        assert_eq!(failures_within(TimeLimit::operator(Instant::now(), 9 * SECOND), answers).await, 1);
    }
}
