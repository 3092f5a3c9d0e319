//! A stack whose type is of no interest, and what becomes of its refusals.

use std::{convert::Infallible, fmt, future::Future, pin::Pin, sync::Arc};

use futures_util::{FutureExt, future::Either};
use http::{Request, Response};
use tonic::{Status, body::Body};
use tower::{Service, ServiceExt};

use crate::{rejection::Rejection, respond::RejectionExtension};

pub(super) type CallFuture<R, E> = Pin<Box<dyn Future<Output = Result<Response<R>, E>> + Send>>;

/// Not tower's boxed service, which is boxed anew with every clone of a client.
pub(super) trait Call<R, E>: fmt::Debug + Send + Sync {
    fn call(&self, request: Request<Body>) -> CallFuture<R, E>;
}

/// A stack, shared by all clones of a client.
pub(super) struct BoxedStack<S, E> {
    pub(super) stack: S,
    /// What we refused ourselves is an error: a response would lose the cause on its way to the handler.
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
        // Ready as a rule: then the call is made here, and is all that is moved into the box.
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

/// The refusal as a generated client knows it; its source is the refusal itself.
pub(super) fn to_status(rejection: Arc<Rejection>) -> Status {
    let mut status = rejection.to_status();
    status.set_source(rejection);
    status
}
