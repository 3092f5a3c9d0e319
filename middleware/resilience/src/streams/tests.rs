use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody as Pieces};
use tower::ServiceExt;

use super::*;
use crate::{
    context::{Context, Principal},
    grpc_status,
    method_table::{Access, Method},
    rejection::reasons,
};

static WATCH: Method = Method::http("GET", "/watch", Access::Public).streaming();
static HEALTH: Method = Method::grpc("/h.H/Watch", Access::Public).infrastructure().streaming();

type Events = Pin<Box<dyn stream::Stream<Item = Result<http_body::Frame<Bytes>, Infallible>> + Send>>;

/// A stream of one chunk that then stays open.
async fn events<B>(_: Request<B>) -> Result<Response<Pieces<Events>>, Infallible> {
    let first = stream::iter([Ok(http_body::Frame::data(Bytes::from("news")))]);
    Ok(Response::new(Pieces::new(Box::pin(first.chain(stream::pending())))))
}

fn request(method: &'static Method, caller: &'static str, leaving: &ConnectionDraining) -> Request<()> {
    let mut context = Context::background().on_behalf_of(Arc::new(Principal::on_behalf_of(caller)));
    context.method = Some(method);
    let mut request = Request::new(());
    request.extensions_mut().insert(context);
    request.extensions_mut().insert(leaving.clone());
    request
}

const MAX_AGE: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn http_stream_ends_on_drain_or_maximum_age() {
    let service = StreamsLayer::new(Protocol::Http, MAX_AGE).layer(tower::service_fn(events));
    for by_age in [false, true] {
        let leaving = ConnectionDraining::default();
        let mut body = service.clone().oneshot(request(&WATCH, "a", &leaving)).await.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "news");
        let begun = tokio::time::Instant::now();
        if !by_age {
            leaving.notify();
        }
        assert!(body.frame().await.is_none());
        assert_eq!(begun.elapsed() >= Duration::from_millis(900), by_age);
        assert!(body.is_end_stream());
    }
}

#[tokio::test]
async fn grpc_stream_ends_with_stream_ended_on_drain() {
    let service = StreamsLayer::new(Protocol::Grpc, MAX_AGE).layer(tower::service_fn(events));
    for method in [&WATCH, &HEALTH] {
        let leaving = ConnectionDraining::default();
        let mut body = service.clone().oneshot(request(method, "a", &leaving)).await.unwrap().into_body();
        body.frame().await.unwrap().unwrap();
        leaving.notify();
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(grpc_status::from_headers(&trailers), Some(tonic::Code::Unavailable));
        let status = tonic::Status::from_header_map(&trailers).unwrap();
        assert_eq!(tonic_types::StatusExt::get_error_details(&status).error_info().unwrap().reason, "STREAM_ENDED");
        assert!(body.frame().await.is_none());
    }
}

/// Rejects the stream once `ended` is set.
#[derive(Debug, Default)]
struct Token {
    ended: std::sync::atomic::AtomicBool,
}

impl EndStream for Token {
    fn check(&self) -> Result<Duration, Rejection> {
        if self.ended.load(std::sync::atomic::Ordering::SeqCst) {
            Err(Rejection::new(&reasons::TOKEN_EXPIRED, "the token has expired"))
        } else {
            Ok(Duration::from_millis(100))
        }
    }
}

#[tokio::test(start_paused = true)]
async fn guard_ends_stream_with_its_rejection() {
    for (protocol, content_type) in
        [(Protocol::Grpc, "application/grpc"), (Protocol::Http, "text/event-stream"), (Protocol::Http, "text/plain")]
    {
        let handler = tower::service_fn(async move |request: Request<()>| {
            let mut response = events(request).await?;
            response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
            Ok::<_, Infallible>(response)
        });
        let (token, drain) = (Arc::new(Token::default()), ConnectionDraining::default());
        let mut request = request(&WATCH, "a", &drain);
        request.extensions_mut().insert(StreamGuard(token.clone()));
        let service = StreamsLayer::new(protocol, Duration::from_hours(1)).layer(handler);
        let mut body = service.oneshot(request).await.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "news");
        // Still open after several checks.
        assert!(tokio::time::timeout(Duration::from_secs(1), body.frame()).await.is_err());
        token.ended.store(true, std::sync::atomic::Ordering::SeqCst);
        let last = body.frame().await;
        match (protocol, content_type) {
            (Protocol::Grpc, _) => {
                let trailers = last.unwrap().unwrap().into_trailers().unwrap();
                let status = tonic::Status::from_header_map(&trailers).unwrap();
                assert_eq!(status.code(), tonic::Code::Unauthenticated);
                assert_eq!(tonic_types::StatusExt::get_error_details(&status).error_info().unwrap().reason, "TOKEN_EXPIRED");
            }
            (Protocol::Http, "text/event-stream") => {
                let text = String::from_utf8(last.unwrap().unwrap().into_data().unwrap().to_vec()).unwrap();
                let problem = text.strip_prefix("event: error\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
                let problem: serde_json::Value = serde_json::from_str(problem).unwrap();
                assert_eq!((&problem["code"], &problem["status"]), (&"token_expired".into(), &401.into()), "{problem}");
                assert!(problem["requestId"].is_string(), "{problem}");
            }
            (Protocol::Http, _) => assert!(last.is_none()),
        }
        assert!(body.frame().await.is_none());
    }
}
