use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use tower::ServiceExt;

use super::*;
use crate::{
    context::{Context, Principal},
    method_table::{Access, Method},
    protocol::Protocol,
    rejection::reasons,
};

static WATCH: Method = Method::http("GET", "/watch", Access::Public).streaming();
static READ: Method = Method::http("GET", "/read", Access::Public);
static DOCUMENT: Method = Method::http("GET", "/docs", Access::Public).static_content();
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
async fn request_permit_is_held_until_the_response() {
    let limit = RequestLimit::new(1);
    let mut hanging = ConcurrencyLimitLayer(limit.clone())
        .layer(tower::service_fn(|_: Request<()>| std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()));
    let service = ConcurrencyLimitLayer(limit).layer(tower::service_fn(respond));
    let first = hanging.call(request(&READ, "a"));
    let rejected = service.clone().oneshot(request(&READ, "a")).await.unwrap_err();
    assert_eq!(rejected.reason(), &reasons::OVERLOADED);
    for exempt in [&HEALTH, &DOCUMENT] {
        assert!(service.clone().oneshot(request(exempt, "a")).await.is_ok());
    }
    drop(first);
    let _unread = service.clone().oneshot(request(&READ, "a")).await.unwrap();
    assert!(service.oneshot(request(&READ, "a")).await.is_ok());
}

#[tokio::test]
async fn greedy_caller_leaves_permits_to_others() {
    let mut service = ConcurrencyLimitLayer(RequestLimit::new(16))
        .layer(tower::service_fn(|_: Request<()>| std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()));
    let _greedy: Vec<_> = (0..14).map(|_| service.call(request(&READ, "greedy"))).collect();
    assert_eq!(service.call(request(&READ, "greedy")).await.unwrap_err().reason(), &reasons::RATE_LIMITED);
    let mut other = Box::pin(service.call(request(&READ, "other")));
    assert!(futures_util::poll!(&mut other).is_pending());
}

#[tokio::test]
async fn bulkhead_is_shared_by_the_callers_of_this_process() {
    let mut service = ConcurrencyLimitLayer(Bulkhead::new("products", 16))
        .layer(tower::service_fn(|_: Request<()>| std::future::pending::<Result<Response<Full<Bytes>>, Rejection>>()));
    let on_behalf_of = |user: &'static str| Context::background().on_behalf_of(Arc::new(Principal::on_behalf_of(user)));
    let mut calls = Vec::new();
    crate::context::scope(on_behalf_of("greedy"), async {
        calls.extend((0..14).map(|_| service.call(Request::new(()))));
        assert_eq!(service.call(Request::new(())).await.unwrap_err().reason(), &reasons::RATE_LIMITED);
    })
    .await;
    crate::context::scope(on_behalf_of("other"), async {
        let mut other = Box::pin(service.call(Request::new(())));
        assert!(futures_util::poll!(&mut other).is_pending());
    })
    .await;
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

#[tokio::test]
async fn anonymous_streams_are_limited_by_address() {
    let service = ConcurrencyLimitLayer(StreamLimit::new(Protocol::Http, 100, 2)).layer(tower::service_fn(respond));
    let open = |method, address: &str| {
        let mut request = Request::new(());
        request.extensions_mut().insert(Context {
            method: Some(method),
            client_address: Some(address.parse().unwrap()),
            ..Context::background()
        });
        service.clone().oneshot(request)
    };
    // Watches of the health service have a count of their own.
    for method in [&WATCH, &HEALTH] {
        let (_first, _second) = (open(method, "192.0.2.1").await.unwrap(), open(method, "192.0.2.1").await.unwrap());
        assert_eq!(open(method, "192.0.2.1").await.err().unwrap().reason(), &reasons::RATE_LIMITED);
        assert!(open(method, "192.0.2.2").await.is_ok());
    }
}

#[tokio::test]
async fn stream_limit_keeps_a_reserve_for_newcomers() {
    let service = ConcurrencyLimitLayer(StreamLimit::new(Protocol::Http, 16, 100)).layer(tower::service_fn(respond));
    let mut open = Vec::new();
    while let Ok(stream) = service.clone().oneshot(request(&WATCH, "greedy")).await {
        open.push(stream);
    }
    assert_eq!(open.len(), 14);
    assert!(service.oneshot(request(&WATCH, "other")).await.is_ok());
}
