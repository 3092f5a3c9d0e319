//! Request deadline of a server: the timeout of the caller, within our own maximum.

use std::{
    error::Error,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, HeaderName, Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::{
    expired, grpc_timeout,
    origin::OriginClaim,
    timeout_body::{ResponseFuture, ResponseTimer, Role, TimeoutBody, TimeoutCounters},
};
use crate::{
    context,
    protocol::Protocol,
    rejection::{Rejection, reasons},
    time_limit::{LimitOrigin, TimeLimit},
    trace,
};

/// Request timeout of an HTTP caller, milliseconds.
pub const REQUEST_TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-request-timeout");

/// Request deadline: enforced until the last byte of the response. For a stream it applies to the
/// response head, and the rest of the stream only to a timeout that the caller sent.
///
/// Sits inside the layer that creates the [`context::Context`] and outside everything that can take
/// time.
///
/// ```
/// use std::time::Duration;
/// use palisade_resilience::deadline::DeadlineLayer;
/// use palisade_resilience::rejection::{Rejection, reasons};
/// use palisade_resilience::protocol::Protocol;
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let handler = service_fn(|_| {
///     std::future::pending::<Result<http::Response<String>, Rejection>>()
/// });
/// let (default, max) = (Duration::from_secs(10), Duration::from_secs(30));
/// let layer = DeadlineLayer::new(Protocol::Grpc, default, max);
/// let request = http::Request::builder().header("grpc-timeout", "10m").body(()).unwrap();
/// let rejected = layer.layer(handler).oneshot(request).await.unwrap_err();
/// assert_eq!(rejected.reason(), &reasons::DEADLINE_EXCEEDED);
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct DeadlineLayer {
    protocol: Protocol,
    default: Duration,
    max: Duration,
    remaining: metrics::Histogram,
    malformed: metrics::Counter,
    timeouts: TimeoutCounters,
}

impl DeadlineLayer {
    /// Creates a layer that allows `default` to a request without a timeout, and never more than
    /// `max`.
    pub fn new(protocol: Protocol, default: Duration, max: Duration) -> Self {
        Self {
            protocol,
            default,
            max,
            remaining: crate::histogram!("palisade.deadline.remaining"),
            malformed: crate::counter!("palisade.grpc_timeout.parse_errors"),
            timeouts: TimeoutCounters::new("server", "deadline"),
        }
    }

    /// Returns the time limit of a request with this timeout. A caller that allows at least as much
    /// as the operator leaves the choice to the operator.
    fn time_limit(&self, now: Instant, requested: Option<Duration>) -> TimeLimit {
        match requested {
            Some(asked) if asked < self.default => TimeLimit::caller(now, asked, self.default),
            requested => TimeLimit::operator(now, requested.unwrap_or(self.default).min(self.max)),
        }
    }

    /// Returns the timeout in these request headers, if there is one.
    fn requested_timeout(&self, headers: &HeaderMap) -> Result<Option<Duration>, Rejection> {
        let requested = match self.protocol {
            // A malformed value comes from the caller's framework, not from its user. The gRPC spec
            // leaves the reaction open, and the default serves better than an error.
            Protocol::Grpc if crate::planted!("deadline of the caller ignored") => None,
            Protocol::Grpc => headers.get(grpc_timeout::HEADER).and_then(|value| {
                let timeout = grpc_timeout::parse(value);
                if timeout.is_none() {
                    self.malformed.increment(1);
                }
                timeout
            }),
            Protocol::Http => http_timeout(headers)?,
        };
        if let Some(asked) = requested {
            self.remaining.record(asked.min(self.max));
        }
        Ok(requested)
    }
}

/// Returns the timeout of an HTTP request. An invalid one is an error of the caller: unlike a gRPC
/// framework, it wrote the header itself.
fn http_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Rejection> {
    let mut values = headers.get_all(REQUEST_TIMEOUT_HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let millis = digits.and_then(|digits| digits.parse().ok()).filter(|millis| *millis > 0);
    match (millis, values.next()) {
        (Some(millis), None) => Ok(Some(Duration::from_millis(millis))),
        (_, Some(_)) => Err(Rejection::new(&reasons::INVALID_PARAMETER, "x-request-timeout must not be given more than once")),
        (None, None) => {
            let rule = "x-request-timeout must be a whole number of milliseconds, from 1 to 18446744073709551615";
            Err(Rejection::new(&reasons::INVALID_PARAMETER, rule))
        }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner, layer: self.clone() }
    }
}

/// See [`DeadlineLayer`].
#[derive(Debug, Clone)]
pub struct Deadline<S> {
    inner: S,
    layer: DeadlineLayer,
}

impl<S, B, R> Service<Request<B>> for Deadline<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<Rejection>,
    R: Body,
    R::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<TimeoutBody<R>>;
    type Error = Rejection;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let now = Instant::now();
        let requested = match self.layer.requested_timeout(request.headers()) {
            Ok(Some(Duration::ZERO)) => return ResponseFuture::refused(expired().without_evidence(LimitOrigin::Caller)),
            Ok(asked) => asked,
            Err(rejection) => return ResponseFuture::refused(rejection),
        };
        let stream = context::Context::of(&request).is_some_and(context::Context::is_stream);
        let limit = self.layer.time_limit(now, requested);
        // The caller alone limits the duration of a stream, which may be unlimited; the server
        // limits only the time to its head.
        let whole = if stream { requested.map(|asked| TimeLimit::caller(now, asked, self.layer.default)) } else { Some(limit) };
        if let Some(context) = request.extensions_mut().get_mut::<context::Context>() {
            context.deadline = whole.map(TimeLimit::of_request);
        }
        if let Some(whole) = whole {
            trace::record("app.deadline_ms", i64::try_from(whole.remaining(now).as_millis()).unwrap_or(i64::MAX));
        }
        let timer = ResponseTimer::new(now, limit, (Role::Server, self.layer.protocol), Some(self.layer.timeouts.clone()));
        let mut timer = if stream { timer.for_stream(whole.map(TimeLimit::at)) } else { timer };
        // Not over HTTP, where callers are external.
        if self.layer.protocol == Protocol::Grpc && requested.is_some() {
            let claim = OriginClaim::from_headers(request.headers());
            request.extensions_mut().insert(claim.clone());
            timer = timer.with_claim(claim);
        }
        ResponseFuture::running(self.inner.call(request), timer)
    }
}

#[cfg(test)]
mod tests;
