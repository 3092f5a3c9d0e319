//! Whose certificate it is must be who the token says calls: a token that leaks from one service is of no use to another.

use std::sync::Arc;

use http::Request;
use tower::Layer;

use crate::{
    context::Context,
    filter::{Predicate, Filter},
    rejection::{Rejection, reasons},
};

/// The DNS names that the caller's certificate is made out to; in the request's extensions if the port wants certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificateNames(pub Arc<[String]>);

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
pub struct PeerIdentityLayer;

impl<S> Layer<S> for PeerIdentityLayer {
    type Service = Filter<S, Self>;

    fn layer(&self, inner: S) -> Filter<S, Self> {
        Filter::new(inner, *self)
    }
}

impl Predicate for PeerIdentityLayer {
    fn check<B>(&self, request: Request<B>) -> Result<Request<B>, Rejection> {
        check_peer_matches_actor(&request).map_or(Ok(request), Err)
    }
}

fn check_peer_matches_actor<B>(request: &Request<B>) -> Option<Rejection> {
    let PeerCertificateNames(names) = request.extensions().get()?;
    let actor = Context::of(request)?.principal.as_ref()?.actor.as_deref()?;
    if names.iter().any(|name| name == actor) {
        return None;
    }
    let cause = format!("a token made by {actor} came by a connection of {names:?}");
    Some(Rejection::new(&reasons::UNAUTHENTICATED, "the token is not valid here").with_source(cause))
}
