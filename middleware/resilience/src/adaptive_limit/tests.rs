mod overload;

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::{poll, stream};
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tower::ServiceExt;

use super::{state::Occupancy, *};
use crate::{
    filter::Predicate,
    method_table::{Access, Method},
    priority::Priority,
    rejection::{Retry, reasons},
};

const MS: Duration = Duration::from_millis(1);

/// A constant limit.
fn fixed(limit: u32) -> AdaptiveLimitLayer {
    let config = Config { initial_limit: limit, min_limit: limit, max_limit: limit, ..Config::default() };
    AdaptiveLimitLayer::with_limiter(Protocol::Http, Some(Limiter::new(&config, || 0.999)))
}

fn occupancy(layer: &AdaptiveLimitLayer) -> Occupancy {
    layer.limiter.as_ref().unwrap().occupancy()
}

fn request(priority: Priority, deadline: Option<Instant>) -> Request<()> {
    let now = Instant::now();
    let deadline = deadline.map(|at| TimeLimit::operator(now, at.saturating_duration_since(now)));
    let context = Context { deadline, priority, ..Context::background() };
    Request::builder().extension(context).body(()).unwrap()
}

fn plain() -> Request<()> {
    request(Priority::Default, None)
}

#[tokio::test(start_paused = true)]
async fn only_operator_timeouts_lower_the_limit() {
    let second = MS * 1_000;
    for (limit, lowered) in [
        (TimeLimit::caller as fn(Instant, std::time::Duration, std::time::Duration) -> TimeLimit, false),
        (|now, time, _| TimeLimit::operator(now, time), true),
    ] {
        let layer = AdaptiveLimitLayer::new(Protocol::Http, &Config { initial_limit: 100, ..Config::default() });
        let mut service = layer.layer(tower::service_fn(|_: Request<()>| std::future::pending::<Result<Answer, Infallible>>()));
        let before = occupancy(&layer).limit;
        for _ in 0..5 {
            let calls: Vec<_> = (0..100)
                .map(|_| {
                    let context = Context { deadline: Some(limit(Instant::now(), second, 10 * second)), ..Context::background() };
                    service.call(Request::builder().extension(context).body(()).unwrap())
                })
                .collect();
            tokio::time::advance(second).await;
            drop(calls);
        }
        assert_eq!(occupancy(&layer).limit < before, lowered, "{}", occupancy(&layer).limit);
    }
}

type Answer = Response<Full<Bytes>>;

/// Returns a service that answers when the returned sender, of one request after the other, is
/// dropped.
fn gated(layer: &AdaptiveLimitLayer) -> (AdaptiveLimit<impl Service<Request<()>, Response = Answer, Error = Infallible> + Clone>, Gate) {
    let gate = Gate::default();
    let gates = gate.clone();
    let service = layer.layer(tower::service_fn(move |request: Request<()>| {
        let (open, opened) = tokio::sync::oneshot::channel::<()>();
        gates.lock().push_back(open);
        async move {
            let _ = opened.await;
            answer(request).await
        }
    }));
    (service, gate)
}

type Gate = Arc<parking_lot::Mutex<std::collections::VecDeque<tokio::sync::oneshot::Sender<()>>>>;

/// Responds immediately.
async fn answer(_: Request<()>) -> Result<Answer, Infallible> {
    Ok(Response::new(Full::new(Bytes::from("x"))))
}

