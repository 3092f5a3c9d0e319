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
mod ejection;
#[cfg(test)]
mod ejection_tests;
mod endpoints;
mod load;
mod node;
mod pick;
mod tried;

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
    node::Node,
    pick::{Choice, Wanted, pick},
};
use super::{Config as ClientConfig, InvalidConfig as InvalidClientConfig, endpoint};
use crate::{
    circuit_breaker::Settling,
    deadline::CallDeadline,
    rejection::{Rejection, reasons},
    respond::Protocol,
    retry,
    streams::is_stream,
};

pub use config::{Config, InvalidConfig};
pub use endpoints::{EndpointStatus, Endpoints};

pub(super) use config::{breaker, read_breaker};
pub(super) use tried::Tried;

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
            [] => return ResponseFuture { way: Way::Nowhere { refusal: Some(nowhere()) } },
            [only] => return ResponseFuture { way: Way::Only { inner: only.send(request) } },
            _ => {}
        }
        let now = Instant::now();
        let deadline = request.extensions().get::<CallDeadline>().map(|deadline| deadline.0);
        // One bad endpoint is enough for a call.
        let may_probe = request.extensions().get::<retry::Attempt>().is_none();
        let tried = request.extensions().get::<Tried>();
        let choose = |tried: &[Arc<Node>]| pick(&nodes, &self.0.dice, Wanted { now, deadline, may_probe, tried });
        let Choice { node, permit, panics } = tried.map_or_else(|| choose(&[]), |tried| tried.choose(choose));
        if panics {
            self.0.panics.increment(1);
        }
        let stream = is_stream(&request);
        let call = Call::start(self.0.target, node.clone(), permit, now, deadline);
        ResponseFuture { way: Way::Chosen { inner: Settling::new(Protocol::Grpc, node.send(request), call, stream) } }
    }
}

/// No address is known: not even an attempt.
fn nowhere() -> Rejection {
    Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "the address of a service behind this one is not known yet")
}

pin_project! {
    /// The future of [`Balancer`].
    #[derive(Debug)]
    pub struct ResponseFuture {
        #[pin]
        way: Way,
    }
}

pin_project! {
    #[project = WayProjection]
    #[derive(Debug)]
    enum Way {
        Nowhere { refusal: Option<Rejection> },
        Only { #[pin] inner: endpoint::ResponseFuture },
        Chosen { #[pin] inner: Settling<endpoint::ResponseFuture, Call> },
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<Body>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().way.project() {
            WayProjection::Nowhere { refusal } => Poll::Ready(Err(refusal.take().expect("a future is not polled after it was ready"))),
            WayProjection::Only { inner } => inner.poll(cx),
            WayProjection::Chosen { inner } => inner.poll(cx).map_ok(|response| response.map(Body::new)),
        }
    }
}
