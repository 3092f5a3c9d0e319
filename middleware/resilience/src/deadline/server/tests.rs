use bytes::Bytes;
use futures_util::stream;
use http::HeaderValue;
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use metrics_exporter_prometheus::PrometheusBuilder;
use tower::{ServiceExt, service_fn};

use super::*;
use crate::{deadline::Elapsed, grpc_status};

const DEFAULT: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(30);

fn request(header: HeaderName, value: &'static str) -> Request<()> {
    let mut request = Request::new(());
    request.headers_mut().insert(header, HeaderValue::from_static(value));
    request.extensions_mut().insert(context::Context::background());
    request
}

/// Returns the time that the handler sees in its context.
async fn limit_seen_inside(protocol: Protocol, request: Request<()>) -> Result<Duration, Rejection> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let mut sender = Some(sender);
    let handler = service_fn(move |request: Request<()>| {
        let deadline = context::Context::of(&request).and_then(|context| context.deadline).expect("a deadline").at();
        sender.take().expect("called once").send(deadline - Instant::now()).expect("the test waits");
        std::future::ready(Ok::<_, Rejection>(Response::new(Empty::<Bytes>::new())))
    });
    DeadlineLayer::new(protocol, DEFAULT, MAX).layer(handler).oneshot(request).await?;
    Ok(receiver.await.expect("the handler was called"))
}

