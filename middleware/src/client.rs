//! The stack that every call to another service goes through, assembled: gRPC calls ([`connect`]) and HTTP calls ([`http()`]) alike.
//!
//! ```
//! use palisade_middleware::{client, retry::IdempotentMethods};
//! use tower::layer::util::Identity;
//!
//! # tokio_test::block_on(async {
//! let config = client::Config::at("http://127.0.0.1:5000");
//! let products = client::connect("products", &config, IdempotentMethods::default(), Identity::new())?;
//! // products_service_client::ProductsServiceClient::new(products)
//! # let _ = products; Ok::<_, client::InvalidConfig>(()) }).unwrap();
//! ```

pub(crate) mod address;
pub mod attempt_metrics;
pub mod balance;
mod boxed;
mod config;
mod connection;
mod connector;
mod endpoint;
mod http;
mod connect_backoff;

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
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};

use self::{
    attempt_metrics::AttemptMetricsLayer,
    balance::{Balancer, Endpoints, PreviousEndpoints},
    boxed::{CallFuture, Call, BoxedStack},
};
use crate::{
    bulkhead::BulkheadLayer,
    circuit_breaker::{BreakerHandle, CircuitBreakerLayer},
    deadline::{AttemptTimeoutLayer, TotalDeadlineLayer},
    discovery,
    metrics::{Boundary, MetricsLayer},
    rejection::Rejection,
    respond::{Protocol, ClientRespondLayer},
    retry::{IdempotentMethods, RetryLayer},
    streams::IsStreaming,
    trace::ClientTraceLayer,
};

pub use config::{Config, InvalidConfig};
pub use connection::{Connection, InvalidConfig as InvalidConnection};
pub use connector::ConnectError;
pub use endpoint::Failure;
pub use http::{HttpBody, HttpClient, HttpConfig, http};

/// A client for the service `target` (its name in metrics and spans), to be given to a generated tonic client.
///
/// `idempotent` methods may be repeated; `credentials` adds `authorization` to
/// each attempt. Nothing is connected yet: the first call does that, and any later one after a connection broke. Addresses that a registry
/// knows are looked for from now on, until the last clone of the client is gone.
/// Must be called within a tokio runtime.
pub fn connect<C>(target: &'static str, config: &Config, idempotent: IdempotentMethods, credentials: C) -> Result<Client, InvalidConfig>
where
    C: Layer<Balancer>,
    C::Service: Service<Request<Body>, Response = Response<Body>, Error = Rejection, Future: Send> + Clone + Send + Sync + 'static,
{
    config.validate()?;
    let balancer = Balancer::new(target, config)?;
    let endpoints = balancer.endpoints();
    let client = stack(target, config, idempotent, credentials, balancer)?;
    let resolver = discovery::spawn_resolver(target, config.upstream()?, &config.discovery, endpoints.clone()).map(Arc::new);
    Ok(Client { endpoints: Some(endpoints), _resolver: resolver, ..client })
}

/// As [`connect`] around `endpoint`, which sends the requests wherever it likes.
pub fn stack<C, E>(
    target: &'static str,
    config: &Config,
    idempotent: IdempotentMethods,
    credentials: C,
    endpoint: E,
) -> Result<Client, InvalidConfig>
where
    C: Layer<E>,
    C::Service: Service<Request<Body>, Response = Response<Body>, Error = Rejection, Future: Send> + Clone + Send + Sync + 'static,
{
    config.validate()?;
    // What a span names is the target as configured: several addresses have only their name in common.
    let (server_address, server_port, is_balanced) = match config.upstream()?.single_address() {
        Some(address) => (address.host().into(), address.port(), false),
        None => (target.into(), None, true),
    };
    let methods = idempotent.clone();
    let params = StackParams {
        target,
        trace: ClientTraceLayer { protocol: Protocol::Grpc, server_address, server_port },
        hop: Boundary::GrpcClient(target.into()),
        retry: RetryLayer::new(target, &config.retry, idempotent),
        breaker: CircuitBreakerLayer::new(target, &config.circuit_breaker),
        min_attempt_ms: config.retry.min_attempt_ms,
        call_timeout_ms: config.call_timeout_ms,
        attempt_timeout_ms: config.attempt_timeout_ms,
        max_in_flight: config.max_in_flight,
    };
    let breaker = params.breaker.handle();
    let stack = layers(params, credentials, endpoint).map_request(move |mut request: Request<Body>| {
        request.headers_mut().reserve(ADDED_HEADERS);
        // What the contracts call a stream is none of those calls that all layers measure and hold to a time. Attempts know of each other.
        if methods.is_stream(request.uri().path()) {
            request.extensions_mut().insert(IsStreaming);
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

/// Room for the headers that the layers write.
const ADDED_HEADERS: usize = 8;

/// What the layers have to know of a hop; the protocol is in `trace`.
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

/// The stack around `endpoint`, over either protocol.
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
        // One span and one duration for the logical call: they see its refusals, and its retries as one.
        .layer(trace)
        .layer(MetricsLayer::new(params.hop))
        // What is refused below reaches the generated client as a status with its reason.
        .layer(ClientRespondLayer(protocol))
        // Binds all attempts and the pauses between them.
        .layer(TotalDeadlineLayer {
            limit: Duration::from_millis(params.call_timeout_ms),
            min_attempt: Duration::from_millis(params.min_attempt_ms),
        })
        // A place per call, not per attempt: one that waits to retry still holds memory.
        .layer(BulkheadLayer::new(target, params.max_in_flight))
        .layer(params.retry)
        .layer(AttemptMetricsLayer::new(protocol, target))
        // Inside retry, so that every attempt counts; outside the timeout, so that a hang does.
        .layer(params.breaker)
        .layer(AttemptTimeoutLayer::new(target, Duration::from_millis(params.attempt_timeout_ms)).over(protocol))
        // Inside retry, so that a fresh token is used.
        .layer(credentials)
        // Inside all of that, so that every attempt is a new choice: the least busy of several addresses, each behind a breaker of its own.
        .service(endpoint)
}

/// A client for one service. Cheap to clone; clones share the connections, the breakers and the budgets.
///
/// A call begins in `call`, not when its future is first polled: the context ([`crate::context`]) and the span are those of that moment.
#[derive(Debug, Clone)]
pub struct Client {
    stack: Arc<dyn Call<Body, Status>>,
    breaker: BreakerHandle,
    endpoints: Option<Endpoints>,
    /// The search for endpoints ends with the last clone.
    _resolver: Option<Arc<DropGuard>>,
}

impl Client {
    /// The breaker of its target.
    pub fn breaker(&self) -> &BreakerHandle {
        &self.breaker
    }

    /// The addresses of its target; `None` if it was made by [`stack`].
    pub fn endpoints(&self) -> Option<&Endpoints> {
        self.endpoints.as_ref()
    }
}

impl Service<Request<Body>> for Client {
    type Response = Response<Body>;
    /// A refusal of this stack; its source is the [`Rejection`]. What the target refuses is an answer.
    type Error = Status;
    type Future = CallFuture<Body, Status>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.stack.call(request)
    }
}
