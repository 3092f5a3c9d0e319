//! Bulkhead: a cap on concurrent calls to one target, so that a slow target does not take all
//! capacity of this service.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer, Service};

use crate::{
    body::{InstrumentedBody, PermitGuard},
    metrics::register_observable_sum,
    rejection::{Rejection, reasons},
    streams::is_stream,
};

/// Bulkhead: rejects calls above a limit at once, without a queue.
///
/// One permit is taken in `call` for all attempts of a call, because a call waiting for a retry
/// still holds memory. It is released when the last byte of the response was read.
///
/// ```
/// use palisade_middleware::{bulkhead::BulkheadLayer, rejection::{Rejection, reasons}};
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let call = service_fn(async |_| Ok::<_, Rejection>(http::Response::new("answer".to_owned())));
/// let products = BulkheadLayer::new("products", 1).layer(call);
/// let unread = products.clone().oneshot(http::Request::new(())).await?;
/// let rejected = products.oneshot(http::Request::new(())).await.unwrap_err();
/// assert_eq!(rejected.reason(), &reasons::OVERLOADED);
/// # drop(unread); Ok::<_, Rejection>(()) }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct BulkheadLayer {
    target: &'static str,
    permits: Arc<Semaphore>,
}

impl BulkheadLayer {
    /// Creates a limit of `limit` concurrent calls to `target`.
    pub fn new(target: &'static str, limit: u32) -> Self {
        metrics::gauge!("palisade.concurrency.limit", "limiter" => target).set(limit);
        // A 32-bit number of permits is below `Semaphore::MAX_PERMITS` on every server platform.
        let places = Arc::new(Semaphore::new(limit as usize));
        let in_use = metrics::gauge!("palisade.concurrency.in_use", "limiter" => target);
        register_observable_sum(&places, in_use, move |places| limit - u32::try_from(places.available_permits()).unwrap_or(limit));
        Self { target, permits: places }
    }

    fn try_acquire(&self) -> Result<OwnedSemaphorePermit, Rejection> {
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            let refusal = Rejection::new(&reasons::OVERLOADED, format!("too many calls to {} in flight", self.target));
            return Err(refusal.with_retry_after(Duration::from_secs(1)));
        };
        Ok(permit)
    }
}

impl<S> Layer<S> for BulkheadLayer {
    type Service = Bulkhead<S>;

    fn layer(&self, inner: S) -> Bulkhead<S> {
        Bulkhead { inner, layer: self.clone() }
    }
}

/// See [`BulkheadLayer`].
#[derive(Debug, Clone)]
pub struct Bulkhead<S> {
    inner: S,
    layer: BulkheadLayer,
}

impl<S, B, R> Service<Request<B>> for Bulkhead<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Rejection>,
    R: Body,
{
    type Response = Response<InstrumentedBody<R, PermitGuard<OwnedSemaphorePermit>>>;
    type Error = Rejection;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ResponseFuture {
            state: match self.layer.try_acquire() {
                // A stream holds its permit only until its head; the serving side limits the number
                // of streams.
                Ok(place) if is_stream(&request) => {
                    State::Running { inner: self.inner.call(request), place: PermitGuard(Some(place)), stream: true }
                }
                Ok(place) => State::Running { inner: self.inner.call(request), place: PermitGuard(Some(place)), stream: false },
                Err(rejection) => State::Refused { rejection: Some(rejection) },
            },
        }
    }
}

pin_project! {
    /// The future of [`Bulkhead`].
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
        Running { #[pin] inner: F, place: PermitGuard<OwnedSemaphorePermit>, stream: bool },
    }
}

impl<F, R> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, Rejection>>,
    R: Body,
{
    type Output = Result<Response<InstrumentedBody<R, PermitGuard<OwnedSemaphorePermit>>>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Refused { rejection } => Poll::Ready(Err(rejection.take().expect("future polled after completion"))),
            StateProjection::Running { inner, place, stream } => {
                let response = ready!(inner.poll(cx))?;
                let place = PermitGuard(place.0.take().filter(|_| !*stream));
                Poll::Ready(Ok(response.map(|body| InstrumentedBody::new(body, place))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn bulkhead_holds_permit_until_body_ends() {
        let inner = tower::service_fn(async |_: Request<()>| Ok::<_, Rejection>(Response::new(Full::new(Bytes::from("x")))));
        let bulkhead = BulkheadLayer::new("products", 1).layer(inner);
        let first = bulkhead.clone().oneshot(Request::new(())).await.unwrap();
        let refusal = bulkhead.clone().oneshot(Request::new(())).await.unwrap_err();
        assert_eq!(refusal.reason(), &reasons::OVERLOADED);
        first.into_body().collect().await.unwrap();
        assert!(bulkhead.oneshot(Request::new(())).await.is_ok());
    }

    #[tokio::test]
    async fn dropped_call_releases_its_permit() {
        let inner = tower::service_fn(|_: Request<()>| std::future::pending::<Result<Response<Full<Bytes>>, Rejection>>());
        let mut bulkhead = BulkheadLayer::new("products", 1).layer(inner);
        drop(bulkhead.call(Request::new(())));
        assert!(bulkhead.layer.try_acquire().is_ok());
    }
}
