//! Request filter (like `tower::filter`): passes a request on, possibly changed, or rejects it.

use std::task::{self, Poll};

use futures_util::future::{Either, MapErr, Ready, TryFutureExt, ready};
use http::Request;
use tower::Service;

use crate::rejection::Rejection;

/// Predicate of a filter.
pub trait Predicate {
    /// Returns the request to pass on, or the rejection.
    fn check<B>(&self, request: Request<B>) -> Result<Request<B>, Rejection>;
}

/// Service that receives only requests accepted by a [`Predicate`].
#[derive(Debug, Clone)]
pub struct Filter<S, C> {
    inner: S,
    predicate: C,
}

impl<S, C> Filter<S, C> {
    /// Puts `check` in front of `inner`.
    pub fn new(inner: S, check: C) -> Self {
        Self { inner, predicate: check }
    }
}

/// Future of the inner service, or a rejection.
type ResponseFuture<F, T, E> = Either<MapErr<F, fn(E) -> Rejection>, Ready<Result<T, Rejection>>>;

impl<S, C, B> Service<Request<B>> for Filter<S, C>
where
    S: Service<Request<B>>,
    S::Error: Into<Rejection>,
    C: Predicate,
{
    type Response = S::Response;
    type Error = Rejection;
    type Future = ResponseFuture<S::Future, S::Response, S::Error>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.predicate.check(request) {
            Ok(request) => Either::Left(self.inner.call(request).map_err(Into::into as fn(S::Error) -> Rejection)),
            Err(rejection) => Either::Right(ready(Err(rejection))),
        }
    }
}
