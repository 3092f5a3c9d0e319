//! Concurrency limits: load shedding, bulkheads and stream limits, one permit layer.
//!
//! A permit is taken in `call`, before any work. A permit taken in `poll_ready` would be held by
//! idle connections. There is no queue: above the limit a request is rejected at once. All limits
//! are shared fairly between callers: one caller never takes all permits, and when a limit is
//! reached the callers above their share are rejected first.
//!
//! | limit | counts | permit is held until | where |
//! |---|---|---|---|
//! | [`RequestLimit`] | requests being processed (load shedding) | the response exists | server |
//! | [`StreamLimit`] | open streams, in total and per caller | the last byte | server |
//! | [`Bulkhead`] | calls to one target | the last byte from the target | client |
//!
//! A permit of a server covers the work of this process and never the pace of its peer: the request
//! is received before ([`request_body`](crate::request_body)), and the response is complete in
//! memory or a stream with its own limit.

mod bulkhead;
mod requests;
mod shared;
mod streams;

use std::{
    future::Future,
    pin::Pin,
    task::{self, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::{
    body::{InstrumentedBody, PermitGuard},
    rejection::Rejection,
};

pub use bulkhead::Bulkhead;
pub use requests::RequestLimit;
pub(crate) use shared::SharedLimit;
pub use shared::SharedPermit;
pub use streams::{StreamLimit, StreamPermit};

/// Source of permits. Clones share one count.
pub trait Limit: Clone {
    /// One unit of concurrency, released when dropped.
    type Permit;

    /// Takes a permit for `request`; `None` if the request is exempt.
    fn try_acquire<B>(&self, request: &Request<B>) -> Result<Option<Self::Permit>, Rejection>;

    /// Whether the permit of `request` is released with the response head.
    fn ends_with_head<B>(&self, _request: &Request<B>) -> bool {
        false
    }
}

/// Rejects requests above a limit.
///
/// ```
/// use palisade_resilience::{
///     concurrency_limit::{Bulkhead, ConcurrencyLimitLayer},
///     rejection::reasons,
/// };
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let handler = service_fn(async |_| Ok::<_, std::convert::Infallible>(http::Response::new("done".to_owned())));
/// let service = ConcurrencyLimitLayer(Bulkhead::new("products", 1)).layer(handler);
/// let first = service.clone().oneshot(http::Request::new(())).await.unwrap();
/// let rejected = service.clone().oneshot(http::Request::new(())).await.unwrap_err();
/// assert_eq!(rejected.reason(), &reasons::OVERLOADED);
/// drop(first); // The body was not read yet: it held the permit.
/// assert!(service.oneshot(http::Request::new(())).await.is_ok());
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct ConcurrencyLimitLayer<L>(pub L);

impl<L: Limit, S> Layer<S> for ConcurrencyLimitLayer<L> {
    type Service = ConcurrencyLimit<S, L>;

    fn layer(&self, inner: S) -> ConcurrencyLimit<S, L> {
        ConcurrencyLimit { inner, limit: self.0.clone() }
    }
}

/// See [`ConcurrencyLimitLayer`].
#[derive(Debug, Clone)]
pub struct ConcurrencyLimit<S, L> {
    inner: S,
    limit: L,
}

impl<S, L, B, R> Service<Request<B>> for ConcurrencyLimit<S, L>
where
    L: Limit,
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<Rejection>,
    R: Body,
{
    type Response = Response<InstrumentedBody<R, PermitGuard<L::Permit>>>;
    type Error = Rejection;
    type Future = ResponseFuture<S::Future, L::Permit>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let state = match self.limit.try_acquire(&request) {
            Ok(permit) => {
                let ends_with_head = self.limit.ends_with_head(&request);
                if crate::planted!("permit leaked") {
                    std::mem::forget(self.limit.try_acquire(&request));
                }
                State::Running { inner: self.inner.call(request), permit, ends_with_head }
            }
            Err(rejection) => State::Rejected { rejection: Some(rejection) },
        };
        ResponseFuture { state }
    }
}

pin_project! {
    /// Future of [`ConcurrencyLimit`].
    #[derive(Debug)]
    pub struct ResponseFuture<F, P> {
        #[pin]
        state: State<F, P>,
    }
}

pin_project! {
    #[project = StateProjection]
    #[derive(Debug)]
    enum State<F, P> {
        Rejected { rejection: Option<Rejection> },
        Running { #[pin] inner: F, permit: Option<P>, ends_with_head: bool },
    }
}

impl<F, P, R, E> Future for ResponseFuture<F, P>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<Rejection>,
    R: Body,
{
    type Output = Result<Response<InstrumentedBody<R, PermitGuard<P>>>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Rejected { rejection } => Poll::Ready(Err(rejection.take().expect("polled after completion"))),
            StateProjection::Running { inner, permit, ends_with_head } => {
                let response = ready!(inner.poll(cx)).map_err(Into::into)?;
                let permit = PermitGuard(permit.take().filter(|_| !*ends_with_head));
                Poll::Ready(Ok(InstrumentedBody::observe(response, permit)))
            }
        }
    }
}

#[cfg(test)]
mod tests;
