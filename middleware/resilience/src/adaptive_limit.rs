//! Adaptive concurrency limit (gradient algorithm) with a priority queue (CoDel): the limit follows
//! handler latency, a short burst waits, the rest is shed.
//!
//! A fixed limit is wrong on every other machine and for every other mix of requests. Up to some
//! concurrency requests do not slow each other down. Above it more concurrency only adds latency,
//! until every response is late and goodput is zero. `gradient` finds that concurrency from the
//! latency of the handler; `queue` decides which requests wait for a permit. A burst waits. In a
//! standing queue the requests whose callers can still use the response are served, and the rest
//! are rejected at once with a retry delay.

mod codel_queue;
mod config;
mod gradient;
mod in_flight;
mod limiter;
mod queue;
mod state;
mod window;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};

use self::limiter::{Admission, Limiter, Waiter};
use crate::{body::InstrumentedBody, context::Context, jitter, rejection::Rejection, respond::Protocol, time_limit::TimeLimit};

pub use config::Config;
pub use in_flight::InFlightRequest;

/// Adaptive concurrency limit: admits as many concurrent requests as the server can serve without
/// added latency.
///
/// Sits behind authentication, which decides whose priority header counts, inside the deadline,
/// which covers the queue wait, and directly around the handler, whose latency it measures. A
/// permit is held until the last byte of the response is sent, that of a stream until the response
/// head.
///
/// ```
/// use palisade_resilience::{adaptive_limit::{AdaptiveLimitLayer, Config}, respond::Protocol};
///
/// let layer = AdaptiveLimitLayer::new(Protocol::Grpc, &Config::default());
/// ```
#[derive(Debug, Clone)]
pub struct AdaptiveLimitLayer {
    protocol: Protocol,
    limiter: Option<Arc<Limiter>>,
}

impl AdaptiveLimitLayer {
    /// Creates the limit from `config`, or a pass-through layer if it is disabled. `protocol`
    /// determines where a response carries its status.
    pub fn new(protocol: Protocol, config: &Config) -> Self {
        Self { protocol, limiter: config.enabled.then(|| Limiter::new(config, jitter::random_unit)) }
    }
}

impl<S> Layer<S> for AdaptiveLimitLayer {
    type Service = AdaptiveLimit<S>;

    fn layer(&self, inner: S) -> AdaptiveLimit<S> {
        AdaptiveLimit { inner, layer: self.clone() }
    }
}

/// See [`AdaptiveLimitLayer`].
#[derive(Debug, Clone)]
pub struct AdaptiveLimit<S> {
    inner: S,
    layer: AdaptiveLimitLayer,
}

impl<S, B, R> Service<Request<B>> for AdaptiveLimit<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<Rejection>,
    R: Body,
{
    type Response = Response<InstrumentedBody<R, Option<InFlightRequest>>>;
    type Error = Rejection;
    type Future = ResponseFuture<S, Request<B>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let context = Context::of(&request);
        let (priority, deadline) = context.map(|context| (context.priority, context.deadline)).unwrap_or_default();
        let stream = context.is_some_and(Context::is_stream);
        // Health probes bypass the limit: a probe queued behind requests would make a busy process
        // look dead.
        let exempt = context.and_then(|context| context.method).is_some_and(|method| method.infrastructure);
        let Some(limiter) = self.layer.limiter.as_ref().filter(|_| !exempt) else {
            return ResponseFuture { state: State::Running { inner: self.inner.call(request), running: None } };
        };
        let (protocol, now) = (self.layer.protocol, Instant::now());
        let state = match limiter.admit(priority, deadline.map(TimeLimit::at), now) {
            Admission::Admitted(permit) => {
                let running = Some(InFlightRequest::new(permit, protocol, now, (deadline, stream)));
                State::Running { inner: self.inner.call(request), running }
            }
            Admission::Queued(waiter) => {
                // The service polled ready goes with the request; the clone takes its place here.
                let clone = self.inner.clone();
                let service = std::mem::replace(&mut self.inner, clone);
                State::Waiting { waiter, next: Some(QueuedCall { service, request, protocol, deadline_and_stream: (deadline, stream) }) }
            }
            Admission::Rejected(refused) => State::Refused { rejection: Some(refused.into()) },
        };
        ResponseFuture { state }
    }
}

/// The call to make when the queue wait is over.
struct QueuedCall<S, Q> {
    service: S,
    request: Q,
    protocol: Protocol,
    /// Deadline of the request, and whether its response is a stream.
    deadline_and_stream: (Option<TimeLimit>, bool),
}

pin_project! {
    /// The future of [`AdaptiveLimit`].
    pub struct ResponseFuture<S: Service<Q>, Q> {
        #[pin]
        state: State<S, Q>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S: Service<Q>, Q> {
        Refused { rejection: Option<Rejection> },
        Waiting { waiter: Waiter, next: Option<QueuedCall<S, Q>> },
        Running { #[pin] inner: S::Future, running: Option<InFlightRequest> },
    }
}

impl<S, Q, R> Future for ResponseFuture<S, Q>
where
    S: Service<Q, Response = Response<R>>,
    S::Error: Into<Rejection>,
    R: Body,
{
    type Output = Result<Response<InstrumentedBody<R, Option<InFlightRequest>>>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProjection::Refused { rejection } => {
                    return Poll::Ready(Err(rejection.take().expect("future polled after completion")));
                }
                StateProjection::Waiting { waiter, next } => {
                    let permit = ready!(Pin::new(waiter).poll(cx))?;
                    let Some(QueuedCall { mut service, request, protocol, deadline_and_stream: about }) = next.take() else {
                        unreachable!("future polled after completion")
                    };
                    let running = Some(InFlightRequest::new(permit, protocol, Instant::now(), about));
                    State::Running { inner: service.call(request), running }
                }
                StateProjection::Running { inner, running } => {
                    let result = ready!(inner.poll(cx)).map_err(Into::into);
                    let mut running = running.take();
                    return Poll::Ready(match result {
                        Ok(response) => {
                            if let Some(running) = &mut running {
                                running.record_head(&response);
                            }
                            if let Some(stream) = running.take_if(|running| running.is_stream()) {
                                stream.release_without_sample();
                            }
                            Ok(InstrumentedBody::observe(response, running))
                        }
                        Err(rejection) => {
                            if let Some(running) = &mut running {
                                running.record_rejection(&rejection);
                            }
                            Err(rejection)
                        }
                    });
                }
            };
            state.set(next);
        }
    }
}

#[cfg(test)]
mod tests;
