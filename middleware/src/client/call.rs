//! A stack whose type is of no interest, and what becomes of its refusals.

use std::{convert::Infallible, fmt, future::Future, pin::Pin, sync::Arc};

use futures_util::{FutureExt, future::Either};
use http::{Request, Response};
use tonic::{Status, body::Body};
use tower::{Service, ServiceExt};

use crate::{rejection::Rejection, respond::Refused};

pub(super) type Answer<R, E> = Pin<Box<dyn Future<Output = Result<Response<R>, E>> + Send>>;

/// Not tower's boxed service, which is boxed anew with every clone of a client.
pub(super) trait Call<R, E>: fmt::Debug + Send + Sync {
    fn call(&self, request: Request<Body>) -> Answer<R, E>;
}

/// A stack, shared by all clones of a client.
pub(super) struct Shared<S, E> {
    pub(super) stack: S,
    /// What we refused ourselves is an error: a response would lose the cause on its way to the handler.
    pub(super) refusal: fn(Arc<Rejection>) -> E,
}

impl<S, E> fmt::Debug for Shared<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl<S, R, E> Call<R, E> for Shared<S, E>
where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible, Future: Send + 'static> + Clone + Send + Sync + 'static,
    E: 'static,
{
    fn call(&self, request: Request<Body>) -> Answer<R, E> {
        let (mut stack, refusal) = (self.stack.clone(), self.refusal);
        // Ready as a rule: then the call is made here, and is all that is moved into the box.
        let ready = stack.ready().now_or_never().is_some();
        let call = if ready { Either::Left(stack.call(request)) } else { Either::Right(stack.oneshot(request)) };
        Box::pin(call.map(move |answer| {
            let mut response = answer.unwrap_or_else(|never| match never {});
            match response.extensions_mut().remove() {
                Some(Refused(rejection)) => Err(refusal(rejection)),
                None => Ok(response),
            }
        }))
    }
}

/// The refusal as a generated client knows it; its source is the refusal itself.
pub(super) fn status(refusal: Arc<Rejection>) -> Status {
    let mut status = refusal.to_status();
    status.set_source(refusal);
    status
}
