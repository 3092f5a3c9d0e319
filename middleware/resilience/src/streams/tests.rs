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
};

static WATCH: Method = Method::http("GET", "/watch", Access::Public).streaming();
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
