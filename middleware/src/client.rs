//! The stack that every call to another service goes through, assembled.
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
mod attempt_metrics;
pub mod balance;
mod config;
mod connection;
mod connector;
mod endpoint;
mod pause;

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use tokio_util::sync::DropGuard;
use tonic::{Status, body::Body};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

use self::{
    attempt_metrics::AttemptMetricsLayer,
    balance::{Balancer, Endpoints, Tried},
};
use crate::{
    bulkhead::BulkheadLayer,
    circuit_breaker::{BreakerHandle, CircuitBreakerLayer},
    deadline::{AttemptTimeoutLayer, TotalDeadlineLayer},
    discovery,
    metrics::{Hop, MetricsLayer},
    rejection::Rejection,
    respond::{Refused, RespondInsideLayer},
    retry::{IdempotentMethods, RetryLayer},
    streams::Streaming,
    trace::ClientTraceLayer,
};

pub use config::{Config, InvalidConfig};
pub use connection::{Connection, InvalidConfig as InvalidConnection};
pub use connector::ConnectError;
pub use endpoint::Failure;

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
    let following = discovery::follow(target, config.upstream()?, &config.discovery, endpoints.clone()).map(Arc::new);
    Ok(Client { endpoints: Some(endpoints), _following: following, ..client })
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
    let (server_address, server_port, several) = match config.upstream()?.only() {
        Some(only) => (only.host().into(), only.port(), false),
        None => (target.into(), None, true),
    };
    let breaker = CircuitBreakerLayer::new(target, &config.breaker);
    let handle = breaker.handle();
    let methods = idempotent.clone();
    let service = ServiceBuilder::new()
        // What the contracts call a stream is none of those calls that all below measure and hold to a time. Attempts know of each other.
        .map_request(move |mut request: Request<Body>| {
            if methods.is_stream(request.uri().path()) {
                request.extensions_mut().insert(Streaming);
            }
            if several {
                request.extensions_mut().insert(Tried::default());
            }
            request
        })
        // One span and one duration for the logical call: they see its refusals, and its retries as one.
        .layer(ClientTraceLayer { server_address, server_port })
        .layer(MetricsLayer::new(Hop::GrpcClient(target.into())))
        // What is refused below reaches the generated client as a status with its reason.
        .layer(RespondInsideLayer)
        // Binds all attempts and the pauses between them.
        .layer(TotalDeadlineLayer {
            limit: Duration::from_millis(config.call_timeout_ms),
            min_attempt: Duration::from_millis(config.retry.min_attempt_ms),
        })
        // A place per call, not per attempt: one that waits to retry still holds memory.
        .layer(BulkheadLayer::new(target, config.max_in_flight))
        .layer(RetryLayer::new(target, &config.retry, idempotent))
        .layer(AttemptMetricsLayer::new(target))
        // Inside retry, so that every attempt counts; outside the timeout, so that a hang does.
        .layer(breaker)
        .layer(AttemptTimeoutLayer::new(target, Duration::from_millis(config.attempt_timeout_ms)))
        // Inside retry, so that a fresh token is used.
        .layer(credentials)
        // Inside all of that, so that every attempt is a new choice: the least busy of several addresses, each behind a breaker of its own.
        .service(endpoint);
    let service = service.map_response(|response| response.map(Body::new));
    Ok(Client { service: Arc::new(Shared(service)), breaker: handle, endpoints: None, _following: None })
}

/// A client for one service. Cheap to clone; clones share the connections, the breakers and the budgets.
#[derive(Debug, Clone)]
pub struct Client {
    service: Arc<dyn Call>,
    breaker: BreakerHandle,
    endpoints: Option<Endpoints>,
    /// The search for endpoints ends with the last clone.
    _following: Option<Arc<DropGuard>>,
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

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

/// A stack whose type is of no interest. Not tower's boxed service, which is boxed anew with every clone of a client.
trait Call: fmt::Debug + Send + Sync {
    fn call(&self, request: Request<Body>) -> Answer;
}

struct Shared<S>(S);

impl<S> fmt::Debug for Shared<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl<S> Call for Shared<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static> + Clone + Send + Sync + 'static,
{
    fn call(&self, request: Request<Body>) -> Answer {
        let call = self.0.clone().oneshot(request);
        Box::pin(async { call.await.map_err(|never| match never {}).and_then(own_refusal) })
    }
}

/// What we refused ourselves is an error, whose source is the refusal: a response would lose the cause on its way to the handler.
fn own_refusal(mut response: Response<Body>) -> Result<Response<Body>, Status> {
    let Some(Refused(rejection)) = response.extensions_mut().remove() else { return Ok(response) };
    let mut status = rejection.to_status();
    status.set_source(rejection);
    Err(status)
}

impl Service<Request<Body>> for Client {
    type Response = Response<Body>;
    /// A refusal of this stack; its source is the [`Rejection`]. What the target refuses is an answer.
    type Error = Status;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.service.call(request)
    }
}
