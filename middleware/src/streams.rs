//! Answers that go on: how many at once, for how long, and an end that nobody takes for the end of what they tell of.
//!
//! A stream ([`Method::streaming`](crate::method_table::Method::streaming)) has no deadline but its caller's, and counts for no latency;
//! it has its place under the hard cap on requests, and one here. It comes to an end with its connection, when that has to go, or of old
//! age: an HTTP body is then simply over, a gRPC stream has the status UNAVAILABLE with the reason `STREAM_ENDED`. Either way its reader
//! opens it again and goes on where it was.

mod body;
mod limits;
mod connection_draining;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use self::{body::OpenStream, limits::StreamLimits};
use crate::{context::Context, jitter, rejection::Rejection, respond::Protocol, server};

pub use body::StreamBody;
pub use limits::StreamPermit;
pub use connection_draining::ConnectionDraining;

/// How much older or younger than another a stream may get: those that began together must not end together.
const AGE_JITTER: f64 = 0.1;

/// In the extensions of a call whose answer is a stream, by the contracts.
#[derive(Debug, Clone, Copy)]
pub struct IsStreaming;

/// Whether the answer to this call is a stream.
pub(crate) fn is_stream<B>(call: &Request<B>) -> bool {
    call.extensions().get::<IsStreaming>().is_some()
}

/// Bounds the streams among the answers of a server; whatever is no stream passes.
///
/// ```
/// use palisade_middleware::{respond::Protocol, server::Config, streams::StreamsLayer};
///
/// let layer = StreamsLayer::new(Protocol::Grpc, &Config::default());
/// ```
#[derive(Debug, Clone)]
pub struct StreamsLayer(Arc<Policy>);

#[derive(Debug)]
struct Policy {
    protocol: Protocol,
    max_age: Duration,
    limits: Arc<StreamLimits>,
}

impl StreamsLayer {
    /// With the limits of `config`.
    pub fn new(protocol: Protocol, config: &server::Config) -> Self {
        let caps = StreamLimits::new(protocol, config.max_streams, config.max_streams_per_caller);
        Self(Arc::new(Policy { protocol, max_age: Duration::from_millis(config.max_stream_age_ms), limits: caps }))
    }
}

impl<S> Layer<S> for StreamsLayer {
    type Service = Streams<S>;

    fn layer(&self, inner: S) -> Streams<S> {
        Streams { inner, policy: self.0.clone() }
    }
}

/// See [`StreamsLayer`].
#[derive(Debug, Clone)]
pub struct Streams<S> {
    inner: S,
    policy: Arc<Policy>,
}

impl Policy {
    /// What bounds the stream that this request asks for; `None` if it asks for none.
    fn acquire_stream<B>(&self, request: &Request<B>) -> Result<Option<OpenStream>, Rejection> {
        let Some(context) = Context::of(request).filter(|context| context.is_stream()) else { return Ok(None) };
        // Whoever watches our health has no name, and must not be kept from it by whoever reads.
        let quiet = context.method.is_some_and(|method| method.infrastructure);
        let caller = context.principal.as_ref().map_or("", |principal| &principal.subject);
        let place = if quiet { None } else { Some(self.limits.try_acquire(caller)?) };
        let age = jitter::jittered(self.max_age, AGE_JITTER, jitter::random_unit);
        Ok(Some(OpenStream::new(self.protocol, place, request.extensions().get::<ConnectionDraining>(), age)))
    }
}

impl<S, B, R> Service<Request<B>> for Streams<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<Rejection>,
    R: Body,
{
    type Response = Response<StreamBody<R>>;
    type Error = Rejection;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.policy.acquire_stream(&request) {
            Ok(stream) => ResponseFuture { state: State::Running { inner: self.inner.call(request), stream } },
            Err(rejection) => ResponseFuture { state: State::Refused { rejection: Some(rejection) } },
        }
    }
}

pin_project! {
    /// The future of [`Streams`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    #[derive(Debug)]
    enum State<F> {
        Refused { rejection: Option<Rejection> },
        Running { #[pin] inner: F, stream: Option<OpenStream> },
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<Rejection>,
{
    type Output = Result<Response<StreamBody<R>>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Refused { rejection } => {
                Poll::Ready(Err(rejection.take().expect("a future is not polled after it was ready")))
            }
            StateProjection::Running { inner, stream } => {
                let response = ready!(inner.poll(cx)).map_err(Into::into)?;
                let stream = stream.take();
                Poll::Ready(Ok(response.map(|body| StreamBody::new(body, stream))))
            }
        }
    }
}

#[cfg(test)]
mod tests;
