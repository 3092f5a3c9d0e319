//! Client-side load balancing: power of two choices (P2C) by peak EWMA, with one circuit breaker
//! per endpoint (outlier detection).
//!
//! The balancer is the innermost service of the stack and picks an endpoint in `call`, for every
//! attempt. P2C samples two random endpoints among those whose breaker admits calls and picks the
//! one with the lower load. The breaker of an endpoint opens long before the error rate of the
//! target is high enough for the target's breaker. Its rejections never reach the caller, because
//! another endpoint is used.
//!
//! A retry goes to an endpoint that the call has not tried yet, if a usable one is left.
//!
//! While discovery has not resolved any address, or all of several endpoints are in connect
//! backoff, a call waits for an endpoint, for at most a second. If none is known then, the call is
//! rejected. No attempt was made, so no breaker records a failure and no retry follows.
//!
//! A single address bypasses the balancer: no load is measured, and the target's breaker is the
//! only one.

mod call;
mod config;
#[cfg(test)]
mod ejection_tests;
mod endpoints;
mod node;
mod outlier_ejection;
mod p2c;
mod peak_ewma;
mod previous_endpoints;
mod waiting;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tonic::body::Body;
use tower::Service;

use self::{
    call::Call,
    endpoints::Shared,
    node::BalancedEndpoint,
    p2c::{PickContext, Picked, pick},
};
use super::{EndpointConfig, address::Address, endpoint};
use palisade_resilience::{
    circuit_breaker::OutcomeFuture,
    deadline::CallDeadline,
    rejection::{Rejection, reasons},
    respond::Protocol,
    retry,
    streams::response_kind,
    time_limit::TimeLimit,
};

pub use config::{Config, InvalidConfig};
pub use endpoints::{EndpointStatus, Endpoints};

pub use config::outlier_detection_defaults;
pub use previous_endpoints::PreviousEndpoints;

/// Sends each request to one of the target's endpoints. Clones share the endpoints.
#[derive(Debug, Clone)]
pub struct Balancer(Arc<Shared>);

impl Balancer {
    /// Creates the balancer of `target`, whose `addresses` are known or will come from `registry`.
    /// Must be called within a tokio runtime.
    pub fn new(
        target: &'static str,
        config: &EndpointConfig,
        registry: &'static str,
        addresses: Vec<Address>,
    ) -> Result<Self, crate::tls::Error> {
        Ok(Self(Arc::new(Shared::new(target, config, registry, addresses)?)))
    }

    /// Returns a handle that reads and replaces the endpoints.
    pub fn endpoints(&self) -> Endpoints {
        Endpoints(self.0.clone())
    }
}

impl Service<Request<Body>> for Balancer {
    type Response = Response<Body>;
    type Error = Rejection;
    type Future = ResponseFuture;

    /// Always ready: an endpoint reserved here could be removed before the request comes.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ResponseFuture {
        if waiting::must_wait(&self.0.nodes(), Instant::now()) {
            return ResponseFuture { state: ResponseState::Waiting { inner: WaitingCall(wait_and_send(self.0.clone(), request).boxed()) } };
        }
        ResponseFuture { state: send(&self.0, request) }
    }
}

/// Sends `request` once an endpoint may be usable.
async fn wait_and_send(shared: Arc<Shared>, request: Request<Body>) -> Result<Response<Body>, Rejection> {
    waiting::wait_for_endpoint(&shared, deadline_of(&request).map(TimeLimit::at)).await;
    ResponseFuture { state: send(&shared, request) }.await
}

fn deadline_of(request: &Request<Body>) -> Option<TimeLimit> {
    request.extensions().get::<CallDeadline>().map(|deadline| deadline.0)
}

/// Sends `request` to one of the endpoints.
fn send(shared: &Shared, request: Request<Body>) -> ResponseState {
    let nodes = shared.nodes();
    match nodes.as_slice() {
        [] => return ResponseState::NoEndpoint { refusal: Some(no_endpoint_available()) },
        [only] => return ResponseState::Single { inner: only.send(request) },
        _ => {}
    }
    let now = Instant::now();
    let deadline = deadline_of(&request);
    // A retry never probes: one bad endpoint per call is enough.
    let may_probe = request.extensions().get::<retry::Attempt>().is_none();
    let previous = request.extensions().get::<PreviousEndpoints>();
    let pick_endpoint = |previous: &[Arc<BalancedEndpoint>]| pick(&nodes, &shared.rng, PickContext { now, deadline, may_probe, previous });
    let Picked { node, permit, panic_mode: panics } = previous.map_or_else(|| pick_endpoint(&[]), |tried| tried.pick(pick_endpoint));
    if panics {
        shared.panic_picks.increment(1);
    }
    let kind = response_kind(&request);
    let call = Call::start(shared.target, node.clone(), permit, now, deadline);
    ResponseState::Balanced { inner: OutcomeFuture::new(Protocol::Grpc, node.send(request), call, kind) }
}

/// Rejection for an empty endpoint set, without an attempt.
fn no_endpoint_available() -> Rejection {
    Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "no endpoint of an upstream service is known yet")
}

pin_project! {
    /// Response future of [`Balancer`].
    #[derive(Debug)]
    pub struct ResponseFuture {
        #[pin]
        state: ResponseState,
    }
}

/// Call that waits for an endpoint.
struct WaitingCall(BoxFuture<'static, Result<Response<Body>, Rejection>>);

impl fmt::Debug for WaitingCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WaitingCall")
    }
}

pin_project! {
    #[project = WayProjection]
    #[derive(Debug)]
    enum ResponseState {
        NoEndpoint { refusal: Option<Rejection> },
        // Boxed, because it is rare and must not enlarge the future.
        Waiting { inner: WaitingCall },
        Single { #[pin] inner: endpoint::ResponseFuture },
        Balanced { #[pin] inner: OutcomeFuture<endpoint::ResponseFuture, Call> },
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<Body>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            WayProjection::NoEndpoint { refusal } => Poll::Ready(Err(refusal.take().expect("future polled after completion"))),
            WayProjection::Waiting { inner } => inner.0.as_mut().poll(cx),
            WayProjection::Single { inner } => inner.poll(cx),
            WayProjection::Balanced { inner } => inner.poll(cx).map_ok(|response| response.map(Body::new)),
        }
    }
}
