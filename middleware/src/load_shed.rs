//! Concurrency limit with load shedding: a hard cap on requests in flight. Requests above it are
//! rejected at once, before they cost anything.

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

use crate::{
    body::{InstrumentedBody, PermitGuard},
    context::Context,
    counter::AtomicCounter,
    jitter,
    metrics::{as_f64, register_observable_sum},
    rejection::{Rejection, reasons},
};

/// Concurrency limit: counts requests from arrival until the last byte of the response is sent, and
/// rejects those above `limit`.
///
/// The permit is taken in `call`, because idle connections would hold a permit taken in
/// `poll_ready`.
///
/// ```
/// use palisade_middleware::{load_shed::ConcurrencyLimitLayer, rejection::reasons};
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let handler = service_fn(async |_| {
///     Ok::<_, std::convert::Infallible>(http::Response::new("done".to_owned()))
/// });
/// let service = ConcurrencyLimitLayer::new(1).layer(handler);
/// let first = service.clone().oneshot(http::Request::new(())).await.unwrap();
/// let rejected = service.clone().oneshot(http::Request::new(())).await.unwrap_err();
/// assert_eq!(rejected.reason(), &reasons::OVERLOADED);
/// drop(first); // Its body was still to be sent.
/// assert!(service.oneshot(http::Request::new(())).await.is_ok());
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct ConcurrencyLimitLayer {
    in_flight: Arc<InFlight>,
}

impl ConcurrencyLimitLayer {
    /// Creates a limit of `limit` concurrent requests over all connections.
    pub fn new(limit: usize) -> Self {
        metrics::gauge!("palisade.concurrency.limit", "limiter" => "hard").set(as_f64(limit));
        let shed = metrics::counter!("palisade.requests.shed", "reason" => "concurrency");
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let in_flight = Arc::new(InFlight { count: AtomicCounter::new(), limit, shed });
        let in_use = metrics::gauge!("palisade.concurrency.in_use", "limiter" => "hard");
        register_observable_sum(&in_flight, in_use, |in_flight| in_flight.count.get());
        Self { in_flight }
    }
}

impl<S> Layer<S> for ConcurrencyLimitLayer {
    type Service = ConcurrencyLimit<S>;

    fn layer(&self, inner: S) -> ConcurrencyLimit<S> {
        ConcurrencyLimit { inner, in_flight: self.in_flight.clone() }
    }
}

struct InFlight {
    count: AtomicCounter,
    limit: u32,
    shed: metrics::Counter,
}

impl std::fmt::Debug for InFlight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InFlight").field("count", &self.count).field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// Permit of a request in flight, released when dropped.
#[derive(Debug)]
pub struct Permit(Arc<InFlight>);

impl InFlight {
    fn acquire(self: &Arc<Self>) -> Option<Permit> {
        if !self.count.try_increment(self.limit) {
            self.shed.increment(1);
            return None;
        }
        Some(Permit(self.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.count.decrement();
    }
}

/// See [`ConcurrencyLimitLayer`].
#[derive(Debug, Clone)]
pub struct ConcurrencyLimit<S> {
    inner: S,
    in_flight: Arc<InFlight>,
}

impl<S, B, R> Service<Request<B>> for ConcurrencyLimit<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<Rejection>,
    R: Body,
{
    type Response = Response<InstrumentedBody<R, PermitGuard<Permit>>>;
    type Error = Rejection;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // Health probes bypass the limit: a rejected probe would make a busy process look dead.
        let exempt = Context::of(&request).and_then(|context| context.method).is_some_and(|method| method.infrastructure);
        let permit = if exempt { None } else { self.in_flight.acquire() };
        let inner = (exempt || permit.is_some()).then(|| self.inner.call(request));
        ResponseFuture { inner, permit }
    }
}

pin_project! {
    /// The future of [`ConcurrencyLimit`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        // `None`: rejected, the limit was reached.
        #[pin]
        inner: Option<F>,
        permit: Option<Permit>,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<Rejection>,
    R: Body,
{
    type Output = Result<Response<InstrumentedBody<R, PermitGuard<Permit>>>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else {
            let refusal = Rejection::new(&reasons::OVERLOADED, "too many requests in flight");
            // Jittered, so that rejected clients do not return together.
            return Poll::Ready(Err(refusal.with_retry_after(jitter::jittered(Duration::from_secs(1), 0.5, jitter::random_unit))));
        };
        let response = ready!(inner.poll(cx)).map_err(Into::into)?;
        let permit = PermitGuard(this.permit.take());
        Poll::Ready(Ok(response.map(|body| InstrumentedBody::new(body, permit))))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn concurrency_limit_holds_permit_until_body_ends() {
        let layer = ConcurrencyLimitLayer::new(1);
        let service =
            layer.layer(tower::service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("x")))) }));
        let first = service.clone().oneshot(Request::new(())).await.unwrap();
        let refused = service.clone().oneshot(Request::new(())).await.unwrap_err();
        assert_eq!(refused.reason(), &reasons::OVERLOADED);
        first.into_body().collect().await.unwrap();
        assert!(service.oneshot(Request::new(())).await.is_ok());
        assert_eq!(layer.in_flight.count.get(), 0);
    }
}
