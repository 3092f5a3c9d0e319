use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{StreamExt, poll, stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tower::ServiceExt;

use super::*;
use crate::{
    context::Principal,
    method_table::{Access, Method},
};

const MAX: usize = 8;
const TIMEOUT: Duration = Duration::from_secs(10);

type Frames = Pin<Box<dyn stream::Stream<Item = Result<Frame<Bytes>, BoxError>> + Send>>;

/// A body that never ends after `text`.
fn unfinished(text: &'static str) -> StreamBody<Frames> {
    let first = stream::iter([Ok(Frame::data(Bytes::from_static(text.as_bytes())))]);
    StreamBody::new(Box::pin(first.chain(stream::pending())))
}

fn request<B>(method: &'static Method, caller: &'static str, body: B) -> Request<B> {
    let context = Context { method: Some(method), ..Context::background().on_behalf_of(Arc::new(Principal::on_behalf_of(caller))) };
    Request::builder().extension(context).body(body).unwrap()
}

static WRITE: Method = Method::http("POST", "/things", Access::Public);
static HEALTH: Method = Method::grpc("/h.H/Check", Access::Public).infrastructure();
static UPLOAD: Method = Method::grpc("/a.B/Upload", Access::Public).request_stream();

/// Collects the body; an error becomes its text.
async fn collect<B>(request: Request<PrefetchedBody<B>>) -> Result<Response<String>, Infallible>
where
    B: Body<Error: Into<BoxError>> + Unpin,
{
    let body = BodyExt::collect(request.into_body()).await;
    Ok(Response::new(body.map_or_else(|error| error.to_string(), |body| String::from_utf8(body.to_bytes().to_vec()).unwrap())))
}

#[tokio::test(start_paused = true)]
async fn body_on_its_way_takes_a_receiving_permit_only() {
    let layer = RequestBodyLayer::new(MAX, TIMEOUT, 16);
    let called = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let saw = called.clone();
    let service = layer.layer(tower::service_fn(move |request: Request<PrefetchedBody<_>>| {
        saw.store(true, std::sync::atomic::Ordering::Relaxed);
        collect(request)
    }));
    let mut waiting = Box::pin(service.oneshot(request(&WRITE, "a", unfinished("x"))));
    assert!(poll!(&mut waiting).is_pending());
    assert!(!called.load(std::sync::atomic::Ordering::Relaxed));
    let rejected = waiting.await.unwrap_err();
    assert_eq!(rejected.reason(), &reasons::REQUEST_TIMEOUT);
    assert!(!called.load(std::sync::atomic::Ordering::Relaxed));
    assert!((0..10).all(|_| layer.0.receiving[0].try_acquire(CallerKey::number(1)).is_ok()));
}

#[tokio::test(start_paused = true)]
async fn timeout_is_the_earlier_of_deadline_and_setting() {
    let service = RequestBodyLayer::new(MAX, TIMEOUT, 16).layer(tower::service_fn(collect));
    for (deadline, expected) in [(None, TIMEOUT), (Some(TIMEOUT * 2), TIMEOUT), (Some(TIMEOUT / 4), TIMEOUT / 4)] {
        let mut request = request(&WRITE, "a", unfinished("x"));
        let started = Instant::now();
        request.extensions_mut().get_mut::<Context>().unwrap().deadline = deadline.map(|left| TimeLimit::operator(started, left));
        let rejected = service.clone().oneshot(request).await.unwrap_err();
        assert_eq!((rejected.reason(), started.elapsed()), (&reasons::REQUEST_TIMEOUT, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn greedy_caller_leaves_room_for_slow_requests_of_others() {
    let service = RequestBodyLayer::new(MAX, TIMEOUT, 16).layer(tower::service_fn(collect));
    let open = |caller: &'static str| Box::pin(service.clone().oneshot(request(&WRITE, caller, unfinished("x"))));
    let mut greedy: Vec<_> = (0..14).map(|_| open("greedy")).collect();
    for one in &mut greedy {
        assert!(poll!(one).is_pending());
    }
    assert_eq!(open("greedy").await.unwrap_err().reason(), &reasons::RATE_LIMITED);
    assert!(poll!(&mut open("other")).is_pending());
    // A complete request needs no permit.
    let whole = StreamBody::new(Box::pin(stream::iter([Ok(Frame::data(Bytes::from("abc")))])) as Frames);
    assert_eq!(service.clone().oneshot(request(&WRITE, "greedy", whole)).await.unwrap().body(), "abc");
}

#[tokio::test(start_paused = true)]
async fn slow_health_checks_are_limited_apart() {
    let service = RequestBodyLayer::new(MAX, TIMEOUT, 16).layer(tower::service_fn(collect));
    let open = |method: &'static Method| Box::pin(service.clone().oneshot(request(method, "greedy", unfinished("x"))));
    let mut writes: Vec<_> = (0..14).map(|_| open(&WRITE)).collect();
    let mut checks: Vec<_> = (0..14).map(|_| open(&HEALTH)).collect();
    for one in writes.iter_mut().chain(&mut checks) {
        assert!(poll!(one).is_pending());
    }
    assert_eq!(open(&HEALTH).await.unwrap_err().reason(), &reasons::RATE_LIMITED);
}

#[tokio::test]
async fn body_above_maximum_ends_with_an_error() {
    let service = RequestBodyLayer::new(MAX, TIMEOUT, 16).layer(tower::service_fn(collect));
    let answer = service.clone().oneshot(request(&WRITE, "a", unfinished("longer than 8"))).await.unwrap();
    assert_eq!(answer.body(), "the body is longer than 8 bytes");
    // Not received at all if its length is declared.
    let mut declared = request(&WRITE, "a", unfinished(""));
    declared.headers_mut().insert(header::CONTENT_LENGTH, 9.into());
    assert_eq!(service.oneshot(declared).await.unwrap().body(), "the body is longer than 8 bytes");
}

#[tokio::test]
async fn request_stream_is_passed_on_at_once() {
    let handler = tower::service_fn(async |mut request: Request<PrefetchedBody<StreamBody<Frames>>>| {
        let first = request.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        Ok::<_, Infallible>(Response::new(first))
    });
    let service = RequestBodyLayer::new(MAX, TIMEOUT, 16).layer(handler);
    assert_eq!(service.oneshot(request(&UPLOAD, "a", unfinished("first"))).await.unwrap().body(), "first");
}
