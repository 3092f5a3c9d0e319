//! What those layers share that look at a request once: it passes, or it is refused.

use std::task::{self, Poll};

use futures_util::future::{Either, MapErr, Ready, TryFutureExt, ready};
use http::Request;
use tower::Service;

use crate::rejection::Rejection;

/// Looks at a request before the service behind it does.
pub trait Predicate {
    /// The request as it goes on, or why it does not.
    fn check<B>(&self, request: Request<B>) -> Result<Request<B>, Rejection>;
}

/// A service that gets what passed a [`Check`].
#[derive(Debug, Clone)]
pub struct Filter<S, C> {
    inner: S,
    predicate: C,
}

impl<S, C> Filter<S, C> {
    /// `inner`, behind `check`.
    pub fn new(inner: S, check: C) -> Self {
        Self { inner, predicate: check }
    }
}

/// The inner service's future, or a refusal.
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
