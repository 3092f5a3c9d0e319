//! Adaptive concurrency limit (gradient algorithm) with a fair priority queue (CoDel): the limit
//! follows handler latency, a short burst waits, the rest is shed.
//!
//! A fixed limit is wrong on every other machine and for every other mix of requests. Up to some
//! concurrency requests do not slow each other down. Above it more concurrency only adds latency,
//! until every response is late and goodput is zero. `gradient` finds that concurrency from the
//! latency of the handler; `queue` decides which requests wait for a permit. A burst waits. In a
//! standing queue the requests whose callers can still use the response are served, and the rest
//! are rejected at once with a retry delay.
//!
//! Callers share the limit by max-min fairness. A caller's share is the limit divided by the
//! callers that run or wait, with one more counted for a newcomer. The caller with the fewest
//! running requests is served first, and an eighth of the limit is reserved for callers below their
//! share. When the queue is too long, the callers above their share are shed first, with
//! `rate_limited`.

mod aliases;
mod callers;
mod codel_queue;
mod config;
mod early;
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
use tower::{BoxError, Layer, Service};

use self::{
    in_flight::InFlightRequest,
    limiter::{Admission, Limiter, Waiter},
};
use crate::{
    body::{InstrumentedBody, PermitGuard},
    caller::CallerKey,
    context::Context,
    counter::AtomicCounter,
    jitter,
    method_table::Method,
    metrics::register_observable_sum,
    prefetched_body::PrefetchedBody,
    priority::Priority,
    protocol::Protocol,
    rejection::Rejection,
    time_limit::TimeLimit,
};

pub use config::Config;
pub use early::{EarlyRejection, EarlyRejectionLayer};

/// Bytes of a response that are taken from its handler ahead of the peer. A response in one piece
/// is always taken whole.
const MAX_PREFETCH: usize = 256 * 1024;

/// Body of a response that may still be read by its peer, counted until its last frame.
pub type UnreadBody<R> = InstrumentedBody<PrefetchedBody<R>, PermitGuard<Unread>>;

/// Adaptive concurrency limit: admits as many concurrent requests as the server can serve without
/// added latency.
///
/// Sits behind authentication, which decides whose priority header counts, inside the deadline,
/// which covers the queue wait, and directly around the handler, whose latency it measures. A
/// permit is held until the response exists: it is taken from the handler ahead of the peer, which
/// reads it at its own pace. That of a stream is held until the response head. Health checks and
/// constant documents are exempt.
///
/// ```
/// use palisade_resilience::{adaptive_limit::{AdaptiveLimitLayer, Config}, protocol::Protocol};
///
/// let layer = AdaptiveLimitLayer::new(Protocol::Grpc, &Config::default());
/// ```
#[derive(Debug, Clone)]
pub struct AdaptiveLimitLayer {
    protocol: Protocol,
    limiter: Option<Arc<Limiter>>,
    unread: Arc<AtomicCounter>,
}

impl AdaptiveLimitLayer {
    /// Creates the limit from `config`, or a pass-through layer if it is disabled. `protocol`
    /// determines where a response carries its status.
    pub fn new(protocol: Protocol, config: &Config) -> Self {
        Self::with_limiter(protocol, config.enabled.then(|| Limiter::new(config, jitter::random_unit)))
    }

    fn with_limiter(protocol: Protocol, limiter: Option<Arc<Limiter>>) -> Self {
        let unread = Arc::new(AtomicCounter::new());
        register_observable_sum(&unread, crate::gauge!("palisade.responses.unread", "protocol" => protocol.name()), AtomicCounter::get);
        Self { protocol, limiter, unread }
    }

    /// Returns the layer that rejects requests before authentication while this limit sheds load.
    pub fn early_rejection(&self) -> EarlyRejectionLayer {
        EarlyRejectionLayer(self.limiter.clone())
    }
}

/// Counts a response until its last frame was taken by the connection.
#[derive(Debug)]
pub struct Unread(Arc<AtomicCounter>);

