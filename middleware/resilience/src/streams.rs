//! Streaming responses: maximum age, connection draining, and a status that asks the client to
//! reconnect.
//!
//! A stream ([`Method::streaming`](crate::method_table::Method::streaming)) has no deadline but its
//! caller's and is not sampled for latency. [`StreamLimit`](crate::concurrency_limit::StreamLimit)
//! caps how many are open. The server ends it when its connection must close or when it reaches its
//! maximum age: an HTTP body then ends normally, a gRPC stream ends with UNAVAILABLE and the reason
//! `STREAM_ENDED`. Either way the client reconnects and resumes where it was.
//!
//! A [`StreamGuard`] in the extensions of the request ends the stream with its own rejection, such
//! as an expired token: a gRPC stream with that status, server-sent events with an event `error`
//! whose data is the problem document.

mod body;
mod connection_draining;
mod request_end;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use self::body::OpenStream;
use crate::{context::Context, jitter, protocol::Protocol, rejection::Rejection};

pub use crate::streaming_call::{IsStreaming, is_stream};
pub use body::StreamBody;
pub use connection_draining::ConnectionDraining;
pub(crate) use request_end::{RequestEnd, SignalEnd};

/// Kind of the response of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseKind {
    /// One message.
    Unary,
    /// A stream of messages.
    Stream,
    /// Not declared: either.
    Undeclared,
}

/// Jitter of the maximum age, as a fraction: streams that began together must not end together.
const AGE_JITTER: f64 = 0.1;

/// Condition under which a stream ends early.
pub trait EndStream: Send + Sync + fmt::Debug {
    /// Returns the time until the next check, or the rejection that ends the stream.
    fn check(&self) -> Result<Duration, Rejection>;
}

/// Condition for the stream that a request opens, in its extensions.
#[derive(Debug, Clone)]
pub struct StreamGuard(pub Arc<dyn EndStream>);

/// Marks a call, in its extensions, whose response may be a stream, because no contract declares
/// it.
#[derive(Debug, Clone, Copy)]
pub struct UndeclaredResponse;

/// Returns whether the response to this call may last: only the wait for its head is limited.
pub(crate) fn may_last<B>(call: &Request<B>) -> bool {
    is_stream(call) || is_undeclared(call)
}

/// Returns the kind of the response to this call.
pub fn response_kind<B>(call: &Request<B>) -> ResponseKind {
    if is_stream(call) {
        ResponseKind::Stream
    } else if is_undeclared(call) {
        ResponseKind::Undeclared
    } else {
        ResponseKind::Unary
    }
}

/// Returns whether no contract declares the response to this call.
pub(crate) fn is_undeclared<B>(call: &Request<B>) -> bool {
    call.extensions().get::<UndeclaredResponse>().is_some()
}

/// Ends the streaming responses of a server; other responses pass unchanged.
///
/// ```
/// use std::time::Duration;
/// use palisade_resilience::{protocol::Protocol, streams::StreamsLayer};
///
/// let layer = StreamsLayer::new(Protocol::Grpc, Duration::from_secs(600));
/// ```
#[derive(Debug, Clone)]
pub struct StreamsLayer(Policy);

#[derive(Debug, Clone, Copy)]
struct Policy {
    protocol: Protocol,
    max_age: Duration,
}

impl StreamsLayer {
    /// Ends each stream after `max_age`, 10 % more or less.
    pub fn new(protocol: Protocol, max_age: Duration) -> Self {
        // Preregistered: `rate()` misses the first event of a new series.
        for reason in body::REASONS {
            body::ended_counter(protocol, reason).increment(0);
        }
        Self(Policy { protocol, max_age })
    }
}

impl<S> Layer<S> for StreamsLayer {
    type Service = Streams<S>;

    fn layer(&self, inner: S) -> Streams<S> {
        Streams { inner, policy: self.0 }
    }
}

/// See [`StreamsLayer`].
#[derive(Debug, Clone)]
pub struct Streams<S> {
    inner: S,
    policy: Policy,
}

impl Policy {
    /// Limits of the stream that this request opens; `None` if its response is no stream.
    fn open<B>(self, request: &Request<B>) -> Option<OpenStream> {
        Context::of(request).filter(|context| context.is_stream())?;
        let age = jitter::jittered(self.max_age, AGE_JITTER, jitter::random_unit);
        let stream = OpenStream::new(self.protocol, request.extensions().get::<ConnectionDraining>(), age);
        Some(match request.extensions().get::<StreamGuard>() {
            Some(guard) => {
                let request_id = Context::of(request).map(|context| context.request_id.clone());
                stream.with_guard(guard.clone(), request.uri().path(), request_id)
            }
            None => stream,
        })
    }
}

impl<S, B, R> Service<Request<B>> for Streams<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes>,
{
    type Response = Response<StreamBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let stream = self.policy.open(&request);
        ResponseFuture { inner: self.inner.call(request), stream }
    }
}

pin_project! {
    /// Future of [`Streams`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        stream: Option<OpenStream>,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body<Data = Bytes>,
{
    type Output = Result<Response<StreamBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        let is_event_stream =
            response.headers().get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
        let stream = this.stream.take().map(|stream| stream.with_events(is_event_stream));
        Poll::Ready(Ok(response.map(|body| StreamBody::new(body, stream))))
    }
}

#[cfg(test)]
mod tests;
