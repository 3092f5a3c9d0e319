use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use tower::{ServiceExt, service_fn};

use super::*;
use crate::{deadline, rejection::reasons};

const LIMIT: Duration = Duration::from_secs(1);

/// Returns the timeout sent with an attempt.
async fn timeout_sent(request: Request<()>) -> Result<Duration, Rejection> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let mut sender = Some(sender);
    let server = service_fn(move |request: Request<()>| {
        let timeout = grpc_timeout::parse(&request.headers()[grpc_timeout::HEADER]).expect("a timeout");
        sender.take().expect("called once").send(timeout).expect("the test waits");
        std::future::ready(Ok::<_, Rejection>(Response::new(Empty::<Bytes>::new())))
    });
    AttemptTimeoutLayer::new("products", LIMIT).layer(server).oneshot(request).await?;
    Ok(receiver.await.expect("the server was called"))
}

fn until(left: Duration) -> Request<()> {
    let mut request = Request::new(());
    request.extensions_mut().insert(CallDeadline(TimeLimit::operator(Instant::now(), left)));
    request
}

#[tokio::test(start_paused = true)]
async fn attempt_sends_the_earliest_limit() {
    assert_eq!(timeout_sent(Request::new(())).await.unwrap(), LIMIT);
    assert_eq!(timeout_sent(until(LIMIT * 2)).await.unwrap(), LIMIT);
    assert_eq!(timeout_sent(until(LIMIT / 2)).await.unwrap(), LIMIT / 2);
}

#[tokio::test(start_paused = true)]
async fn inner_layers_see_the_attempt_deadline() {
    for (call, attempt) in [(LIMIT * 2, LIMIT), (LIMIT / 2, LIMIT / 2)] {
        let inside = service_fn(async |request: Request<()>| {
            let deadline = request.extensions().get::<CallDeadline>().expect("a call deadline").0;
            Err::<Response<Empty<Bytes>>, _>(deadline::elapsed(deadline.remaining(Instant::now())))
        });
        let refusal = AttemptTimeoutLayer::new("products", LIMIT).layer(inside).oneshot(until(call)).await.unwrap_err();
        let left = std::error::Error::source(&refusal).expect("the source").downcast_ref::<deadline::Elapsed>().expect("ours");
        assert_eq!(left.0, attempt);
    }
}

#[tokio::test(start_paused = true)]
async fn attempt_never_raises_a_given_timeout() {
    for (set, sent) in [(LIMIT / 4, LIMIT / 4), (LIMIT * 4, LIMIT)] {
        let mut request = Request::new(());
        request.headers_mut().insert(grpc_timeout::HEADER, grpc_timeout::format(set));
        assert_eq!(timeout_sent(request).await.unwrap(), sent);
    }
}

#[tokio::test(start_paused = true)]
async fn attempt_after_deadline_is_rejected() {
    assert_eq!(timeout_sent(until(Duration::ZERO)).await.unwrap_err().reason(), &reasons::DEADLINE_EXCEEDED);
}

#[tokio::test(start_paused = true)]
async fn attempt_times_out_on_a_hanging_server() {
    let server = service_fn(|_: Request<()>| std::future::pending::<Result<Response<Empty<Bytes>>, Rejection>>());
    let start = Instant::now();
    let refusal = AttemptTimeoutLayer::new("products", LIMIT).layer(server).oneshot(Request::new(())).await.unwrap_err();
    assert_eq!(refusal.reason(), &reasons::DEADLINE_EXCEEDED);
    assert_eq!(start.elapsed(), LIMIT);
}

#[tokio::test(start_paused = true)]
async fn http_attempt_sends_no_timeout_but_limits_body() {
    let server = service_fn(|request: Request<()>| {
        assert!(request.headers().is_empty(), "{:?}", request.headers());
        let endless = http_body_util::StreamBody::new(futures_util::stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>());
        std::future::ready(Ok::<_, Rejection>(Response::new(endless)))
    });
    let start = Instant::now();
    let layer = AttemptTimeoutLayer::new("idp", LIMIT).over(Protocol::Http);
    let answer = layer.layer(server).oneshot(Request::new(())).await.unwrap();
    let late = answer.into_body().collect().await.unwrap_err();
    assert!(late.is::<deadline::Elapsed>(), "{late}");
    assert_eq!(start.elapsed(), LIMIT);
}
