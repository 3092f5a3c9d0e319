use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody as Pieces};
use tower::ServiceExt;

use super::*;
use crate::{
    auth::Principal,
    context::Context,
    grpc_status,
    method_table::{Access, Method},
    rejection::reasons,
    server::Config,
};

static WATCH: Method = Method::http("GET", "/watch", Access::Public).streaming();
static READ: Method = Method::http("GET", "/read", Access::Public);
static HEALTH: Method = Method::grpc("/h.H/Watch", Access::Public).infrastructure().streaming();

type Events = Pin<Box<dyn stream::Stream<Item = Result<http_body::Frame<Bytes>, Infallible>> + Send>>;

/// A stream of one chunk that then stays open.
async fn events<B>(_: Request<B>) -> Result<Response<Pieces<Events>>, Infallible> {
    let first = stream::iter([Ok(http_body::Frame::data(Bytes::from("news")))]);
    Ok(Response::new(Pieces::new(Box::pin(first.chain(stream::pending())))))
}

fn request(method: &'static Method, caller: &str, leaving: &ConnectionDraining) -> Request<()> {
    let mut context = Context::background().on_behalf_of(Arc::new(Principal::on_behalf_of(caller)));
    context.method = Some(method);
    let mut request = Request::new(());
    request.extensions_mut().insert(context);
    request.extensions_mut().insert(leaving.clone());
    request
}

fn config() -> Config {
    Config { max_streams: 3, max_streams_per_caller: 2, max_stream_age_ms: 1_000, ..Config::default() }
}

#[tokio::test]
async fn streams_are_limited_in_total_and_per_caller() {
    let (service, leaving) = (StreamsLayer::new(Protocol::Http, &config()).layer(tower::service_fn(events)), ConnectionDraining::default());
    let open = |method, caller| service.clone().oneshot(request(method, caller, &leaving));
    let (first, _second) = (open(&WATCH, "a").await.unwrap(), open(&WATCH, "a").await.unwrap());
    assert_eq!(open(&WATCH, "a").await.err().unwrap().reason(), &reasons::RATE_LIMITED);
    let _third = open(&WATCH, "b").await.unwrap();
    assert_eq!(open(&WATCH, "b").await.err().unwrap().reason(), &reasons::OVERLOADED);
    assert!(open(&READ, "b").await.is_ok() && open(&HEALTH, "b").await.is_ok());
    drop(first);
    assert!(open(&WATCH, "a").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn http_stream_ends_on_drain_or_maximum_age() {
    let service = StreamsLayer::new(Protocol::Http, &config()).layer(tower::service_fn(events));
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
    let service = StreamsLayer::new(Protocol::Grpc, &config()).layer(tower::service_fn(events));
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
