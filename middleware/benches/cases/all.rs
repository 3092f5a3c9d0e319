//! Benchmark cases: each layer alone around a trivial service, stateful components, and both
//! stacks.

use std::{cell::Cell, convert::Infallible, sync::Arc, time::Duration};

use futures_util::FutureExt;
use http::{Request, Response};
use palisade_middleware::{
    adaptive_limit::{self, AdaptiveLimitLayer},
    attempt_metrics::AttemptMetricsLayer,
    auth::{AuthenticateLayer, AuthorizeLayer, CredentialsLayer, InternalTokens, TokenPolicy},
    caller,
    catch_panic::CatchPanicLayer,
    circuit_breaker::{self, Breaker, CallOutcome, CircuitBreakerLayer},
    client::{self, balance::Balancer},
    clock::SystemClock,
    concurrency_limit::{Bulkhead, ConcurrencyLimitLayer, RequestLimit},
    deadline::{AttemptTimeoutLayer, DeadlineLayer, TotalDeadlineLayer},
    fault_injection::{FaultLayer, Faults},
    method_table::MethodTable,
    metrics::{Boundary, MetricsLayer},
    rate_limit::{self, AddressLimitLayer, RateLimitLayer},
    rejection::Rejection,
    request_context::{CurrentContextLayer, RequestContextLayer},
    respond::{Protocol, RespondLayer},
    retry::{self, MethodContracts, RetryLayer},
    server::{self, http_guard::HttpGuardLayer},
    streams::StreamsLayer,
    telemetry::{self, Telemetry, TrustBoundary},
    tls::PeerIdentityLayer,
    trace::{ClientTraceLayer, ServerTraceLayer},
};
use tokio::time::Instant;
use tonic::body::Body;
use tower::{Layer, Service, ServiceBuilder};

mod fixture;

use self::fixture::{Caller, METHODS, inner, signing_key};

/// One case; each call of `run_once` runs it once.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) group: Group,
    pub(crate) run_once: Box<dyn FnMut()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Component,
    /// Creates, handles and reads a request without layers; subtracted from the rows of this side.
    Baseline(Side),
    Layer(Side),
    Stack(Side),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Client,
}

/// Returns all cases. Must be called and run within a tokio runtime with timers.
pub(crate) fn all() -> Vec<Case> {
    // Typical request: metrics are enabled and its trace is not sampled.
    Telemetry::install(("bench", &["bench"]), TrustBoundary::Internal, &telemetry::Config::default(), false)
        .expect("telemetry is installed once");
    let caller = Arc::new(Caller::new());
    let mut cases = Vec::new();
    components(&caller, &mut cases);
    cases.push(caller.case("baseline: server request without layers", Group::Baseline(Side::Server), inner::<Infallible>()));
    server_layers(&caller, &mut cases);
    cases.push(caller.case("baseline: client call without layers", Group::Baseline(Side::Client), inner::<Infallible>()));
    client_layers(&caller, &mut cases);
    stacks(&caller, &mut cases);
    cases
}

fn components(caller: &Arc<Caller>, cases: &mut Vec<Case>) {
    let once = || {
        std::hint::black_box((Instant::now(), Instant::now()));
    };
    cases.push(Case { name: "two clock reads", group: Group::Component, run_once: Box::new(once) });
    let breaker = Breaker::new("bench", &circuit_breaker::Config::default());
    let once = move || {
        let permit = breaker.acquire(Instant::now(), None).expect("the breaker is closed");
        permit.report(CallOutcome::Success.into(), None, Instant::now());
    };
    cases.push(Case { name: "circuit breaker: acquire, record, two clock reads", group: Group::Component, run_once: Box::new(once) });
    let (mut balancer, of) = (balancer(), caller.clone());
    let once = move || drop(balancer.call(of.request(Side::Client)));
    cases.push(Case { name: "P2C pick of three endpoints, request built and dropped", group: Group::Component, run_once: Box::new(once) });
    let caller = caller.clone();
    let once = move || {
        let verified = caller.verifier.verify(&caller.token).now_or_never();
        std::hint::black_box(verified.expect("the call never waits").is_ok());
    };
    cases.push(Case { name: "JWT verification, cached token", group: Group::Component, run_once: Box::new(once) });
}

/// Load balancer with three addresses.
fn balancer() -> Balancer {
    /// Layer that captures the service it wraps.
    struct CaptureLayer<'a>(&'a Cell<Option<Balancer>>);

    impl Layer<Balancer> for CaptureLayer<'_> {
        type Service = Balancer;

        fn layer(&self, inner: Balancer) -> Balancer {
            self.0.set(Some(inner.clone()));
            inner
        }
    }

    let captured = Cell::new(None);
    let config = client::Config::at("http://127.0.0.1:1,http://127.0.0.1:2,http://127.0.0.1:3");
    client::connect("bench", &config, MethodContracts::default(), CaptureLayer(&captured)).expect("valid configuration");
    captured.take().expect("the layer wrapped the balancer")
}

fn table() -> Arc<MethodTable> {
    Arc::new(MethodTable::new(&[&METHODS]).expect("valid method table"))
}

