use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use tower::{ServiceExt, service_fn};

use super::*;
use crate::{deadline, rejection::reasons};

const LIMIT: Duration = Duration::from_secs(1);

/// The timeout that goes out with an attempt.
async fn timeout_sent(request: Request<()>) -> Result<Duration, Rejection> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let mut tell = Some(tell);
    let server = service_fn(move |request: Request<()>| {
        let timeout = grpc_timeout::parse(&request.headers()[grpc_timeout::HEADER]).expect("a timeout");
        tell.take().expect("called once").send(timeout).expect("the test waits");
        std::future::ready(Ok::<_, Rejection>(Response::new(Empty::<Bytes>::new())))
    });
    AttemptTimeoutLayer::new("products", LIMIT).layer(server).oneshot(request).await?;
    Ok(told.await.expect("the server was called"))
}

fn until(left: Duration) -> Request<()> {
    let mut request = Request::new(());
    request.extensions_mut().insert(CallDeadline(Instant::now() + left));
    request
}

#[tokio::test(start_paused = true)]
async fn tells_the_server_the_nearest_limit() {
    assert_eq!(timeout_sent(Request::new(())).await.unwrap(), LIMIT);
    assert_eq!(timeout_sent(until(LIMIT * 2)).await.unwrap(), LIMIT);
    assert_eq!(timeout_sent(until(LIMIT / 2)).await.unwrap(), LIMIT / 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_inside_knows_when_its_attempt_is_over() {
    for (call, attempt) in [(LIMIT * 2, LIMIT), (LIMIT / 2, LIMIT / 2)] {
        let inside = service_fn(async |request: Request<()>| {
            let deadline = request.extensions().get::<CallDeadline>().expect("it was there").0;
            Err::<Response<Empty<Bytes>>, _>(deadline::elapsed(deadline - Instant::now()))
        });
        let refusal = AttemptTimeoutLayer::new("products", LIMIT).layer(inside).oneshot(until(call)).await.unwrap_err();
        let left = std::error::Error::source(&refusal).expect("the source").downcast_ref::<deadline::Elapsed>().expect("ours");
        assert_eq!(left.0, attempt);
    }
}

#[tokio::test(start_paused = true)]
async fn never_raises_a_timeout_that_is_already_set() {
    for (set, sent) in [(LIMIT / 4, LIMIT / 4), (LIMIT * 4, LIMIT)] {
        let mut request = Request::new(());
        request.headers_mut().insert(grpc_timeout::HEADER, grpc_timeout::format(set));
        assert_eq!(timeout_sent(request).await.unwrap(), sent);
    }
}

#[tokio::test(start_paused = true)]
async fn sends_nothing_after_the_deadline() {
    assert_eq!(timeout_sent(until(Duration::ZERO)).await.unwrap_err().reason(), &reasons::DEADLINE_EXCEEDED);
}

#[tokio::test(start_paused = true)]
async fn gives_up_on_a_server_that_hangs() {
    let server = service_fn(|_: Request<()>| std::future::pending::<Result<Response<Empty<Bytes>>, Rejection>>());
    let start = Instant::now();
    let refusal = AttemptTimeoutLayer::new("products", LIMIT).layer(server).oneshot(Request::new(())).await.unwrap_err();
    assert_eq!(refusal.reason(), &reasons::DEADLINE_EXCEEDED);
    assert_eq!(start.elapsed(), LIMIT);
}

#[tokio::test(start_paused = true)]
async fn an_http_server_is_told_nothing_and_its_body_held_to_the_limit_all_the_same() {
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
