//! What is measured: each layer alone around a service that answers at once, the parts that have state, and both stacks.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    marker::PhantomData,
    sync::Arc,
    task::{Context as Task, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use palisade_middleware::{
    adaptive_limit::{self, AdaptiveLimitLayer},
    auth::{
        AuthenticateLayer, AuthorizeLayer, CredentialsLayer, Grant, InternalTokens, Issuer, UserToken, Verifier, jwks::KeySet,
        keys::SigningKey, mint_user_token,
    },
    bulkhead::BulkheadLayer,
    catch_panic::CatchPanicLayer,
    circuit_breaker::{self, Breaker, CircuitBreakerLayer, Verdict},
    client,
    clock::{Clock, SystemClock},
    context::{self, Context},
    deadline::{AttemptTimeoutLayer, DeadlineLayer, TotalDeadlineLayer},
    fault::{FaultLayer, Faults},
    load_shed::LoadShedLayer,
    method_table::{Access, Method, MethodTable},
    metrics::{Hop, MetricsLayer},
    rate_limit::{self, AddressLimitLayer, RateLimitLayer},
    rejection::Rejection,
    request_context::{RequestContextLayer, ScopeLayer},
    respond::{Protocol, RespondLayer},
    retry::{self, IdempotentMethods, RetryLayer},
    server::{self, http_guard::HttpGuardLayer},
    streams::StreamsLayer,
    tls::ActorLayer,
    trace::{ClientTraceLayer, ServerTraceLayer},
};
use tokio::time::Instant;
use tonic::body::Body;
use tower::{Layer, Service, ServiceBuilder};

/// One thing that is measured: each call does it once.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) group: Group,
    pub(crate) once: Box<dyn FnMut()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// A request made, answered and read, with no layer: what every other row has been relieved of.
    Baseline,
    Part,
    ServerLayer,
    ClientLayer,
    Stack,
}

const PATH: &str = "/bench.v1.Bench/Get";

static METHODS: [Method; 1] = [Method::grpc(PATH, Access::Scope("bench:read"))];

/// Answers at once, with the status of a gRPC success.
struct Inner<E>(PhantomData<fn() -> E>);

impl<E> Clone for Inner<E> {
    fn clone(&self) -> Self {
        inner()
    }
}

fn inner<E>() -> Inner<E> {
    Inner(PhantomData)
}

impl<E, B> Service<Request<B>> for Inner<E> {
    type Response = Response<Body>;
    type Error = E;
    type Future = Ready<Result<Response<Body>, E>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        let mut response = Response::new(Body::new(Full::new(Bytes::from_static(b"\0\0\0\0\0"))));
        response.headers_mut().insert("grpc-status", http::HeaderValue::from_static("0"));
        ready(Ok(response))
    }
}

/// A caller whose token was verified.
struct Caller {
    verifier: Arc<Verifier>,
    token: String,
    context: Context,
}

impl Caller {
    fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let key = signing_key();
        let keys = KeySet::fixed(vec![key.trusted().expect("a key can be told")]);
        let issuer = Issuer { name: "bench".to_owned(), audience: "bench".to_owned(), internal: false, keys };
        let token = UserToken {
            subject: "alice".to_owned(),
            scope: "bench:read".to_owned(),
            issuer: "bench".to_owned(),
            audience: "bench".to_owned(),
            lifetime: Duration::from_hours(1),
        };
        let token = mint_user_token(&token, &key, clock.now().unix_timestamp()).expect("a token can be signed");
        let verifier = Arc::new(Verifier::new(vec![issuer], clock));
        let principal = verifier.verify(&token).now_or_never().expect("keys are there").expect("the token is good");
        let mut context = Context::background().on_behalf_of(principal).until(Instant::now() + Duration::from_hours(1));
        context.method = Some(&METHODS[0]);
        Self { verifier, token, context }
    }

    fn request(&self) -> Request<Body> {
        let mut request = Request::new(Body::new(Full::new(Bytes::from_static(b"\0\0\0\0\0"))));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = http::Uri::from_static(PATH);
        let token = http::HeaderValue::try_from(format!("Bearer {}", self.token)).expect("a token is ASCII");
        request.headers_mut().insert(header::AUTHORIZATION, token);
        request.headers_mut().insert(header::HOST, http::HeaderValue::from_static("bench"));
        request.extensions_mut().insert(self.context.clone());
        request
    }
}

