//! Client stack for calls to another service, over gRPC ([`connect`]) and HTTP ([`http()`]).
//!
//! Layers from the outside in: trace, metrics, total deadline, bulkhead, retry, attempt metrics,
//! circuit breaker, attempt timeout, credentials, load balancer.
//!
//! ```
//! use palisade_middleware::{client, retry::MethodContracts};
//! use tower::layer::util::Identity;
//!
//! # tokio_test::block_on(async {
//! let config = client::Config::at("http://127.0.0.1:5000");
//! let products =
//!     client::connect("products", &config, MethodContracts::default(), Identity::new())?;
//! // products_service_client::ProductsServiceClient::new(products)
//! # let _ = products; Ok::<_, client::InvalidConfig>(()) }).unwrap();
//! ```

mod boxed;
mod config;
mod http;
pub mod jwks;

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use ::http::{Request, Response};
use bytes::Bytes;
use tokio_util::sync::DropGuard;
use tonic::{Status, body::Body};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, util::MapErr};

use palisade_discovery::{self as discovery, UpstreamUrl};
use palisade_resilience::{
    attempt_metrics::AttemptMetricsLayer,
    circuit_breaker::{BreakerHandle, CircuitBreakerLayer},
    concurrency_limit::{Bulkhead, ConcurrencyLimitLayer},
    deadline::{AttemptTimeoutLayer, TotalDeadlineLayer},
    metrics::{Boundary, MetricsLayer},
    rejection::Rejection,
    respond::{ClientRespondLayer, Protocol},
    retry::{MethodContracts, RetryLayer},
    streams::{IsStreaming, ResponseKind, UndeclaredResponse},
    trace::ClientTraceLayer,
};
use palisade_transport::client::balance::{Balancer, Endpoints, PreviousEndpoints};

use self::boxed::{BoxedStack, Call, CallFuture};

pub use config::{Config, InvalidConfig};
pub use http::{HttpBody, HttpClient, HttpConfig, http};
pub use palisade_transport::client::{ConnectError, Connection, balance, rejection_of};

