use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use axum::extract::ConnectInfo;
use metrics_exporter_prometheus::PrometheusBuilder;
use tower::ServiceExt;

use super::*;
use crate::{
    caller::CallerKey,
    context::{Principal, Subject},
    method_table::{Access, Method},
};

fn request_from(subject: &'static str) -> Request<()> {
    let mut request = Request::new(());
    request.extensions_mut().insert(Context::background().on_behalf_of(Arc::new(Principal::on_behalf_of(subject))));
    request
}

#[tokio::test]
async fn rate_limit_is_per_principal() {
    let layer = RateLimitLayer::new(Protocol::Http, &Config { per_second: 1, burst: 2 });
    let service = layer.layer(tower::service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) }));
    let first = service.clone().oneshot(request_from("alice")).await.unwrap();
    assert_eq!(first.headers()[RATE_LIMIT], "\"default\";r=1;t=2");
    assert_eq!(first.headers()[RATE_LIMIT_POLICY], "\"default\";q=2;w=2");
    service.clone().oneshot(request_from("alice")).await.unwrap();
    let refused = service.clone().oneshot(request_from("alice")).await.unwrap_err();
    assert_eq!(refused.reason(), &reasons::RATE_LIMITED);
    assert!(service.oneshot(request_from("bob")).await.is_ok());
}

#[tokio::test]
async fn rate_limit_takes_the_cost_of_the_method() {
    static LIST: Method = Method::http("GET", "/things", Access::Public).cost(4);
    let layer = RateLimitLayer::new(Protocol::Http, &Config { per_second: 1, burst: 6 });
    let service = layer.layer(tower::service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) }));
    let mut list = request_from("alice");
    list.extensions_mut().get_mut::<Context>().unwrap().method = Some(&LIST);
    let first = service.clone().oneshot(list.clone()).await.unwrap();
    assert_eq!(first.headers()[RATE_LIMIT], "\"default\";r=2;t=6");
    assert_eq!(service.clone().oneshot(list).await.unwrap_err().reason(), &reasons::RATE_LIMITED);
    assert!(service.oneshot(request_from("alice")).await.is_ok());
}

#[tokio::test]
async fn callers_of_two_issuers_have_two_buckets() {
    let layer = RateLimitLayer::new(Protocol::Http, &Config { per_second: 1, burst: 1 });
    let service = layer.layer(tower::service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) }));
    // A subject has the prefix of its issuer.
    for issuer in ["a", "b"] {
        let principal = Principal { issuer: issuer.to_owned(), ..Principal::on_behalf_of(Subject::of_issuer(issuer, "1001").unwrap()) };
        let mut request = Request::new(());
        request.extensions_mut().insert(Context::background().on_behalf_of(Arc::new(principal)));
        assert!(service.clone().oneshot(request).await.is_ok(), "{issuer}");
    }
}

fn service(
    key: impl KeyExtractor,
    burst: u32,
) -> impl Service<Request<()>, Response = Response<()>, Error = Rejection, Future: Send> + Clone {
    let layer = RateLimitLayer::with_key(Protocol::Http, &Config { per_second: 1, burst }, key);
    layer.layer(tower::service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(()))))
}

#[tokio::test]
async fn requests_without_a_key_share_one_bucket() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let service = metrics::with_local_recorder(&recorder, || service(PrincipalKey, 2));
    let unknown_method = || {
        let mut request = Request::new(());
        request.extensions_mut().insert(Context::background());
        request
    };
    assert!(service.clone().oneshot(Request::new(())).await.is_ok(), "no context");
    assert!(service.clone().oneshot(unknown_method()).await.is_ok(), "no principal");
    assert_eq!(service.clone().oneshot(Request::new(())).await.unwrap_err().reason(), &reasons::RATE_LIMITED);
    assert!(service.oneshot(request_from("alice")).await.is_ok());
    let text = recorder.handle().render();
    assert!(text.contains("palisade_rate_limit_missing_keys{key=\"principal\"} 3"), "{text}");
}

#[tokio::test]
async fn public_methods_are_exempt_without_a_principal() {
    static PUBLIC: Method = Method::http("GET", "/things", Access::Public);
    let service = service(PrincipalKey, 1);
    for _ in 0..3 {
        let mut request = Request::new(());
        request.extensions_mut().insert(Context { method: Some(&PUBLIC), ..Context::background() });
        let response = service.clone().oneshot(request).await.unwrap();
        assert!(!response.headers().contains_key(RATE_LIMIT));
    }
}

#[tokio::test]
async fn rate_limit_is_per_header_address_or_closure() {
    let with_header = |value: &str| Request::builder().header("x-api-key", value).body(()).unwrap();
    let by_header = service(HeaderKey(HeaderName::from_static("x-api-key")), 1);
    let by_path = service(("path", |head: RequestHead<'_>| Some(CallerKey::of_value(head.uri.path()))), 1);
    let at_path = |path: &str| Request::get(path).body(()).unwrap();
    let by_address = service(AddressKey::default(), 1);
    let from = |address: &str| {
        let mut request = Request::new(());
        request.extensions_mut().insert(ConnectInfo::<SocketAddr>(address.parse().unwrap()));
        request
    };
    assert_separate(&by_header, with_header("a"), with_header("b")).await;
    assert_separate(&by_path, at_path("/a"), at_path("/b")).await;
    assert_separate(&by_address, from("192.0.2.1:1"), from("192.0.2.2:1")).await;
}

/// Asserts that each of two requests has a bucket of its own, for one request.
async fn assert_separate(
    service: &(impl Service<Request<()>, Response = Response<()>, Error = Rejection, Future: Send> + Clone),
    first: Request<()>,
    other: Request<()>,
) {
    assert!(service.clone().oneshot(first.clone()).await.is_ok());
    assert!(service.clone().oneshot(first).await.is_err());
    assert!(service.clone().oneshot(other).await.is_ok());
}