impl Caller {
    fn case<S, R>(self: &Arc<Self>, name: &'static str, group: Group, mut service: S) -> Case
    where
        S: Service<Request<Body>, Response = Response<R>, Error: std::fmt::Debug> + 'static,
        R: http_body::Body,
    {
        let caller = self.clone();
        Case { name, group, once: Box::new(move || drive(&mut service, caller.request())) }
    }
}

fn signing_key() -> SigningKey {
    SigningKey::from_pem(&SigningKey::generate_pem().expect("randomness is there")).expect("it was made as PEM")
}

/// Calls `service` once and reads the answer to its end.
fn drive<S, R>(service: &mut S, request: Request<Body>)
where
    S: Service<Request<Body>, Response = Response<R>, Error: std::fmt::Debug>,
    R: http_body::Body,
{
    let response = service.call(request).now_or_never().expect("nothing waits here").expect("nothing is refused here");
    let body = response.into_body().collect().now_or_never().expect("the body is there");
    assert!(body.is_ok(), "and whole");
}

/// All cases. To be called, and used, within a tokio runtime with time.
pub(crate) fn all() -> Vec<Case> {
    // Durations go into buckets, as in a real process.
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().set_buckets(&[0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0]);
    let _installed = recorder.expect("there are buckets").install_recorder();
    let caller = Arc::new(Caller::new());
    let mut cases = vec![caller.case("no layer", Group::Baseline, inner::<Infallible>())];
    parts(&caller, &mut cases);
    server_layers(&caller, &mut cases);
    client_layers(&caller, &mut cases);
    stacks(&caller, &mut cases);
    cases
}

fn parts(caller: &Arc<Caller>, cases: &mut Vec<Case>) {
    let breaker = Breaker::new("bench", &circuit_breaker::Config::default());
    let once = move || {
        let permit = breaker.acquire(Instant::now(), None).expect("it is closed");
        permit.settle(Verdict::Success.into(), None, Instant::now());
    };
    cases.push(Case { name: "breaker: acquire and settle, two clock reads", group: Group::Part, once: Box::new(once) });
    let caller = caller.clone();
    let once = move || {
        let verified = caller.verifier.verify(&caller.token).now_or_never();
        std::hint::black_box(verified.expect("nothing waits here").is_ok());
    };
    cases.push(Case { name: "token that was verified before", group: Group::Part, once: Box::new(once) });
}

fn table() -> Arc<MethodTable> {
    Arc::new(MethodTable::new(&[&METHODS]).expect("one method conflicts with no other"))
}

fn server_layers(caller: &Arc<Caller>, cases: &mut Vec<Case>) {
    let group = Group::ServerLayer;
    let (second, hour) = (Duration::from_secs(1), Duration::from_hours(1));
    let limit = rate_limit::Config { per_second: 1_000_000_000, burst: 1_000_000_000 };
    let adaptive_limit = AdaptiveLimitLayer::new(Protocol::Grpc, &adaptive_limit::Config::default());
    let address_limit =
        rate_limit::AddressConfig { per_second: 1_000_000_000, burst: 1_000_000_000, ..rate_limit::AddressConfig::default() };
    let address_limit = AddressLimitLayer::new(&address_limit);
    let streams = StreamsLayer::new(Protocol::Grpc, &server::Config::default());
    cases.extend([
        caller.case("RequestContextLayer", group, RequestContextLayer(table()).layer(inner::<Infallible>())),
        caller.case("ServerTraceLayer", group, ServerTraceLayer::new(Protocol::Grpc).layer(inner::<Infallible>())),
        caller.case("MetricsLayer (server)", group, MetricsLayer::new(Hop::GrpcServer).layer(inner::<Infallible>())),
        caller.case("RespondLayer", group, RespondLayer(Protocol::Grpc).layer(inner::<Rejection>())),
        caller.case("DeadlineLayer", group, DeadlineLayer::new(Protocol::Grpc, second, hour).layer(inner::<Infallible>())),
        caller.case("HttpGuardLayer", group, HttpGuardLayer(Protocol::Http).layer(inner::<Infallible>())),
        caller.case("LoadShedLayer", group, LoadShedLayer::new(1_024).layer(inner::<Infallible>())),
        caller.case("AddressLimitLayer, and the address put into the request", group, from_somewhere(address_limit)),
        caller.case("AuthenticateLayer, known token", group, AuthenticateLayer(caller.verifier.clone()).layer(inner::<Infallible>())),
        caller.case("ActorLayer", group, ActorLayer.layer(inner::<Infallible>())),
        caller.case("AuthorizeLayer", group, AuthorizeLayer(Protocol::Grpc).layer(inner::<Infallible>())),
        caller.case("RateLimitLayer", group, RateLimitLayer::new(Protocol::Grpc, &limit).layer(inner::<Infallible>())),
        caller.case("StreamsLayer, no stream", group, streams.layer(inner::<Infallible>())),
        caller.case("AdaptiveLimitLayer", group, adaptive_limit.layer(inner::<Infallible>())),
        caller.case("CatchPanicLayer", group, CatchPanicLayer::new().layer(inner::<Infallible>())),
        caller.case("FaultLayer", group, FaultLayer(Faults::off()).layer(inner::<Infallible>())),
        caller.case("ScopeLayer", group, ScopeLayer.layer(inner::<Infallible>())),
    ]);
}

/// Behind `layer`, with the address in the request that the accept loop puts there.
fn from_somewhere(layer: AddressLimitLayer) -> impl Service<Request<Body>, Response = Response<Body>, Error = Rejection> {
    let peer = rate_limit::Peer(([127, 0, 0, 1], 5_000).into());
    let with_peer = move |mut request: Request<Body>| {
        request.extensions_mut().insert(peer);
        request
    };
    ServiceBuilder::new().map_request(with_peer).layer(layer).service(inner::<Infallible>())
}

fn client_layers(caller: &Arc<Caller>, cases: &mut Vec<Case>) {
    let group = Group::ClientLayer;
    let trace = ClientTraceLayer { protocol: Protocol::Grpc, server_address: "127.0.0.1".into(), server_port: Some(5_000) };
    let second = Duration::from_secs(1);
    cases.extend([
        caller.case("ClientTraceLayer", group, trace.layer(inner::<Infallible>())),
        caller.case("MetricsLayer (client)", group, MetricsLayer::new(Hop::GrpcClient("bench".into())).layer(inner::<Infallible>())),
        caller.case(
            "TotalDeadlineLayer",
            group,
            TotalDeadlineLayer { limit: second, min_attempt: Duration::ZERO }.layer(inner::<Rejection>()),
        ),
        caller.case("BulkheadLayer", group, BulkheadLayer::new("bench", 256).layer(inner::<Rejection>())),
        caller.case(
            "RetryLayer",
            group,
            RetryLayer::new("bench", &retry::Config::default(), IdempotentMethods::default()).layer(inner::<Rejection>()),
        ),
        caller.case(
            "CircuitBreakerLayer",
            group,
            CircuitBreakerLayer::new("bench", &circuit_breaker::Config::default()).layer(inner::<Rejection>()),
        ),
        caller.case("AttemptTimeoutLayer", group, AttemptTimeoutLayer::new("bench", second).layer(inner::<Rejection>())),
        caller.case("CredentialsLayer, known token", group, credentials().layer(inner::<Rejection>())),
    ]);
}

fn credentials() -> CredentialsLayer {
    let tokens = InternalTokens::new("bench", Grant::Users, signing_key(), Arc::new(SystemClock));
    CredentialsLayer::new(Arc::new(tokens), "bench")
}

fn stacks(caller: &Arc<Caller>, cases: &mut Vec<Case>) {
    let config =
        server::Config { rate_limit: rate_limit::Config { per_second: 1_000_000_000, burst: 1_000_000_000 }, ..server::Config::default() };
    let mut stack = server::stack(Protocol::Grpc, inner::<Infallible>(), table(), caller.verifier.clone(), Faults::off(), &config);
    let from_outside = caller.clone();
    let once = move || drive(&mut stack, from_outside.request());
    cases.push(Case { name: "server stack", group: Group::Stack, once: Box::new(once) });

    let config = client::Config::at("http://127.0.0.1:1");
    let client = client::stack("bench", &config, IdempotentMethods::default(), credentials(), inner::<Rejection>());
    let (mut client, caller) = (client.expect("the configuration is valid"), caller.clone());
    let once = move || {
        let call = context::scope(caller.context.clone(), async { drive(&mut client, caller.request()) });
        call.now_or_never().expect("nothing waits here");
    };
    cases.push(Case { name: "client stack", group: Group::Stack, once: Box::new(once) });
}
