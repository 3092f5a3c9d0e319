//! Reception of request bodies: a request is complete before it takes a permit of the limits
//! behind.
//!
//! A peer decides when its body arrives. A permit held meanwhile would let a few slow peers stop
//! all others. So the body of every request is received first, within a size, a time, and a fair
//! share of the requests being received. A body that has arrived with its head, as most do, costs
//! nothing.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tower::{BoxError, Layer, Service};

use crate::{
    caller::CallerKey,
    concurrency_limit::{SharedLimit, SharedPermit},
    context::Context,
    prefetched_body::{PrefetchedBody, TooLarge},
    rejection::{Rejection, reasons},
    time_limit::TimeLimit,
};

/// Wait before the next attempt, ± 50 %.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Receives the body of each request before it calls the service. Placed behind the layers that
/// need only the head, and before the limits of concurrent work.
///
/// Request streams ([`Method::request_stream`](crate::method_table::Method::request_stream)) are
/// passed on at once. Requests of infrastructure methods, such as health checks, are counted apart:
/// slow requests of others must not block them.
///
/// - A body above the maximum is passed on with an error at its end: the handler decides what it
///   answers.
/// - A body that does not arrive in time is rejected with `request_timeout`.
///
/// ```
/// use std::time::Duration;
/// use palisade_resilience::request_body::RequestBodyLayer;
/// # use http_body_util::{BodyExt, Full};
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let handler = service_fn(async |request: http::Request<_>| {
///     let body = BodyExt::collect(request.into_body()).await.unwrap();
///     Ok::<_, std::convert::Infallible>(http::Response::new(body.to_bytes()))
/// });
/// let layer = RequestBodyLayer::new(1_024, Duration::from_secs(10), 100);
/// let request = http::Request::new(Full::new(bytes::Bytes::from("order")));
/// assert_eq!(layer.layer(handler).oneshot(request).await.unwrap().body(), "order");
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct RequestBodyLayer(Arc<Reception>);

#[derive(Debug)]
struct Reception {
    max_bytes: usize,
    timeout: Duration,
    /// Requests of methods, and of infrastructure methods.
    receiving: [Arc<SharedLimit>; 2],
}

impl RequestBodyLayer {
    /// Receives bodies of at most `max_bytes` within `timeout` or the deadline of the request, and
    /// at most `max_receiving` at once, fairly shared between callers.
    pub fn new(max_bytes: usize, timeout: Duration, max_receiving: usize) -> Self {
        let limit = |name| SharedLimit::new(name, u32::try_from(max_receiving).unwrap_or(u32::MAX));
        let receiving = [limit("request_body"), limit("infrastructure_body")];
        Self(Arc::new(Reception { max_bytes, timeout, receiving }))
    }
}

impl<S> Layer<S> for RequestBodyLayer {
    type Service = RequestBody<S>;

    fn layer(&self, inner: S) -> RequestBody<S> {
        RequestBody { inner, reception: self.0.clone() }
    }
}

/// Service of [`RequestBodyLayer`].
#[derive(Debug, Clone)]
pub struct RequestBody<S> {
    inner: S,
    reception: Arc<Reception>,
}

impl<S, B, R> Service<Request<B>> for RequestBody<S>
where
    S: Service<Request<PrefetchedBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<Rejection>,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Response = Response<R>;
    type Error = Rejection;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let passes = request.body().is_end_stream() || Context::method_of(&request).is_some_and(|method| method.request_stream);
        let mut request = request.map(PrefetchedBody::new);
        if !passes && declared_length(request.headers()).is_some_and(|length| length > self.reception.max_bytes) {
            request.body_mut().fail(Box::new(TooLarge(self.reception.max_bytes)));
        } else if !passes {
            // The service polled ready goes with the request; the clone takes its place here.
            let clone = self.inner.clone();
            let service = std::mem::replace(&mut self.inner, clone);
            let waiting = Waiting { service, request, reception: self.reception.clone(), wait: None };
            return ResponseFuture { state: State::Receiving { waiting: Some(waiting) } };
        }
        ResponseFuture { state: State::Running { inner: self.inner.call(request) } }
    }
}

fn declared_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Request being received.
struct Waiting<S, B: Body> {
    service: S,
    request: Request<PrefetchedBody<B>>,
    reception: Arc<Reception>,
    /// Set once the body has to be waited for.
    wait: Option<Wait>,
}

/// Time limit and permit of a body that has to be waited for.
struct Wait {
    timer: Pin<Box<Sleep>>,
    _permit: SharedPermit,
}

impl<S, B> Waiting<S, B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Rejection>> {
        let max_bytes = self.reception.max_bytes;
        let body = self.request.body_mut();
        if body.poll_receive(max_bytes, cx).is_ready() {
            if !body.is_complete() {
                body.fail(Box::new(TooLarge(max_bytes)));
            }
            return Poll::Ready(Ok(()));
        }
        if self.wait.is_none() {
            self.wait = Some(self.start_wait()?);
        }
        if let Some(wait) = &mut self.wait {
            ready!(wait.timer.as_mut().poll(cx));
        }
        let detail = "the request body did not arrive in time";
        Poll::Ready(Err(Rejection::new(&reasons::REQUEST_TIMEOUT, detail)))
    }

    fn start_wait(&self) -> Result<Wait, Rejection> {
        let infrastructure = Context::method_of(&self.request).is_some_and(|method| method.infrastructure);
        let permit = self.reception.receiving[usize::from(infrastructure)].try_acquire(CallerKey::of(&self.request));
        let permit = permit.map_err(|refused| refused.rejection("requests being received", RETRY_AFTER))?;
        let end = Instant::now() + self.reception.timeout;
        let deadline = Context::of(&self.request).and_then(|context| context.deadline).map(TimeLimit::at);
        let end = deadline.map_or(end, |deadline| deadline.min(end));
        Ok(Wait { timer: Box::pin(tokio::time::sleep_until(end)), _permit: permit })
    }
}

pin_project! {
    /// Future of [`RequestBody`].
    pub struct ResponseFuture<S: Service<Request<PrefetchedBody<B>>>, B: Body> {
        #[pin]
        state: State<S, B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S: Service<Request<PrefetchedBody<B>>>, B: Body> {
        Receiving { waiting: Option<Waiting<S, B>> },
        Running { #[pin] inner: S::Future },
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<PrefetchedBody<B>>, Response = Response<R>>,
    S::Error: Into<Rejection>,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Output = Result<Response<R>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProjection::Running { inner } => return inner.poll(cx).map_err(Into::into),
                StateProjection::Receiving { waiting } => {
                    let Some(receiving) = waiting else { unreachable!("future polled after completion") };
                    let received = ready!(receiving.poll(cx));
                    // Returns the permit before the service is called.
                    let received_request = waiting.take().map(|waiting| (waiting.service, waiting.request));
                    received?;
                    let Some((mut service, request)) = received_request else { unreachable!("checked above") };
                    State::Running { inner: service.call(request) }
                }
            };
            state.set(next);
        }
    }
}

#[cfg(test)]
mod tests;
