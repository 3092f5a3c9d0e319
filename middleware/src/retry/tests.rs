use bytes::Bytes;
use http::HeaderValue;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use parking_lot::Mutex;
use tonic::{Code, Status};
use tower::{service_fn, util::BoxCloneService};

use super::*;
use crate::{
    context::{self, Context as RequestContext},
    deadline::{self, CallDeadline},
    rejection::{Retry as Advice, reasons},
    request_context::PREVIOUS_ATTEMPTS_HEADER,
};

type Answer = Result<Response<Full<Bytes>>, Rejection>;

/// What the server saw of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    after_ms: u128,
    body: Bytes,
    previous_attempts: Option<HeaderValue>,
}

/// A server with prepared answers; the last is given for ever.
#[derive(Clone)]
struct Server {
    seen: Arc<Mutex<Vec<Seen>>>,
    layer: RetryLayer,
    answer: fn(usize) -> Answer,
}

const PATH: &str = "/a.B/Get";

#[expect(clippy::unnecessary_wraps, reason = "one of several answers")]
fn status(code: Code) -> Answer {
    Ok(Status::new(code, "").into_http())
}

fn pushback(code: Code, value: &'static str) -> Answer {
    let mut answer = status(code)?;
    answer.headers_mut().insert(PUSHBACK_HEADER, HeaderValue::from_static(value));
    Ok(answer)
}

impl Server {
    fn new(config: &Config, answer: fn(usize) -> Answer) -> Self {
        let layer = RetryLayer::new("products", config, [PATH].into_iter().collect());
        Self { seen: Arc::default(), layer, answer }
    }

    fn answering(answer: fn(usize) -> Answer) -> Self {
        Self::new(&Config::default(), answer)
    }

    async fn call(&self, request: Request<Body>) -> Result<Response<Peeked<Full<Bytes>>>, Rejection> {
        let (this, start) = (self.clone(), Instant::now());
        let service = BoxCloneService::new(service_fn(move |request: Request<Body>| {
            let this = this.clone();
            async move {
                let (parts, body) = request.into_parts();
                let seen = Seen {
                    after_ms: start.elapsed().as_millis(),
                    body: body.collect().await.expect("a body").to_bytes(),
                    previous_attempts: parts.headers.get(PREVIOUS_ATTEMPTS_HEADER).cloned(),
                };
                let mut all = this.seen.lock();
                all.push(seen);
                (this.answer)(all.len())
            }
        }));
        self.layer.layer(service).call(request).await
    }

    /// Calls an idempotent method and tells how many attempts that took and with which code it ended.
    async fn attempts(&self) -> (usize, Code, Advice) {
        let answer = self.call(get()).await;
        let (code, advice) = match &answer {
            Ok(response) => (Code::from_bytes(response.headers()["grpc-status"].as_bytes()), advice(response.headers())),
            Err(rejection) => (rejection.reason().grpc, rejection.retry()),
        };
        (self.seen.lock().len(), code, advice)
    }
}

fn get() -> Request<Body> {
    Request::post(PATH).body(Body::new(Full::new(Bytes::from_static(b"message")))).unwrap()
}

