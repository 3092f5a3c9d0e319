//! Several addresses of one upstream, chosen by load, each behind a breaker of its own.
//!
//! The innermost service of the stack. It chooses in `call`, for each attempt anew: of two endpoints drawn at random the one with the
//! lower load (peak EWMA), among those whose breaker lets calls through. An endpoint's breaker sees one endpoint fail long before
//! the target's sees that a share of all calls does, and its refusals never reach the caller: there is another endpoint.
//!
//! A retry goes to an endpoint that its call has not tried yet, as long as there is one that nothing speaks against.
//!
//! Until a registry has told of any address, calls are refused at once: no attempt was made, so that no breaker counts it and no retry follows.
//!
//! With a single address there is nothing to choose, nothing is measured, and the target's breaker is the only one.

mod call;
mod config;
mod outlier_ejection;
#[cfg(test)]
mod ejection_tests;
mod endpoints;
mod peak_ewma;
mod node;
mod p2c;
mod previous_endpoints;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tonic::body::Body;
use tower::Service;

use self::{
    call::Call,
    endpoints::Shared,
    node::BalancedEndpoint,
    p2c::{Picked, PickContext, pick},
};
use super::{Config as ClientConfig, InvalidConfig as InvalidClientConfig, endpoint};
use crate::{
    circuit_breaker::OutcomeFuture,
    deadline::CallDeadline,
    rejection::{Rejection, reasons},
    respond::Protocol,
    retry,
    streams::is_stream,
};

pub use config::{Config, InvalidConfig};
pub use endpoints::{EndpointStatus, Endpoints};

pub(super) use config::{outlier_detection_defaults, read_breaker};
pub(super) use previous_endpoints::PreviousEndpoints;

/// Sends each request to one of a target's endpoints. Clones share them.
#[derive(Debug, Clone)]
pub struct Balancer(Arc<Shared>);

impl Balancer {
    /// The balancer for `target`; `config` was validated. Must be called within a tokio runtime.
    pub(crate) fn new(target: &'static str, config: &ClientConfig) -> Result<Self, InvalidClientConfig> {
        Ok(Self(Arc::new(Shared::new(target, config)?)))
    }

    /// The addresses, to look at and to change.
    pub(crate) fn endpoints(&self) -> Endpoints {
        Endpoints(self.0.clone())
    }
}

impl Service<Request<Body>> for Balancer {
    type Response = Response<Body>;
    type Error = Rejection;
    type Future = ResponseFuture;

    /// Always ready: who is promised an endpoint here may find it gone when the request comes.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ResponseFuture {
        let nodes = self.0.nodes();
        match nodes.as_slice() {
            [] => return ResponseFuture { state: ResponseState::NoEndpoint { refusal: Some(no_endpoint_available()) } },
            [only] => return ResponseFuture { state: ResponseState::Single { inner: only.send(request) } },
            _ => {}
        }
        let now = Instant::now();
        let deadline = request.extensions().get::<CallDeadline>().map(|deadline| deadline.0);
        // One bad endpoint is enough for a call.
        let may_probe = request.extensions().get::<retry::Attempt>().is_none();
        let previous = request.extensions().get::<PreviousEndpoints>();
        let pick_endpoint = |previous: &[Arc<BalancedEndpoint>]| pick(&nodes, &self.0.rng, PickContext { now, deadline, may_probe, previous });
        let Picked { node, permit, panic_mode: panics } = previous.map_or_else(|| pick_endpoint(&[]), |tried| tried.pick(pick_endpoint));
        if panics {
            self.0.panic_picks.increment(1);
        }
        let stream = is_stream(&request);
        let call = Call::start(self.0.target, node.clone(), permit, now, deadline);
        ResponseFuture { state: ResponseState::Balanced { inner: OutcomeFuture::new(Protocol::Grpc, node.send(request), call, stream) } }
    }
}

/// No address is known: not even an attempt.
fn no_endpoint_available() -> Rejection {
    Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "the address of a service behind this one is not known yet")
}

pin_project! {
    /// The future of [`Balancer`].
    #[derive(Debug)]
    pub struct ResponseFuture {
        #[pin]
        state: ResponseState,
    }
}

pin_project! {
    #[project = WayProjection]
    #[derive(Debug)]
    enum ResponseState {
        NoEndpoint { refusal: Option<Rejection> },
        Single { #[pin] inner: endpoint::ResponseFuture },
        Balanced { #[pin] inner: OutcomeFuture<endpoint::ResponseFuture, Call> },
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<Body>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            WayProjection::NoEndpoint { refusal } => Poll::Ready(Err(refusal.take().expect("a future is not polled after it was ready"))),
            WayProjection::Single { inner } => inner.poll(cx),
            WayProjection::Balanced { inner } => inner.poll(cx).map_ok(|response| response.map(Body::new)),
        }
    }
}