#[tokio::test(start_paused = true)]
async fn deadline_follows_caller_up_to_maximum() {
    for (text, limit) in
        [("100m", Duration::from_millis(100)), ("1H", MAX), ("99999999H", MAX), ("10", DEFAULT), ("1X", DEFAULT), ("-1m", DEFAULT)]
    {
        let limit_seen = limit_seen_inside(Protocol::Grpc, request(grpc_timeout::HEADER, text)).await;
        assert_eq!(limit_seen.unwrap(), limit, "{text}");
    }
    for (text, limit) in [("100", Duration::from_millis(100)), ("18446744073709551615", MAX)] {
        let limit_seen = limit_seen_inside(Protocol::Http, request(REQUEST_TIMEOUT_HEADER, text)).await;
        assert_eq!(limit_seen.unwrap(), limit, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn malformed_grpc_timeout_is_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _local = metrics::set_default_local_recorder(&recorder);
    for text in ["999999999S", "10", "-1m", "1X", "100m"] {
        assert!(limit_seen_inside(Protocol::Grpc, request(grpc_timeout::HEADER, text)).await.is_ok());
    }
    let shown = recorder.handle().render();
    assert!(shown.lines().any(|line| line.starts_with("palisade_") && line.contains("parse_errors") && line.ends_with(" 4")), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn each_protocol_reads_its_own_timeout_header() {
    let limit = limit_seen_inside(Protocol::Http, request(grpc_timeout::HEADER, "1m")).await;
    assert_eq!(limit.unwrap(), DEFAULT);
    let limit = limit_seen_inside(Protocol::Grpc, request(REQUEST_TIMEOUT_HEADER, "1")).await;
    assert_eq!(limit.unwrap(), DEFAULT);
}

#[tokio::test(start_paused = true)]
async fn malformed_http_timeout_is_rejected() {
    for text in ["", "10s", "-1", "+5", "1.5", "0", "00", "99999999999999999999"] {
        let refusal = limit_seen_inside(Protocol::Http, request(REQUEST_TIMEOUT_HEADER, text)).await.unwrap_err();
        assert_eq!(refusal.reason(), &reasons::INVALID_PARAMETER, "{text:?}");
    }
    let mut twice = request(REQUEST_TIMEOUT_HEADER, "100");
    twice.headers_mut().append(REQUEST_TIMEOUT_HEADER, HeaderValue::from_static("100"));
    assert_eq!(limit_seen_inside(Protocol::Http, twice).await.unwrap_err().reason(), &reasons::INVALID_PARAMETER);
}

#[tokio::test(start_paused = true)]
async fn expired_grpc_request_does_not_reach_handler() {
    for zero in ["0n", "0S", "00000000H"] {
        let refusal = limit_seen_inside(Protocol::Grpc, request(grpc_timeout::HEADER, zero)).await.unwrap_err();
        assert_eq!(refusal.reason(), &reasons::DEADLINE_EXCEEDED, "{zero}");
    }
}

#[tokio::test(start_paused = true)]
async fn late_handler_is_dropped() {
    let (dropped, gone) = tokio::sync::oneshot::channel::<()>();
    let mut dropped = Some(dropped);
    let handler = service_fn(move |_: Request<()>| {
        let dropped = dropped.take();
        async move {
            let _dropped = dropped;
            std::future::pending::<Result<Response<Empty<Bytes>>, Rejection>>().await
        }
    });
    let start = Instant::now();
    let answer = DeadlineLayer::new(Protocol::Grpc, DEFAULT, MAX).layer(handler).oneshot(request(grpc_timeout::HEADER, "100m")).await;
    assert_eq!(answer.unwrap_err().reason(), &reasons::DEADLINE_EXCEEDED);
    assert_eq!(start.elapsed().as_millis(), 100);
    assert!(gone.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn timeout_of_a_callers_time_is_marked() {
    let timed_out = async |protocol, header: HeaderName, text| {
        let hangs = service_fn(|_: Request<()>| std::future::pending::<Result<Response<Empty<Bytes>>, Rejection>>());
        DeadlineLayer::new(protocol, DEFAULT, MAX).layer(hangs).oneshot(request(header, text)).await.unwrap_err()
    };
    for (text, callers) in [("100m", true), ("9S", true), ("10S", false), ("1H", false), ("1X", false)] {
        let rejection = timed_out(Protocol::Grpc, grpc_timeout::HEADER, text).await;
        assert_eq!((rejection.reason(), rejection.is_due_to_caller()), (&reasons::DEADLINE_EXCEEDED, callers), "{text}");
    }
    for (text, callers) in [("100", true), ("60000", false)] {
        assert_eq!(timed_out(Protocol::Http, REQUEST_TIMEOUT_HEADER, text).await.is_due_to_caller(), callers, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn confirmed_claim_makes_the_timeout_the_operators() {
    for (protocol, actor, callers) in
        [(Protocol::Grpc, Some("gateway"), false), (Protocol::Grpc, None, true), (Protocol::Http, Some("gateway"), true)]
    {
        let hangs = service_fn(move |mut request: Request<()>| {
            // As the authentication and authorization layers do.
            let mut principal = context::Principal::on_behalf_of("alice");
            principal.actor = actor.map(str::to_owned);
            let context = request.extensions_mut().get_mut::<context::Context>().unwrap();
            context.principal = Some(principal.into());
            crate::deadline::apply_inbound_origin(&mut request);
            std::future::pending::<Result<Response<Empty<Bytes>>, Rejection>>()
        });
        let (name, text) = match protocol {
            Protocol::Grpc => (grpc_timeout::HEADER, "100m"),
            Protocol::Http => (REQUEST_TIMEOUT_HEADER, "100"),
        };
        let mut request = request(name, text);
        request.headers_mut().insert(crate::deadline::DEADLINE_ORIGIN_HEADER, HeaderValue::from_static("operator"));
        let rejection = DeadlineLayer::new(protocol, DEFAULT, MAX).layer(hangs).oneshot(request).await.unwrap_err();
        assert_eq!(rejection.is_due_to_caller(), callers, "{protocol:?} {actor:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn handler_is_not_started_after_the_deadline() {
    let handler = service_fn(|_: Request<()>| async { panic!("started late") as Result<Response<Empty<Bytes>>, Rejection> });
    let call = DeadlineLayer::new(Protocol::Grpc, DEFAULT, MAX).layer(handler).call(request(grpc_timeout::HEADER, "1m"));
    // The task of the request is not polled in time, as on a busy machine.
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(call.await.unwrap_err().reason(), &reasons::DEADLINE_EXCEEDED);
}

/// A body of one frame that then stalls.
fn stalling_body() -> impl Body<Data = Bytes, Error = std::convert::Infallible> + Unpin {
    let first = stream::iter([Ok(Frame::data(Bytes::from_static(b"x")))]);
    StreamBody::new(Box::pin(futures_util::StreamExt::chain(first, stream::pending())))
}

async fn answer_that_stalls(protocol: Protocol) -> TimeoutBody<impl Body<Data = Bytes, Error = std::convert::Infallible> + Unpin> {
    let handler = service_fn(async |_: Request<()>| Ok::<_, Rejection>(Response::new(stalling_body())));
    let answer = DeadlineLayer::new(protocol, DEFAULT, MAX).layer(handler).oneshot(Request::new(())).await;
    let mut body = answer.unwrap().into_body();
    assert!(body.frame().await.unwrap().unwrap().is_data());
    body
}

#[tokio::test(start_paused = true)]
async fn late_grpc_body_ends_with_deadline_exceeded() {
    let mut body = answer_that_stalls(Protocol::Grpc).await;
    let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(grpc_status::from_headers(&trailers), Some(tonic::Code::DeadlineExceeded));
    assert!(trailers.contains_key("grpc-status-details-bin"));
    assert!(body.is_end_stream());
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn late_http_body_is_truncated() {
    let mut body = answer_that_stalls(Protocol::Http).await;
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(error.downcast::<Elapsed>().unwrap().0, DEFAULT);
}

mod counted;

mod streams {
    use futures_util::{StreamExt, stream};
    use http_body_util::StreamBody;

    use super::*;
    use crate::{
        context::Context,
        method_table::{Access, Method},
    };

    static WATCH: Method = Method::http("GET", "/watch", Access::Public).streaming();

    fn watch_request(timeout: Option<&str>) -> Request<()> {
        let mut context = Context::background();
        context.method = Some(&WATCH);
        let mut request = Request::new(());
        request.extensions_mut().insert(context);
        if let Some(timeout) = timeout {
            request.headers_mut().insert(REQUEST_TIMEOUT_HEADER, timeout.parse().unwrap());
        }
        request
    }

    /// A stream of one chunk per second without end.
    async fn ticks(request: Request<()>) -> Result<Response<impl Body<Data = bytes::Bytes, Error = std::convert::Infallible>>, Rejection> {
        assert_eq!(Context::of(&request).unwrap().deadline.is_some(), request.headers().contains_key(REQUEST_TIMEOUT_HEADER));
        let ticks = stream::repeat(()).then(async |()| {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(http_body::Frame::data(bytes::Bytes::from("tick")))
        });
        Ok(Response::new(StreamBody::new(Box::pin(ticks))))
    }

    #[tokio::test(start_paused = true)]
    async fn stream_ends_only_at_the_callers_timeout() {
        use http_body_util::BodyExt;
        let layer = DeadlineLayer::new(Protocol::Http, Duration::from_secs(2), Duration::from_secs(3));
        let mut endless = layer.layer(tower::service_fn(ticks)).call(watch_request(None)).await.unwrap().into_body();
        for _ in 0..100 {
            assert!(endless.frame().await.unwrap().is_ok());
        }
        let bounded = layer.layer(tower::service_fn(ticks)).call(watch_request(Some("5500"))).await.unwrap().into_body();
        assert_eq!(bounded.collect().await.unwrap().to_bytes().len(), 5 * "tick".len());
    }

    #[tokio::test(start_paused = true)]
    async fn stream_without_head_times_out() {
        let never = tower::service_fn(|_: Request<()>| std::future::pending::<Result<Response<String>, Rejection>>());
        let refused =
            DeadlineLayer::new(Protocol::Http, Duration::from_secs(2), Duration::from_secs(3)).layer(never).call(watch_request(None)).await;
        assert_eq!(refused.unwrap_err().reason(), &reasons::DEADLINE_EXCEEDED);
    }
}