fn server_layers(caller: &Arc<Caller>, cases: &mut Vec<Case>) {
    let group = Group::Layer(Side::Server);
    let (second, hour) = (Duration::from_secs(1), Duration::from_hours(1));
    let limit = rate_limit::Config { per_second: 1_000_000_000, burst: 1_000_000_000 };
    let adaptive_limit = AdaptiveLimitLayer::new(Protocol::Grpc, &adaptive_limit::Config::default());
    let address_limit =
        rate_limit::AddressConfig { per_second: 1_000_000_000, burst: 1_000_000_000, ..rate_limit::AddressConfig::default() };
    let address_limit = AddressLimitLayer::new(&address_limit);
    let streams = StreamsLayer::new(Protocol::Grpc, std::time::Duration::from_mins(10));
    cases.extend([
        caller.case("RequestContextLayer", group, RequestContextLayer(table()).layer(inner::<Infallible>())),
        caller.case("ServerTraceLayer", group, ServerTraceLayer::new(Protocol::Grpc).layer(inner::<Infallible>())),
        caller.case("MetricsLayer (server)", group, MetricsLayer::new(Boundary::GrpcServer).layer(inner::<Infallible>())),
        caller.case("RespondLayer", group, RespondLayer(Protocol::Grpc).layer(inner::<Rejection>())),
        caller.case("DeadlineLayer", group, DeadlineLayer::new(Protocol::Grpc, second, hour).layer(inner::<Infallible>())),
        caller.case("HttpGuardLayer", group, HttpGuardLayer(Protocol::Http).layer(inner::<Infallible>())),
        caller.case("ConcurrencyLimitLayer", group, ConcurrencyLimitLayer(RequestLimit::new(1_024)).layer(inner::<Infallible>())),
        caller.case("AddressLimitLayer, peer address inserted", group, with_peer_address(address_limit)),
        caller.case("AuthenticateLayer, cached token", group, AuthenticateLayer(caller.verifier.clone()).layer(inner::<Infallible>())),
        caller.case("PeerIdentityLayer", group, PeerIdentityLayer.layer(inner::<Infallible>())),
        caller.case("AuthorizeLayer", group, AuthorizeLayer(Protocol::Grpc).layer(inner::<Infallible>())),
        caller.case("RateLimitLayer", group, RateLimitLayer::new(Protocol::Grpc, &limit).layer(inner::<Infallible>())),
        caller.case("StreamsLayer, no stream", group, streams.layer(inner::<Infallible>())),
        caller.case("AdaptiveLimitLayer", group, adaptive_limit.layer(inner::<Infallible>())),
        caller.case("CatchPanicLayer", group, CatchPanicLayer::new().layer(inner::<Infallible>())),
        caller.case("FaultLayer", group, FaultLayer(Faults::disabled()).layer(inner::<Infallible>())),
        caller.case("CurrentContextLayer", group, CurrentContextLayer.layer(inner::<Infallible>())),
    ]);
}

/// Wraps a service in `layer`, and inserts the peer address like the accept loop.
fn with_peer_address(layer: AddressLimitLayer) -> impl Service<Request<Body>, Response = Response<Body>, Error = Rejection> {
    let peer = caller::Peer(([127, 0, 0, 1], 5_000).into());
    let with_peer = move |mut request: Request<Body>| {
        request.extensions_mut().insert(peer);
        request
    };
    ServiceBuilder::new().map_request(with_peer).layer(layer).service(inner::<Infallible>())
}

fn client_layers(caller: &Arc<Caller>, cases: &mut Vec<Case>) {
    let group = Group::Layer(Side::Client);
    let trace = ClientTraceLayer { protocol: Protocol::Grpc, server_address: "127.0.0.1".into(), server_port: Some(5_000) };
    let second = Duration::from_secs(1);
    cases.extend([
        caller.case("ClientTraceLayer", group, trace.layer(inner::<Infallible>())),
        caller.case("MetricsLayer (client)", group, MetricsLayer::new(Boundary::GrpcClient("bench".into())).layer(inner::<Infallible>())),
        caller.case(
            "TotalDeadlineLayer",
            group,
            TotalDeadlineLayer { limit: second, min_attempt: Duration::ZERO }.layer(inner::<Rejection>()),
        ),
        caller.case("BulkheadLayer", group, ConcurrencyLimitLayer(Bulkhead::new("bench", 256)).layer(inner::<Rejection>())),
        caller.case(
            "RetryLayer",
            group,
            RetryLayer::new("bench", &retry::Config::default(), MethodContracts::default()).layer(inner::<Rejection>()),
        ),
        caller.case("AttemptMetricsLayer", group, AttemptMetricsLayer::new(Protocol::Grpc, "bench").layer(inner::<Rejection>())),
        caller.case(
            "CircuitBreakerLayer",
            group,
            CircuitBreakerLayer::new("bench", &circuit_breaker::Config::default()).layer(inner::<Rejection>()),
        ),
        caller.case("AttemptTimeoutLayer", group, AttemptTimeoutLayer::new("bench", second).layer(inner::<Rejection>())),
        caller.case("CredentialsLayer, cached token", group, credentials().layer(inner::<Rejection>())),
    ]);
}

fn credentials() -> CredentialsLayer {
    let tokens = InternalTokens::new("bench", TokenPolicy::OnBehalfOfUser, signing_key(), Arc::new(SystemClock));
    CredentialsLayer::new(Arc::new(tokens), "bench")
}

fn stacks(caller: &Arc<Caller>, cases: &mut Vec<Case>) {
    let config =
        server::Config { rate_limit: rate_limit::Config { per_second: 1_000_000_000, burst: 1_000_000_000 }, ..server::Config::default() };
    let server = server::stack(Protocol::Grpc, inner::<Infallible>(), table(), caller.verifier.clone(), Faults::disabled(), &config);
    cases.push(caller.case("server stack", Group::Stack(Side::Server), server));

    let config = client::Config::at("http://127.0.0.1:1");
    let client = client::stack("bench", &config, MethodContracts::default(), credentials(), inner::<Rejection>());
    cases.push(caller.case("client stack", Group::Stack(Side::Client), client.expect("valid configuration")));
}