fn post() -> Request<Body> {
    Request::post("/a.B/Post").body(Body::empty()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn tries_three_times_and_says_so() {
    let server = Server::answering(|_| status(Code::Unavailable));
    assert_eq!(server.attempts().await, (3, Code::Unavailable, Advice::Never));
    let seen = server.seen.lock();
    assert_eq!(seen.iter().map(|seen| seen.previous_attempts.clone()).collect::<Vec<_>>(), [None, Some(1.into()), Some(2.into())]);
    assert!(seen.iter().all(|seen| seen.body == "message"));
}

#[tokio::test(start_paused = true)]
async fn is_content_with_the_first_success() {
    let server = Server::answering(|attempt| status(if attempt == 1 { Code::Unavailable } else { Code::Ok }));
    assert_eq!(server.attempts().await, (2, Code::Ok, Advice::Silent));
    assert_eq!(Server::answering(|_| status(Code::Ok)).attempts().await, (1, Code::Ok, Advice::Silent));
}

#[tokio::test(start_paused = true)]
async fn only_what_may_pass_is_tried_again() {
    for (answer, attempts) in [
        ((|_| status(Code::NotFound)) as fn(usize) -> Answer, 1),
        (|_| status(Code::Internal), 1),
        (|_| status(Code::Aborted), 1),
        (|_| status(Code::ResourceExhausted), 1),
        (|_| pushback(Code::ResourceExhausted, "5"), 3),
        (|_| status(Code::DeadlineExceeded), 3),
        (|_| Err(deadline::elapsed(Duration::from_secs(1))), 3),
        (|_| Err(Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "circuit open: products")), 1),
        (|_| Err(Rejection::new(&reasons::OVERLOADED, "")), 1),
        (|_| Err(Rejection::internal("no key to sign with")), 1),
    ] {
        let server = Server::answering(answer);
        assert_eq!(server.attempts().await.0, attempts, "{:?}", answer(1));
    }
}

#[tokio::test(start_paused = true)]
async fn what_must_not_happen_twice_is_not_repeated() {
    let server = Server::answering(|_| status(Code::Unavailable));
    let answer = server.call(post()).await.unwrap();
    assert_eq!(server.seen.lock().len(), 1);
    assert_eq!(advice(answer.headers()), Advice::Silent, "nobody has tried again: our caller may");
}

#[tokio::test(start_paused = true)]
async fn what_the_server_knows_by_a_key_is_repeated() {
    let server = Server::answering(|_| status(Code::Unavailable));
    let mut request = post();
    request.extensions_mut().insert(IdempotencyKeyed);
    server.call(request).await.unwrap();
    assert_eq!(server.seen.lock().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_server_decides_how_long_to_wait() {
    let server = Server::answering(|attempt| match attempt {
        1 => pushback(Code::Unavailable, "250"),
        _ => status(Code::Unavailable),
    });
    server.attempts().await;
    let after: Vec<u128> = server.seen.lock().iter().map(|seen| seen.after_ms).collect();
    assert_eq!(after[1], 250);
    assert!(after[2] <= 301, "the back-off begins anew, with at most 50 ms: {after:?}");
}

#[tokio::test(start_paused = true)]
async fn the_server_can_forbid_it() {
    for answer in [
        (|_| pushback(Code::Unavailable, "-1")) as fn(usize) -> Answer,
        |_| pushback(Code::Unavailable, "abc"),
        |_| pushback(Code::Unavailable, ""),
    ] {
        assert_eq!(Server::answering(answer).attempts().await.0, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn does_not_wait_past_the_deadline() {
    let server = Server::answering(|_| pushback(Code::Unavailable, "5000"));
    let mut request = get();
    request.extensions_mut().insert(CallDeadline(Instant::now() + Duration::from_secs(5)));
    let start = Instant::now();
    let answer = server.call(request).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(answer.headers()["grpc-status"], "14", "the real error, not a timeout");
}

#[tokio::test(start_paused = true)]
async fn attempts_that_hang_leave_room_for_others_within_the_deadline() {
    let attempts = Arc::new(Mutex::new(0));
    let counted = attempts.clone();
    let hangs = service_fn(move |_: Request<Body>| {
        *counted.lock() += 1;
        std::future::pending::<Answer>()
    });
    let inner = deadline::AttemptTimeoutLayer::new("products", Duration::from_millis(100)).layer(hangs);
    let layer = RetryLayer::new("products", &Config { max_attempts: 5, base_ms: 1, ..Config::default() }, [PATH].into_iter().collect());
    let mut request = get();
    let start = Instant::now();
    request.extensions_mut().insert(CallDeadline(start + Duration::from_millis(500)));
    let refusal = layer.layer(inner).call(request).await.unwrap_err();
    assert_eq!(refusal.reason(), &reasons::DEADLINE_EXCEEDED);
    assert!(*attempts.lock() >= 3);
    assert!(start.elapsed() <= Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn does_not_retry_what_our_caller_retries() {
    let server = Server::answering(|_| status(Code::Unavailable));
    let mut context = RequestContext::background();
    context.previous_attempts = 1;
    assert_eq!(context::scope(context, server.attempts()).await, (1, Code::Unavailable, Advice::Silent));
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_budget_ends_retries_and_says_so() {
    let server = Server::new(&Config { tokens: 4, ..Config::default() }, |_| status(Code::Unavailable));
    assert_eq!(server.attempts().await, (2, Code::Unavailable, Advice::Never));
    assert_eq!(server.attempts().await, (3, Code::Unavailable, Advice::Never));
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_sent_once() {
    let server = Server::answering(|_| status(Code::Unavailable));
    let mut waited = false;
    let slow = futures_util::stream::poll_fn(move |cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(None);
        }
        cx.waker().wake_by_ref();
        Poll::<Option<Result<Frame<Bytes>, Status>>>::Pending
    });
    server.call(get().map(|_| Body::new(StreamBody::new(slow)))).await.unwrap();
    assert_eq!(server.seen.lock().len(), 1);
}

/// How often a server is called that answers OK and then with these frames.
async fn calls_when_the_body_is(frames: fn() -> Vec<Result<Frame<Bytes>, Status>>) -> usize {
    let calls = Arc::new(Mutex::new(0));
    let counted = calls.clone();
    let service = BoxCloneService::new(service_fn(move |_: Request<Body>| {
        *counted.lock() += 1;
        std::future::ready(Ok::<_, Rejection>(Response::new(StreamBody::new(futures_util::stream::iter(frames())))))
    }));
    let layer = RetryLayer::new("products", &Config::default(), [PATH].into_iter().collect());
    let _ = layer.layer(service).call(get()).await.unwrap().into_body().collect().await;
    *calls.lock()
}

fn unavailable() -> HeaderMap {
    Status::unavailable("").into_http::<()>().into_parts().0.headers
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_final_once_it_has_data() {
    assert_eq!(calls_when_the_body_is(|| vec![Ok(Frame::data(Bytes::from_static(b"x"))), Ok(Frame::trailers(unavailable()))]).await, 1);
    assert_eq!(calls_when_the_body_is(|| vec![Ok(Frame::trailers(unavailable()))]).await, 3);
    assert_eq!(calls_when_the_body_is(|| vec![Err(Status::unknown("reset"))]).await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_retry_does_not_queue() {
    let layer = RetryLayer::new("products", &Config::default(), [PATH].into_iter().collect());
    let (mock, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Full<Bytes>>>();
    handle.allow(1);
    let inner = mock.map_err(|error| Rejection::internal(error.to_string()));
    let mut retry = layer.layer(inner);
    let call = crate::task::spawn(async move { retry.ready().await?.call(get()).await });
    let (_, respond) = handle.next_request().await.unwrap();
    respond.send_response(status(Code::Unavailable).unwrap());
    let answer = call.await.unwrap().unwrap();
    assert_eq!(answer.headers()["grpc-status"], "14");
}
