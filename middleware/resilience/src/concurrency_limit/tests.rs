use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use tower::ServiceExt;

use super::*;
use crate::{
    context::{Context, Principal},
    method_table::{Access, Method},
    rejection::reasons,
    respond::Protocol,
};

static WATCH: Method = Method::http("GET", "/watch", Access::Public).streaming();
static READ: Method = Method::http("GET", "/read", Access::Public);
static HEALTH: Method = Method::grpc("/h.H/Watch", Access::Public).infrastructure().streaming();

async fn respond(_: Request<()>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from("x"))))
}

fn request(method: &'static Method, caller: &'static str) -> Request<()> {
    let mut context = Context::background().on_behalf_of(Arc::new(Principal::on_behalf_of(caller)));
    context.method = Some(method);
    let mut request = Request::new(());
    request.extensions_mut().insert(context);
    request
}

#[tokio::test]
async fn request_permit_is_held_until_body_end() {
    let service = ConcurrencyLimitLayer(RequestLimit::new(1)).layer(tower::service_fn(respond));
    let first = service.clone().oneshot(request(&READ, "a")).await.unwrap();
    let rejected = service.clone().oneshot(request(&READ, "a")).await.unwrap_err();
    assert_eq!(rejected.reason(), &reasons::OVERLOADED);
    assert!(service.clone().oneshot(request(&HEALTH, "a")).await.is_ok());
    first.into_body().collect().await.unwrap();
    assert!(service.oneshot(request(&READ, "a")).await.is_ok());
}

#[tokio::test]
async fn bulkhead_rejects_above_limit_until_body_end() {
    let service = ConcurrencyLimitLayer(Bulkhead::new("products", 1)).layer(tower::service_fn(respond));
    let first = service.clone().oneshot(Request::new(())).await.unwrap();
    let rejected = service.clone().oneshot(Request::new(())).await.unwrap_err();
    assert_eq!(rejected.reason(), &reasons::OVERLOADED);
    first.into_body().collect().await.unwrap();
    assert!(service.oneshot(Request::new(())).await.is_ok());
}

#[tokio::test]
async fn bulkhead_permit_returns_when_call_is_dropped() {
    let bulkhead = Bulkhead::new("products", 1);
    let pending = |_: Request<()>| std::future::pending::<Result<Response<Full<Bytes>>, Rejection>>();
    let mut service = ConcurrencyLimitLayer(bulkhead.clone()).layer(tower::service_fn(pending));
    drop(service.call(Request::new(())));
    assert!(bulkhead.try_acquire(&Request::new(())).is_ok());
}

#[tokio::test]
async fn bulkhead_permit_of_a_stream_ends_with_head() {
    let service = ConcurrencyLimitLayer(Bulkhead::new("products", 1)).layer(tower::service_fn(respond));
    let stream = || {
        let mut request = Request::new(());
        request.extensions_mut().insert(crate::streams::IsStreaming);
        request
    };
    let _unread = service.clone().oneshot(stream()).await.unwrap();
    assert!(service.oneshot(stream()).await.is_ok());
}

#[tokio::test]
async fn stream_limits_hold_in_total_and_per_caller() {
    let service = ConcurrencyLimitLayer(StreamLimit::new(Protocol::Http, 3, 2)).layer(tower::service_fn(respond));
    let open = |method, caller| service.clone().oneshot(request(method, caller));
    let (first, _second) = (open(&WATCH, "a").await.unwrap(), open(&WATCH, "a").await.unwrap());
    assert_eq!(open(&WATCH, "a").await.err().unwrap().reason(), &reasons::RATE_LIMITED);
    let _third = open(&WATCH, "b").await.unwrap();
    assert_eq!(open(&WATCH, "b").await.err().unwrap().reason(), &reasons::OVERLOADED);
    assert!(open(&READ, "b").await.is_ok() && open(&HEALTH, "b").await.is_ok());
    drop(first);
    assert!(open(&WATCH, "a").await.is_ok());
}
