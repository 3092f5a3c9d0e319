//! Attempt timeout: limits each attempt within the deadline of its call and sends the limit to a
//! gRPC server.

use std::{
    error::Error,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::{
    CallDeadline, StreamEnd, expired, grpc_timeout,
    timeout_body::{ResponseFuture, ResponseTimer, Role, TimeoutBody, TimeoutCounters},
};
use crate::{
    protocol::Protocol,
    rejection::Rejection,
    streams::{RequestEnd, may_last},
    time_limit::TimeLimit,
};

/// Attempt timeout: limits one attempt, until its trailers, to the earliest of the configured
/// limit, the deadline of the call and a `grpc-timeout` that is already set.
///
/// Sits inside the circuit breaker, which must see hangs. It covers the wait for a connection too.
///
/// Of a call whose response may be a stream only the wait for the head is limited, and of one whose
/// request is a stream only the time after its end: the rest is the pace of the two sides.
///
/// Over HTTP no timeout is sent: HTTP targets are foreign services, which do not know
/// `x-request-timeout` and need not learn how long our caller waits.
///
/// ```
/// use std::time::Duration;
/// use palisade_resilience::{deadline::AttemptTimeoutLayer, rejection::{Rejection, reasons}};
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let call = service_fn(|_| std::future::pending::<Result<http::Response<String>, Rejection>>());
/// let products = AttemptTimeoutLayer::new("products", Duration::from_millis(10)).layer(call);
/// let rejected = products.oneshot(http::Request::new(())).await.unwrap_err();
/// assert_eq!(rejected.reason(), &reasons::DEADLINE_EXCEEDED);
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct AttemptTimeoutLayer {
    protocol: Protocol,
    limit: Duration,
    timeouts: Arc<Counters>,
}

/// Timeout counters by the limit that expired.
#[derive(Debug)]
struct Counters {
    attempts: TimeoutCounters,
    calls: TimeoutCounters,
}

impl AttemptTimeoutLayer {
    /// Creates a layer that allows `limit` for an attempt at `target`, over gRPC.
    pub fn new(target: &'static str, limit: Duration) -> Self {
        let counters = Counters { attempts: TimeoutCounters::new(target, "attempt"), calls: TimeoutCounters::new(target, "deadline") };
        Self { protocol: Protocol::Grpc, limit, timeouts: Arc::new(counters) }
    }

    /// Sets the protocol of the calls.
    #[must_use]
    pub fn over(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }
}

impl<S> Layer<S> for AttemptTimeoutLayer {
    type Service = AttemptTimeout<S>;

    fn layer(&self, inner: S) -> AttemptTimeout<S> {
        AttemptTimeout { inner, layer: self.clone() }
    }
}

/// See [`AttemptTimeoutLayer`].
#[derive(Debug, Clone)]
pub struct AttemptTimeout<S> {
    inner: S,
    layer: AttemptTimeoutLayer,
}

impl<S, B, R> Service<Request<B>> for AttemptTimeout<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Rejection>,
    R: Body,
    R::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<TimeoutBody<R>>;
    type Error = Rejection;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let now = Instant::now();
        let call = request.extensions().get::<CallDeadline>().map(|deadline| deadline.0);
        let grpc = self.layer.protocol == Protocol::Grpc;
        let requested = request.headers().get(grpc_timeout::HEADER).filter(|_| grpc).and_then(grpc_timeout::parse);
        let requested = requested.map(|timeout| TimeLimit::caller(now, timeout, self.layer.limit));
        let own = TimeLimit::operator(now, self.layer.limit);
        let time_limit = [call, requested].into_iter().flatten().fold(own, TimeLimit::earlier);
        let limit = time_limit.remaining(now);
        if limit.is_zero() {
            return ResponseFuture::refused(expired().without_evidence(time_limit.origin()));
        }
        let stream = may_last(&request);
        let request_end = request.extensions().get::<RequestEnd>().cloned();
        // The limit of a stream applies to its head and is not sent; its end is sent, if it has
        // one.
        let end = request.extensions().get::<StreamEnd>().map(|end| end.0.at());
        let header_timeout = if stream || request_end.is_some() { end.map(|end| end.saturating_duration_since(now)) } else { Some(limit) };
        if let Some(header_timeout) = header_timeout.filter(|_| grpc && !crate::planted!("deadline not passed on")) {
            request.headers_mut().insert(grpc_timeout::HEADER, grpc_timeout::format(header_timeout));
        }
        // Inner layers see from it whether they were dropped by this timeout, and who chose it.
        request.extensions_mut().insert(CallDeadline(time_limit));
        let Counters { attempts, calls } = &*self.layer.timeouts;
        let expired = match () {
            // Counted by the server of this process.
            () if time_limit.is_inherited() => None,
            () if limit < self.layer.limit => Some(calls),
            () => Some(attempts),
        };
        let timer = ResponseTimer::new(now, time_limit, (Role::Client, self.layer.protocol), expired.cloned());
        let timer = if stream { timer.for_stream(end) } else { timer };
        let timer = match request_end {
            Some(request_end) => timer.starting_at_request_end(request_end, end),
            None => timer,
        };
        ResponseFuture::running(self.inner.call(request), timer)
    }
}

#[cfg(test)]
mod tests;