impl Unread {
    fn count(counter: &Arc<AtomicCounter>) -> Self {
        counter.increment();
        Self(counter.clone())
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.0.decrement();
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
    R: Body<Error: Into<BoxError>> + Unpin,
{
    type Response = Response<UnreadBody<R>>;
    type Error = Rejection;
    type Future = ResponseFuture<S, Request<B>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let context = Context::of(&request);
        let (priority, deadline) = context.map(|context| (context.priority, context.deadline)).unwrap_or_default();
        let call = CallInfo { protocol: self.layer.protocol, deadline, stream: context.is_some_and(Context::is_stream) };
        // Health probes bypass the limit: a probe queued behind requests would make a busy process
        // look dead.
        let exempt = context.and_then(|context| context.method).is_some_and(Method::is_exempt_from_limits);
        let limiter = self.layer.limiter.as_ref().filter(|_| !exempt);
        let state = match limiter.map(|limiter| limiter.admit_request(priority, &request, deadline)) {
            None => State::Running { inner: self.inner.call(request), running: None },
            Some(Admission::Admitted(permit)) => State::Running { inner: self.inner.call(request), running: Some(call.start(permit)) },
            Some(Admission::Queued(waiter)) => {
                // The service polled ready goes with the request; the clone takes its place here.
                let clone = self.inner.clone();
                let service = std::mem::replace(&mut self.inner, clone);
                State::Waiting { waiter, next: Some(QueuedCall { service, request }) }
            }
            Some(Admission::Rejected(refused)) => State::Refused { rejection: Some(refused.into()) },
        };
        ResponseFuture { state, call, unread: self.layer.unread.clone() }
    }
}

impl Limiter {
    /// Admits, queues or sheds `request`.
    fn admit_request<B>(self: &Arc<Self>, priority: Priority, request: &Request<B>, deadline: Option<TimeLimit>) -> Admission {
        let caller = CallerKey::of(request);
        let admission = self.admit(priority, caller, deadline.map(TimeLimit::at), Instant::now());
        if !matches!(admission, Admission::Admitted(_))
            && let Some(credentials) = CallerKey::of_credentials(request.headers())
        {
            // Their next request can be rejected before authentication.
            self.learn(credentials, caller);
        }
        admission
    }
}

/// Properties of a call that its response needs.
#[derive(Debug, Clone, Copy)]
struct CallInfo {
    protocol: Protocol,
    deadline: Option<TimeLimit>,
    stream: bool,
}

impl CallInfo {
    fn start(self, permit: limiter::Permit) -> InFlightRequest {
        InFlightRequest::new(permit, self.protocol, Instant::now(), self.deadline)
    }
}

/// The call to make when the queue wait is over.
struct QueuedCall<S, Q> {
    service: S,
    request: Q,
}

pin_project! {
    /// The future of [`AdaptiveLimit`].
    pub struct ResponseFuture<S: Service<Q>, Q> {
        #[pin]
        state: State<S, Q>,
        call: CallInfo,
        unread: Arc<AtomicCounter>,
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
    R: Body<Error: Into<BoxError>> + Unpin,
{
    type Output = Result<Response<UnreadBody<R>>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut state = this.state;
        loop {
            let next = match state.as_mut().project() {
                StateProjection::Refused { rejection } => {
                    return Poll::Ready(Err(rejection.take().expect("future polled after completion")));
                }
                StateProjection::Waiting { waiter, next } => {
                    let permit = ready!(Pin::new(waiter).poll(cx))?;
                    let Some(QueuedCall { mut service, request }) = next.take() else { unreachable!("future polled after completion") };
                    State::Running { running: Some(this.call.start(permit)), inner: service.call(request) }
                }
                StateProjection::Running { inner, running } => {
                    let result = ready!(inner.poll(cx)).map_err(Into::into);
                    let running = running.take();
                    return Poll::Ready(match result {
                        Ok(response) => Ok(finish(response, running, (*this.call, this.unread), cx)),
                        Err(rejection) => {
                            if let Some(running) = running {
                                running.end_with_rejection(&rejection);
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

/// Takes the response from its handler and returns the permit.
fn finish<R>(
    response: Response<R>,
    running: Option<InFlightRequest>,
    (call, unread): (CallInfo, &Arc<AtomicCounter>),
    cx: &mut task::Context<'_>,
) -> Response<UnreadBody<R>>
where
    R: Body<Error: Into<BoxError>> + Unpin,
{
    let mut response = response.map(PrefetchedBody::new);
    if !call.stream {
        // Whether or not all of it is available: the handler has answered, and the pace of what is
        // left may be that of the peer.
        let _ = response.body_mut().poll_prefetch(MAX_PREFETCH, cx);
    }
    match running {
        Some(running) if call.stream => running.end_with_stream(),
        Some(running) => running.end_with(&response),
        None => {}
    }
    // Streams are counted by their own limit.
    let guard = (!call.stream).then(|| Unread::count(unread));
    InstrumentedBody::observe(response, PermitGuard(guard))
}

#[cfg(test)]
mod tests;
