//! Circuit breaker: stops calls to a failing target and probes it with a few calls until it has
//! recovered.
//!
//! The outcome of a call is known when its last byte was read: a gRPC status is in the trailers, or
//! in the head of a trailers-only response. Over HTTP it is in the head, and stands unless the body
//! is truncated. A local rejection (no permit, no time, no credentials) says nothing about the
//! target and is never recorded.
//!
//! Sits inside retry (every attempt counts) and outside the attempt timeout (a hang counts).

mod breaker;
mod classify;
mod config;
mod event;
mod metrics;
mod probes;
mod response_future;
mod shared_state;
mod state;
mod window;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::{
    body::InstrumentedBody,
    deadline::{CallDeadline, StreamEnd},
    protocol::Protocol,
    rejection::{Rejection, reasons},
    streams::{RequestEnd, response_kind},
};

pub use breaker::{Breaker, BreakerHandle, Permit};
pub use classify::Classification;
pub use config::{Config, InvalidConfig, Mode, WindowKind};
pub use event::{CallOutcome, Cause, Observation, State, Transition};
pub use response_future::{OutcomeFuture, OutcomeObserver, RecordOutcome};
pub use state::{CallNotPermitted, StateMachine};
pub use window::Counts;

/// Circuit breaker for the calls to one target; all services of one layer share one breaker.
///
/// ```
/// use palisade_resilience::circuit_breaker::{CircuitBreakerLayer, Config, State};
/// use palisade_resilience::rejection::Rejection;
/// # use tonic::{Status, body::Body};
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let call = service_fn(async |_| {
///     Ok::<_, Rejection>(Status::unavailable("down").into_http::<Body>())
/// });
/// let layer = CircuitBreakerLayer::new("products", &Config { min_calls: 1, ..Config::default() });
/// layer.layer(call).oneshot(http::Request::new(())).await?;
/// assert_eq!(layer.handle().state(), State::Open);
/// let rejected = layer.layer(call).oneshot(http::Request::new(())).await.unwrap_err();
/// assert_eq!(rejected.detail(), "circuit open: products");
/// # Ok::<_, Rejection>(()) }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct CircuitBreakerLayer {
    protocol: Protocol,
    breaker: Arc<Breaker>,
}

impl CircuitBreakerLayer {
    /// Creates a breaker for `target`, called over gRPC. `config` must be valid.
    pub fn new(target: &'static str, config: &Config) -> Self {
        Self { protocol: Protocol::Grpc, breaker: Breaker::new(target, config) }
    }

    /// Sets the protocol of the calls.
    #[must_use]
    pub fn over(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }

    /// Returns a handle to inspect and operate the breaker.
    pub fn handle(&self) -> BreakerHandle {
        BreakerHandle(self.breaker.clone())
    }
}

impl<S> Layer<S> for CircuitBreakerLayer {
    type Service = CircuitBreaker<S>;

    fn layer(&self, inner: S) -> CircuitBreaker<S> {
        CircuitBreaker { inner, layer: self.clone() }
    }
}

/// See [`CircuitBreakerLayer`].
#[derive(Debug, Clone)]
pub struct CircuitBreaker<S> {
    inner: S,
    layer: CircuitBreakerLayer,
}

impl<S, B, R> Service<Request<B>> for CircuitBreaker<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Rejection>,
    R: Body,
{
    type Response = Response<InstrumentedBody<R, OutcomeObserver<Permit>>>;
    type Error = Rejection;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // Of a streamed request only the caller's end counts: the rest is the pace of its sender.
        let deadline = match request.extensions().get::<RequestEnd>() {
            Some(_) => request.extensions().get::<StreamEnd>().map(|end| end.0),
            None => request.extensions().get::<CallDeadline>().map(|deadline| deadline.0),
        };
        let kind = response_kind(&request);
        let CircuitBreakerLayer { protocol, breaker } = &self.layer;
        let progress = match breaker.acquire(Instant::now(), deadline) {
            Ok(permit) => Progress::Running { inner: OutcomeFuture::new(*protocol, self.inner.call(request), permit, kind) },
            Err(refused) => {
                if crate::planted!("rejections extend the open time") {
                    breaker.handle().open_for(refused.retry_after.unwrap_or_default() * 2);
                }
                Progress::Refused { rejection: Some(rejection_of(breaker.name(), refused)) }
            }
        };
        ResponseFuture { progress }
    }
}

fn rejection_of(target: &str, refused: CallNotPermitted) -> Rejection {
    let rejection = Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, format!("circuit open: {target}"));
    match refused.retry_after {
        Some(wait) => rejection.with_retry_after(wait),
        None => rejection,
    }
}

pin_project! {
    /// The future of [`CircuitBreaker`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        progress: Progress<F>,
    }
}

pin_project! {
    #[project = ProgressProjection]
    #[derive(Debug)]
    enum Progress<F> {
        Refused { rejection: Option<Rejection> },
        Running { #[pin] inner: OutcomeFuture<F, Permit> },
    }
}

impl<F, R> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, Rejection>>,
    R: Body,
{
    type Output = Result<Response<InstrumentedBody<R, OutcomeObserver<Permit>>>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().progress.project() {
            ProgressProjection::Refused { rejection } => Poll::Ready(Err(rejection.take().expect("future polled after completion"))),
            ProgressProjection::Running { inner } => inner.poll(cx),
        }
    }
}

#[cfg(test)]
mod tests;
