//! Type-erased client stack, and the conversion of its rejections.

use std::{convert::Infallible, fmt, future::Future, pin::Pin, sync::Arc};

use futures_util::{FutureExt, future::Either};
use http::{Request, Response};
use tonic::{Status, body::Body};
use tower::{Service, ServiceExt};

use palisade_resilience::{rejection::Rejection, respond::RejectionExtension};

pub(super) type CallFuture<R, E> = Pin<Box<dyn Future<Output = Result<Response<R>, E>> + Send>>;

/// Object-safe call. `tower::util::BoxCloneService` would allocate for every clone of a client.
pub(super) trait Call<R, E>: fmt::Debug + Send + Sync {
    fn call(&self, request: Request<Body>) -> CallFuture<R, E>;
}

/// Stack shared by all clones of a client.
pub(super) struct BoxedStack<S, E> {
    pub(super) stack: S,
    /// Converts a local rejection to an error: a response would lose its cause on the way to the
    /// handler.
    pub(super) into_error: fn(Arc<Rejection>) -> E,
}

impl<S, E> fmt::Debug for BoxedStack<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl<S, R, E> Call<R, E> for BoxedStack<S, E>
where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible, Future: Send + 'static> + Clone + Send + Sync + 'static,
    E: 'static,
{
    fn call(&self, request: Request<Body>) -> CallFuture<R, E> {
        let (mut stack, into_error) = (self.stack.clone(), self.into_error);
        // The stack is usually ready: the call then starts here, and only its future is moved into
        // the box.
        let ready = stack.ready().now_or_never().is_some();
        let call = if ready { Either::Left(stack.call(request)) } else { Either::Right(stack.oneshot(request)) };
        Box::pin(call.map(move |result| {
            let mut response = result.unwrap_or_else(|never| match never {});
            match response.extensions_mut().remove() {
                Some(RejectionExtension(rejection)) => Err(into_error(rejection)),
                None => Ok(response),
            }
        }))
    }
}

/// Converts a rejection to a `Status` with the rejection as its source.
pub(super) fn to_status(rejection: Arc<Rejection>) -> Status {
    let mut status = rejection.to_status();
    status.set_source(rejection);
    status
}
