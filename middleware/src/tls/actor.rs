//! Whose certificate it is must be who the token says calls: a token that leaks from one service is of no use to another.

use std::{
    sync::Arc,
    task::{self, Poll},
};

use http::Request;
use tower::{Layer, Service};

use crate::{
    context::Context,
    gate::{self, pass},
    rejection::{Rejection, reasons},
};

/// The DNS names that the caller's certificate is made out to; in the request's extensions if the port wants certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerNames(pub Arc<[String]>);

/// Refuses a request whose internal token was made by another service than the caller's certificate names. Sits below authentication.
///
/// ```
/// use std::sync::Arc;
///
/// use palisade_middleware::{auth::Principal, context::Context, tls::{ActorLayer, CallerNames}};
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let handler = service_fn(async |_| Ok::<_, std::convert::Infallible>("done"));
/// let service = ActorLayer.layer(handler);
/// let asked = |by: &str| {
///     let mut request = http::Request::new(());
///     let gateway = Principal { actor: Some("gateway".to_owned()), ..Principal::absent_user("alice") };
///     request.extensions_mut().insert(Context::background().on_behalf_of(Arc::new(gateway)));
///     request.extensions_mut().insert(CallerNames(Arc::new([by.to_owned()]))); // `server::accept` does so.
///     request
/// };
/// assert!(service.clone().oneshot(asked("gateway")).await.is_ok());
/// assert!(service.oneshot(asked("orders")).await.is_err());
/// # });
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ActorLayer;

impl<S> Layer<S> for ActorLayer {
    type Service = Actor<S>;

    fn layer(&self, inner: S) -> Actor<S> {
        Actor { inner }
    }
}

/// See [`ActorLayer`].
#[derive(Debug, Clone)]
pub struct Actor<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for Actor<S>
where
    S: Service<Request<B>>,
    S::Error: Into<Rejection>,
{
    type Response = S::Response;
    type Error = Rejection;
    type Future = gate::ResponseFuture<S::Future, S::Response, S::Error>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let checked = another(&request).map_or(Ok(request), Err);
        pass(&mut self.inner, checked)
    }
}

fn another<B>(request: &Request<B>) -> Option<Rejection> {
    let CallerNames(names) = request.extensions().get()?;
    let actor = Context::of(request)?.principal.as_ref()?.actor.as_deref()?;
    if names.iter().any(|name| name == actor) {
        return None;
    }
    let cause = format!("a token made by {actor} came by a connection of {names:?}");
    Some(Rejection::new(&reasons::UNAUTHENTICATED, "the token is not valid here").with_source(cause))
}
