//! Panic handling: a panic in a handler becomes one rejected request instead of a dropped
//! connection.

use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{self, Poll},
};

use http::Request;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::rejection::Rejection;

/// Rejects a request with INTERNAL when the inner service panics. Sits inside metrics and permits,
/// so that they see the rejection.
///
/// ```
/// use palisade_resilience::{catch_panic::CatchPanicLayer, rejection::{Rejection, reasons}};
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let handler = service_fn(async |request: http::Request<u32>| {
///     Ok::<_, Rejection>(100 / request.into_body())
/// });
/// let service = CatchPanicLayer::new().layer(handler);
/// let rejected = service.oneshot(http::Request::new(0)).await.unwrap_err();
/// assert_eq!(rejected.reason(), &reasons::INTERNAL);
/// # });
/// ```
#[derive(Debug, Clone, Copy)]
pub struct CatchPanicLayer(());

impl CatchPanicLayer {
    /// Creates the layer and its metric: `rate()` would miss the first panic if that created the
    /// series.
    #[expect(clippy::new_without_default, reason = "new() registers a metric")]
    pub fn new() -> Self {
        panic_counter().increment(0);
        Self(())
    }
}

impl<S> Layer<S> for CatchPanicLayer {
    type Service = CatchPanic<S>;

    fn layer(&self, inner: S) -> CatchPanic<S> {
        CatchPanic { inner }
    }
}

/// See [`CatchPanicLayer`].
#[derive(Debug, Clone)]
pub struct CatchPanic<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for CatchPanic<S>
where
    S: Service<Request<B>>,
    S::Error: Into<Rejection>,
{
    type Response = S::Response;
    type Error = Rejection;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The service is not used again after a panic: each connection has its own clone, and
        // shared state is behind `Arc`s.
        match catch_unwind(AssertUnwindSafe(|| self.inner.call(request))) {
            Ok(future) => ResponseFuture { inner: Some(future), panicked: None },
            Err(panic) => ResponseFuture { inner: None, panicked: Some(panic_rejection(&*panic)) },
        }
    }
}

/// Looked up on each panic, because they are rare.
pub(crate) fn panic_counter() -> metrics::Counter {
    crate::counter!("palisade.panics")
}

fn panic_rejection(panic: &(dyn Any + Send)) -> Rejection {
    panic_counter().increment(1);
    Rejection::internal(format!("the handler panicked: {}", panic_message(panic)))
}

/// Returns the message of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let message = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    message.unwrap_or("no message")
}

pin_project! {
    /// The future of [`CatchPanic`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: Option<F>,
        panicked: Option<Rejection>,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<R, E>>,
    E: Into<Rejection>,
{
    type Output = Result<R, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(rejection) = this.panicked.take() {
            return Poll::Ready(Err(rejection));
        }
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { unreachable!("future polled after completion") };
        match catch_unwind(AssertUnwindSafe(|| inner.poll(cx))) {
            Ok(poll) => poll.map_err(Into::into),
            Err(panic) => {
                this.inner.set(None);
                Poll::Ready(Err(panic_rejection(&*panic)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::ServiceExt;

    use super::*;
    use crate::rejection::reasons;

    #[tokio::test]
    async fn panic_is_rejected_as_internal() {
        let service = CatchPanicLayer::new().layer(tower::service_fn(|request: Request<bool>| async move {
            assert!(*request.body(), "on purpose");
            Ok::<_, Infallible>(())
        }));
        let refused = service.clone().oneshot(Request::new(false)).await.unwrap_err();
        assert_eq!(refused.reason(), &reasons::INTERNAL);
        assert!(service.oneshot(Request::new(true)).await.is_ok());
    }
}