/// Creates a client for the service `target` (its name in metrics and spans), for use in a
/// generated tonic client.
///
/// Only methods that `contracts` mark as idempotent are retried. A method that they do not declare
/// may have a stream as its response: only the wait for its head is limited. `credentials` adds
/// `authorization` to each attempt.
/// Connections are lazy: the first call connects, and a later call reconnects after a connection
/// broke. Service discovery starts here and stops when the last clone of the client is dropped.
/// Must be called within a tokio runtime.
pub fn connect<C>(target: &'static str, config: &Config, contracts: MethodContracts, credentials: C) -> Result<Client, InvalidConfig>
where
    C: Layer<Balancer>,
    C::Service: Service<Request<Body>, Response = Response<Body>, Error = Rejection, Future: Send> + Clone + Send + Sync + 'static,
{
    config.validate()?;
    let upstream = config.upstream()?;
    let addresses = if let UpstreamUrl::List(addresses) = &upstream { addresses.clone() } else { Vec::new() };
    let balancer = Balancer::new(target, &config.endpoints(), upstream.registry(), addresses)?;
    let endpoints = balancer.endpoints();
    let client = build(target, config, contracts, credentials, balancer)?;
    let resolver = discovery::spawn_resolver(target, upstream, &config.discovery, endpoints.clone()).map(Arc::new);
    Ok(Client { endpoints: Some(endpoints), _resolver: resolver, ..client })
}

/// Builds the stack of [`connect`] around another innermost service `endpoint`, such as a tonic
/// `Channel`. An error of `endpoint` is a transport error, unless it is a [`Rejection`].
pub fn stack<C, E>(
    target: &'static str,
    config: &Config,
    contracts: MethodContracts,
    credentials: C,
    endpoint: E,
) -> Result<Client, InvalidConfig>
where
    E: Service<Request<Body>, Error: Into<BoxError>>,
    C: Layer<Foreign<E>>,
    C::Service: Service<Request<Body>, Response = Response<Body>, Error = Rejection, Future: Send> + Clone + Send + Sync + 'static,
{
    build(target, config, contracts, credentials, foreign(endpoint))
}

/// A service whose errors are rejections.
pub type Foreign<E> = MapErr<E, fn(<E as Service<Request<Body>>>::Error) -> Rejection>;

/// Converts the errors of a service from elsewhere, so that the layers of this crate take it: retry
/// and circuit breaker count its transport errors.
pub fn foreign<E>(endpoint: E) -> Foreign<E>
where
    E: Service<Request<Body>, Error: Into<BoxError>>,
{
    let convert: fn(E::Error) -> Rejection = |error| rejection_of(error);
    ServiceExt::<Request<Body>>::map_err(endpoint, convert)
}

fn build<C, E>(
    target: &'static str,
    config: &Config,
    contracts: MethodContracts,
    credentials: C,
    endpoint: E,
) -> Result<Client, InvalidConfig>
where
    C: Layer<E>,
    C::Service: Service<Request<Body>, Response = Response<Body>, Error = Rejection, Future: Send> + Clone + Send + Sync + 'static,
{
    config.validate()?;
    // Spans carry the configured target as server address: several addresses share only their name.
    let (server_address, server_port, is_balanced) = match config.upstream()?.single_address() {
        Some(address) => (address.host().into(), address.port(), false),
        None => (target.into(), None, true),
    };
    let methods = contracts.clone();
    let params = StackParams {
        target,
        trace: ClientTraceLayer { protocol: Protocol::Grpc, server_address, server_port },
        hop: Boundary::GrpcClient(target.into()),
        retry: RetryLayer::new(target, &config.retry, contracts),
        breaker: CircuitBreakerLayer::new(target, &config.circuit_breaker),
        min_attempt_ms: config.retry.min_attempt_ms,
        call_timeout_ms: config.call_timeout_ms,
        attempt_timeout_ms: config.attempt_timeout_ms,
        max_in_flight: config.max_in_flight,
    };
    let breaker = params.breaker.handle();
    let stack = layers(params, credentials, endpoint).map_request(move |mut request: Request<Body>| {
        request.headers_mut().reserve(ADDED_HEADERS);
        // A streaming method is exempt from the measurements and timeouts of unary calls. The
        // attempts of one call share the list of previous endpoints.
        match methods.response_kind(request.uri().path()) {
            ResponseKind::Unary => {}
            ResponseKind::Stream => {
                request.extensions_mut().insert(IsStreaming);
            }
            ResponseKind::Undeclared => {
                request.extensions_mut().insert(UndeclaredResponse);
            }
        }
        if is_balanced {
            request.extensions_mut().insert(PreviousEndpoints::default());
        }
        request
    });
    let stack = stack.map_response(|response| response.map(Body::new));
    let stack = Arc::new(BoxedStack { stack, into_error: boxed::to_status });
    Ok(Client { stack, breaker, endpoints: None, _resolver: None })
}

/// Number of headers added by the layers, reserved once.
const ADDED_HEADERS: usize = 8;

/// Parameters of a stack for one target; `trace` holds the protocol.
struct StackParams {
    target: &'static str,
    trace: ClientTraceLayer,
    hop: Boundary,
    retry: RetryLayer,
    breaker: CircuitBreakerLayer,
    min_attempt_ms: u64,
    call_timeout_ms: u64,
    attempt_timeout_ms: u64,
    max_in_flight: u32,
}

/// Builds the protocol-independent layers around `endpoint`.
fn layers<C, E, R>(
    params: StackParams,
    credentials: C,
    endpoint: E,
) -> impl Service<
    Request<Body>,
    Response = Response<impl http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static>,
    Error = Infallible,
    Future: Send + 'static,
> + Clone
+ Send
+ Sync
+ 'static
where
    C: Layer<E>,
    C::Service: Service<Request<Body>, Response = Response<R>, Error = Rejection, Future: Send> + Clone + Send + Sync + 'static,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
{
    let StackParams { target, trace, .. } = params;
    let protocol = trace.protocol;
    ServiceBuilder::new()
        // One span and one duration per logical call: they include local rejections, and all
        // retries count as one call.
        .layer(trace)
        .layer(MetricsLayer::new(params.hop))
        // Converts rejections of the inner layers to a status with its reason for the generated
        // client.
        .layer(ClientRespondLayer(protocol))
        // Limits all attempts together with the backoff between them.
        .layer(TotalDeadlineLayer {
            limit: Duration::from_millis(params.call_timeout_ms),
            min_attempt: Duration::from_millis(params.min_attempt_ms),
        })
        // One permit per call, not per attempt: a call in backoff still holds memory.
        .layer(ConcurrencyLimitLayer(Bulkhead::new(target, params.max_in_flight)))
        .layer(params.retry)
        .layer(AttemptMetricsLayer::new(protocol, target))
        // Inside retry, so that every attempt is recorded; outside the attempt timeout, so that a
        // hang counts as a failure.
        .layer(params.breaker)
        .layer(AttemptTimeoutLayer::new(target, Duration::from_millis(params.attempt_timeout_ms)).over(protocol))
        // Inside retry, so that each attempt uses a fresh token.
        .layer(credentials)
        // Innermost, so that load balancing runs for every attempt: power of two choices among
        // several addresses, with one circuit breaker per address.
        .service(endpoint)
}

/// gRPC client for one target. Cheap to clone; clones share connections, circuit breakers and retry
/// budgets.
///
/// A call starts in `call`, not at the first poll of its future: context and span are captured at
/// that time.
#[derive(Debug, Clone)]
pub struct Client {
    stack: Arc<dyn Call<Body, Status>>,
    breaker: BreakerHandle,
    endpoints: Option<Endpoints>,
    /// Stops service discovery when the last clone is dropped.
    _resolver: Option<Arc<DropGuard>>,
}

impl Client {
    /// Returns the circuit breaker of the target.
    pub fn breaker(&self) -> &BreakerHandle {
        &self.breaker
    }

    /// Returns the endpoints of the target, or `None` for a client built by [`stack`].
    pub fn endpoints(&self) -> Option<&Endpoints> {
        self.endpoints.as_ref()
    }
}

impl Service<Request<Body>> for Client {
    type Response = Response<Body>;
    /// A local rejection of this stack, with the [`Rejection`] as its source. An error status of
    /// the target is an `Ok` response.
    type Error = Status;
    type Future = CallFuture<Body, Status>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.stack.call(request)
    }
}
