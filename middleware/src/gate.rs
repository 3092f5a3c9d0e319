//! What those layers share that look at a request once: it passes, or it is refused.

use futures_util::future::{Either, MapErr, Ready, TryFutureExt, ready};
use tower::Service;

use crate::rejection::Rejection;

/// The inner service's future, or a refusal.
pub(crate) type ResponseFuture<F, T, E> = Either<MapErr<F, fn(E) -> Rejection>, Ready<Result<T, Rejection>>>;

/// Calls `service` with a request that was found good.
pub(crate) fn pass<S, R>(service: &mut S, checked: Result<R, Rejection>) -> ResponseFuture<S::Future, S::Response, S::Error>
where
    S: Service<R>,
    S::Error: Into<Rejection>,
{
    match checked {
        Ok(request) => Either::Left(service.call(request).map_err(Into::into as fn(S::Error) -> Rejection)),
        Err(rejection) => Either::Right(ready(Err(rejection))),
    }
}
