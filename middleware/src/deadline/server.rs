//! The server's side: how long the caller waits, or how long we work for anyone.

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
    timeout_body::{ResponseFuture, Role, TimeoutBody, ResponseTimer},
};
use crate::{
    context,
    rejection::{Rejection, reasons},
    respond::Protocol,
    trace,
};

/// How many milliseconds an HTTP caller waits.
pub const REQUEST_TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-request-timeout");

/// Sets the deadline of a request and holds the answer to it, until its last byte; of a stream the beginning, and the rest to what its
/// caller asked for.
///
/// Sits inside the layer that makes the [`context::Context`], outside everything that can take time.
///
/// ```
/// use std::time::Duration;
/// use palisade_middleware::{deadline::DeadlineLayer, rejection::{Rejection, reasons}, respond::Protocol};
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let handler = service_fn(|_| std::future::pending::<Result<http::Response<String>, Rejection>>());
/// let layer = DeadlineLayer::new(Protocol::Grpc, Duration::from_secs(10), Duration::from_secs(30));
/// let request = http::Request::builder().header("grpc-timeout", "10m").body(()).unwrap();
/// let refused = layer.layer(handler).oneshot(request).await.unwrap_err();
/// assert_eq!(refused.reason(), &reasons::DEADLINE_EXCEEDED);
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct DeadlineLayer {
    protocol: Protocol,
    default: Duration,
    max: Duration,
    remaining: metrics::Histogram,
    malformed: metrics::Counter,
    timeouts: metrics::Counter,
}

impl DeadlineLayer {
    /// `default` for a caller that says nothing, never more than `max`.
    pub fn new(protocol: Protocol, default: Duration, max: Duration) -> Self {
        Self {
            protocol,
            default,
            max,
            remaining: metrics::histogram!("palisade.deadline.remaining"),
            malformed: metrics::counter!("palisade.request.timeouts.malformed"),
            timeouts: metrics::counter!("palisade.request.timeouts", "target" => "server", "kind" => "deadline"),
        }
    }

    /// How long the caller of a request with these headers waits, if it says so.
    fn requested_timeout(&self, headers: &HeaderMap) -> Result<Option<Duration>, Rejection> {
        let requested = match self.protocol {
            // A peer's framework wrote this, not its user: the gRPC spec leaves open what to do, and a default serves better than an error.
            Protocol::Grpc => headers.get(grpc_timeout::HEADER).and_then(|value| {
                let timeout = grpc_timeout::parse(value);
                if timeout.is_none() {
                    self.malformed.increment(1);
                }
                timeout
            }),
            Protocol::Http => headers.get(REQUEST_TIMEOUT_HEADER).map(|value| parse_millis(value.as_bytes())).transpose()?,
        };
        if let Some(asked) = requested {
            self.remaining.record(asked);
        }
        Ok(requested)
    }
}

fn parse_millis(value: &[u8]) -> Result<Duration, Rejection> {
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let millis = digits.and_then(|digits| digits.parse().ok());
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| Rejection::new(&reasons::INVALID_PARAMETER, "x-request-timeout must be a whole number of milliseconds"))
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
            Ok(Some(Duration::ZERO)) => return ResponseFuture::refused(expired()),
            Ok(asked) => asked,
            Err(rejection) => return ResponseFuture::refused(rejection),
        };
        let stream = context::Context::of(&request).is_some_and(context::Context::is_stream);
        let limit = requested.unwrap_or(self.layer.default).min(self.layer.max);
        // A stream lasts as long as its caller wants, be that for ever; only its beginning must come in time.
        let whole = if stream { requested } else { Some(limit) };
        if let Some(context) = request.extensions_mut().get_mut::<context::Context>() {
            context.deadline = whole.map(|whole| now + whole);
        }
        if let Some(whole) = whole {
            trace::record("app.deadline_ms", i64::try_from(whole.as_millis()).unwrap_or(i64::MAX));
        }
        let timer = ResponseTimer::new(now, limit, (Role::Server, self.layer.protocol), self.layer.timeouts.clone());
        let timer = if stream { timer.for_stream(whole.map(|whole| now + whole)) } else { timer };
        ResponseFuture::running(self.inner.call(request), timer)
    }
}

#[cfg(test)]
mod tests;
