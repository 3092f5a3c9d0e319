//! Limits for streaming responses: open streams in total and per caller, maximum age, and a status
//! that asks the client to reconnect.
//!
//! A stream ([`Method::streaming`](crate::method_table::Method::streaming)) has no deadline but its
//! caller's and is not sampled for latency. It holds a permit of the concurrency limit and one of
//! the stream limits. The server ends it when its connection must close or when it reaches its
//! maximum age: an HTTP body then ends normally, a gRPC stream ends with UNAVAILABLE and the reason
//! `STREAM_ENDED`. Either way the client reconnects and resumes where it was.

mod body;
mod connection_draining;
mod limits;

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
pub use connection_draining::ConnectionDraining;
pub use limits::StreamPermit;

/// Jitter of the maximum age, as a fraction: streams that began together must not end together.
const AGE_JITTER: f64 = 0.1;

/// Marks a call, in its extensions, whose response is a stream by its contract.
#[derive(Debug, Clone, Copy)]
pub struct IsStreaming;

/// Returns whether the response to this call is a stream.
pub(crate) fn is_stream<B>(call: &Request<B>) -> bool {
    call.extensions().get::<IsStreaming>().is_some()
}

/// Limits the streaming responses of a server; other responses pass unchanged.
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
    /// Creates a layer with the limits of `config`.
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
    /// Acquires the permit for the stream that this request opens; `None` if its response is no
    /// stream.
    fn acquire_stream<B>(&self, request: &Request<B>) -> Result<Option<OpenStream>, Rejection> {
        let Some(context) = Context::of(request).filter(|context| context.is_stream()) else { return Ok(None) };
        // A watch of the health service is anonymous, and open streams of clients must not block
        // it.
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
            StateProjection::Refused { rejection } => Poll::Ready(Err(rejection.take().expect("future polled after completion"))),
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
