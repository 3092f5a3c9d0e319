//! An application with names of its own, whose metrics recorder is installed after its layers are
//! made.

use std::ffi::OsString;

use http::{Request, Response};
use http_body_util::BodyExt;
use metrics_exporter_prometheus::PrometheusBuilder;
use palisade_middleware::{
    circuit_breaker::{self, Breaker},
    config::{self, Invocation, Validate},
    context::{Context, Principal},
    metrics::{Boundary, CATALOG, MetricsLayer, collect},
    naming::{self, Naming},
    rate_limit::{self, AddressConfig, AddressLimitLayer, RateLimitLayer},
    rejection::{Rejection, reasons},
    respond::{Protocol, RespondLayer},
    setting::Invalid,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tonic_types::StatusExt;
use tower::{Layer, ServiceBuilder, ServiceExt};

const SHOP: Naming = Naming {
    metric_prefix: "shop",
    error_domain: "shop.example",
    problem_base_uri: "https://shop.example/problems/",
    realm: "shop",
    environment_prefix: "SHOP_",
};

#[tokio::test]
async fn late_recorder_gets_all_series() {
    SHOP.install().unwrap();
    let handler = tower::service_fn(async |_: Request<()>| Ok::<_, Rejection>(Response::new(String::new())));
    let service = ServiceBuilder::new()
        .layer(MetricsLayer::new(Boundary::HttpServer))
        .layer(RespondLayer(Protocol::Http))
        .layer(AddressLimitLayer::new(&AddressConfig::default()))
        .layer(RateLimitLayer::new(Protocol::Http, &rate_limit::Config { per_second: 1, burst: 1 }))
        .service(handler);
    let breaker = Breaker::new("products", &circuit_breaker::Config::default());
    // One request passes, one is rejected before the recorder is there, and one after it.
    let send = async || {
        let mut request = Request::new(());
        let alice = Principal::on_behalf_of("alice");
        request.extensions_mut().insert(Context::background().on_behalf_of(alice.into()));
        drop(service.clone().oneshot(request).await.unwrap());
    };
    send().await;
    send().await;
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).unwrap();
    send().await;
    collect();
    let text = handle.render();
    for line in [
        "shop_requests_shed{reason=\"rate_limit\"} 2",
        // Never used.
        "shop_requests_shed{reason=\"address_limit\"} 0",
        "shop_breaker_state{target=\"products\",scope=\"target\",endpoint=\"\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(text.contains("http_server_request_duration"), "{text}");
    assert!(!text.contains("palisade"), "{text}");
    assert!(CATALOG.iter().all(|metric| !metric.exposed().contains("palisade")));
    drop(breaker);
}

#[tokio::test]
async fn responses_have_the_names_of_the_application() {
    SHOP.install().unwrap();
    let handler =
        tower::service_fn(async |_: Request<()>| Err::<Response<String>, _>(Rejection::new(&reasons::UNAUTHENTICATED, "no token")));
    let response = RespondLayer(Protocol::Http).layer(handler).oneshot(Request::new(())).await.unwrap();
    assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"shop\"");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem["type"], "https://shop.example/problems/unauthenticated");
    let status = Rejection::new(&reasons::NOT_FOUND, "no such thing").to_status();
    assert_eq!(status.get_details_error_info().unwrap().domain, "shop.example");
    assert_eq!(Rejection::from(status).reason(), &reasons::NOT_FOUND);
    let foreign = tonic_types::ErrorDetails::with_error_info("NOT_FOUND", "palisade", std::collections::HashMap::new());
    let foreign = tonic::Status::with_error_details(tonic::Code::Internal, "secret", foreign);
    assert_eq!(Rejection::from(foreign).reason(), &reasons::INTERNAL);
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// Number of workers.
    workers: u32,
}

impl Validate for Settings {
    fn validate(&self) -> Vec<Invalid> {
        Vec::new()
    }
}

#[test]
fn settings_have_the_prefix_of_the_application() {
    SHOP.install().unwrap();
    let matches = config::command::<Settings>("shop", "A shop.", &[]).try_get_matches_from(["shop"]).unwrap();
    let environment = [("PALISADE_WORKERS", "1"), ("SHOP_WORKERS", "7")].map(|(name, value)| (name.to_owned(), OsString::from(value)));
    let loaded = config::load_from::<Settings>(&matches, environment).unwrap();
    assert!(matches!(loaded.invocation, Invocation::Run(Settings { workers: 7 })), "{loaded:?}");
}

#[test]
fn other_names_are_refused() {
    SHOP.install().unwrap();
    SHOP.install().unwrap();
    let error = Naming { realm: "other", ..SHOP }.install().unwrap_err();
    assert!(error.to_string().contains("other"), "{error}");
    assert_eq!(naming::current(), &SHOP);
}