#[tokio::test(start_paused = true)]
async fn permit_is_held_until_the_response_exists() {
    let layer = fixed(1);
    let (mut service, gate) = gated(&layer);
    let mut first = Box::pin(service.call(plain()));
    let mut second = Box::pin(service.call(plain()));
    assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
    assert_eq!((occupancy(&layer).in_use, occupancy(&layer).waiting), (1, 1));
    gate.lock().pop_front();
    // Its peer has not read it.
    let unread = first.await.unwrap();
    assert!(poll!(&mut second).is_pending());
    assert_eq!((occupancy(&layer).in_use, occupancy(&layer).waiting, layer.unread.get()), (1, 0, 1));
    gate.lock().pop_front();
    drop(second.await.unwrap());
    assert_eq!((occupancy(&layer).in_use, layer.unread.get()), (0, 1));
    unread.into_body().collect().await.unwrap();
    assert_eq!(layer.unread.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn response_in_pieces_holds_no_permit_for_its_reader() {
    let layer = fixed(1);
    let mut service = layer.layer(tower::service_fn(async |_: Request<()>| {
        let first = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from("x")))]);
        Ok::<_, Infallible>(Response::new(StreamBody::new(Box::pin(futures_util::StreamExt::chain(first, stream::pending())))))
    }));
    let response = service.call(plain()).await.unwrap();
    assert_eq!((occupancy(&layer).in_use, occupancy(&layer).sampled, layer.unread.get()), (0, 0, 1));
    drop(response);
    assert_eq!(layer.unread.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn cancelled_waiter_passes_its_permit_on() {
    let layer = fixed(1);
    let (mut service, gate) = gated(&layer);
    let first = service.call(plain());
    let [gone, given, mut next] = [(); 3].map(|()| Box::pin(service.call(plain())));
    drop(gone);
    assert_eq!(occupancy(&layer).waiting, 2);
    drop(first);
    // The permit is already assigned to `given`, which has not been polled since.
    assert!(poll!(&mut next).is_pending());
    drop(given);
    assert!(poll!(&mut next).is_pending());
    gate.lock().clear();
    drop(next.await.unwrap());
    assert_eq!((occupancy(&layer).in_use, occupancy(&layer).waiting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn expired_waiter_gets_no_permit() {
    let layer = fixed(1);
    let (mut service, gate) = gated(&layer);
    let first = service.call(plain());
    let late = service.call(request(Priority::Default, Some(Instant::now() + MS * 10)));
    let patient = service.call(plain());
    tokio::time::advance(MS * 10).await;
    drop(first);
    assert_eq!(late.await.unwrap_err().reason(), &reasons::DEADLINE_EXCEEDED);
    let mut patient = Box::pin(patient);
    assert!(poll!(&mut patient).is_pending());
    gate.lock().clear();
    assert!(patient.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn wait_ends_although_no_request_does() {
    let layer = fixed(1);
    let (mut service, _gate) = gated(&layer);
    let _first = service.call(plain());
    let started = Instant::now();
    let refusals = futures_util::future::join_all([(); 3].map(|()| service.call(plain()))).await;
    for refusal in refusals {
        assert_eq!(refusal.unwrap_err().reason(), &reasons::OVERLOADED);
    }
    // Target and interval of the queue.
    assert!((MS * 105..MS * 110).contains(&started.elapsed()), "{:?}", started.elapsed());
    assert_eq!((occupancy(&layer).in_use, occupancy(&layer).waiting), (1, 0));
    // In the standing queue of the next ones the target applies.
    let _next = service.call(plain());
}

#[tokio::test(start_paused = true)]
async fn full_queue_rejects_with_retry_after() {
    let layer = fixed(1);
    let (mut service, _gate) = gated(&layer);
    let _first = service.call(plain());
    let _waiting = [(); 32].map(|()| service.call(plain()));
    let refusal = service.call(plain()).await.unwrap_err();
    assert_eq!(refusal.reason(), &reasons::OVERLOADED);
    let Retry::After(wait) = refusal.retry() else { panic!("{:?}", refusal.retry()) };
    assert!((MS * 500..=MS * 1_500).contains(&wait), "{wait:?}");
    assert_eq!(occupancy(&layer).waiting, 32);
}

#[tokio::test(start_paused = true)]
async fn critical_requests_run_first_and_evict_batch() {
    let layer = fixed(1);
    let (mut service, gate) = gated(&layer);
    let first = service.call(plain());
    let mut batch: Vec<_> = (0..32).map(|_| Box::pin(service.call(request(Priority::Batch, None)))).collect();
    let mut critical = Box::pin(service.call(request(Priority::Critical, None)));
    assert_eq!(batch.pop().unwrap().await.unwrap_err().reason(), &reasons::OVERLOADED);
    assert!(poll!(&mut critical).is_pending());
    drop(first);
    assert!(poll!(&mut batch[0]).is_pending() && poll!(&mut critical).is_pending());
    gate.lock().clear();
    assert!(critical.await.is_ok());
    assert!(poll!(&mut batch[0]).is_pending());
    gate.lock().clear();
    assert!(batch.remove(0).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn overload_is_rejected_before_authentication() {
    let layer = fixed(80);
    let (mut service, _gate) = gated(&layer);
    let early = layer.early_rejection();
    let from = |token: &'static str, subject: Option<&'static str>| {
        static METHOD: Method = Method::http("GET", "/things", Access::Scope("things:read"));
        let mut context = Context { method: Some(&METHOD), ..Context::background() };
        context.principal = subject.map(|subject| Arc::new(crate::context::Principal::on_behalf_of(subject)));
        Request::builder().header("authorization", token).extension(context).body(()).unwrap()
    };
    assert!(early.check(from("Bearer a", None)).is_ok());
    let _calls: Vec<_> = (0..300).map(|_| service.call(from("Bearer a", Some("greedy")))).collect();
    // The token is known by now, and its caller has more than its share.
    assert_eq!(early.check(from("Bearer a", None)).unwrap_err().reason(), &reasons::RATE_LIMITED);
    assert!(early.check(from("Bearer b", None)).is_ok(), "an unknown token passes");
    let _modest = service.call(from("Bearer b", Some("modest")));
    assert!(early.check(from("Bearer b", None)).is_ok(), "a modest caller passes");
}

#[tokio::test(start_paused = true)]
async fn health_probe_bypasses_adaptive_limit() {
    static HEALTH: Method = Method::http("GET", "/livez", Access::Public).infrastructure();
    let layer = fixed(1);
    let mut service = layer.layer(tower::service_fn(answer));
    let mut probe = plain();
    probe.extensions_mut().get_mut::<Context>().unwrap().method = Some(&HEALTH);
    let _hanging = fixed(1).layer(tower::service_fn(answer)).call(plain());
    let _answer = service.call(probe).await.unwrap();
    assert_eq!(occupancy(&layer).in_use, 0);
}

#[tokio::test(start_paused = true)]
async fn disabled_limit_admits_all() {
    let mut service =
        AdaptiveLimitLayer::new(Protocol::Http, &Config { enabled: false, ..Config::default() }).layer(tower::service_fn(answer));
    let mut answers = Vec::new();
    for _ in 0..2_000 {
        answers.push(service.call(plain()).await.unwrap());
    }
}

/// A gRPC response of `messages` messages and status `code`; trailers-only without messages.
fn grpc(messages: u32, code: &'static str) -> Response<impl Body<Data = Bytes, Error = Infallible>> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    let mut response = Response::new(());
    if messages == 0 {
        response.headers_mut().extend(trailers.clone());
    }
    let data = (0..messages).map(|_| Frame::data(Bytes::from("message")));
    let frames: Vec<_> = data.chain((messages > 0).then(|| Frame::trailers(trailers))).map(Ok).collect();
    response.map(|()| StreamBody::new(stream::iter(frames)))
}

#[tokio::test(start_paused = true)]
async fn only_complete_unary_responses_are_sampled() {
    let layer = AdaptiveLimitLayer { protocol: Protocol::Grpc, ..fixed(8) };
    let mut counted = 0;
    // Messages, status, whether the request is sampled, though its response is not read.
    for (messages, code, counts) in [(1, "0", true), (0, "5", true), (2, "0", false), (1, "14", false), (0, "8", false), (0, "4", false)] {
        let inner = tower::service_fn(async |_: Request<()>| Ok::<_, Infallible>(grpc(messages, code)));
        drop(layer.layer(inner).oneshot(plain()).await.unwrap());
        counted += usize::from(counts);
        assert_eq!(occupancy(&layer).sampled, counted, "{messages} messages, status {code}");
    }
    assert_eq!(occupancy(&layer).in_use, 0);
}

#[tokio::test(start_paused = true)]
async fn timeout_is_sampled_and_cancellation_is_not() {
    let layer = fixed(8);
    let service = layer.layer(tower::service_fn(|_: Request<()>| std::future::pending::<Result<Answer, Infallible>>()));
    for (waits, counted) in [(MS * 9, 0), (MS * 10, 1)] {
        let call = service.clone().oneshot(request(Priority::Default, Some(Instant::now() + MS * 10)));
        assert!(tokio::time::timeout(waits, call).await.is_err());
        assert_eq!(occupancy(&layer).sampled, counted, "after {waits:?}");
    }
}
