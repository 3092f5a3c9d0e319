//! Peer identity check: the client certificate must match the actor of the internal token, so that
//! a token leaked by one service is useless to another.

use std::sync::Arc;

use http::Request;
use tower::Layer;

use palisade_resilience::{
    context::Context,
    filter::{Filter, Predicate},
    rejection::{Rejection, reasons},
};

/// DNS names of the client certificate; in the request extensions if the port requires client
/// certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificateNames(pub Arc<[String]>);

/// Rejects a request whose internal token was issued by a service other than the one in the client
/// certificate. Placed below authentication.
///
/// ```
/// use std::sync::Arc;
///
/// use palisade_middleware::{
///     auth::Principal,
///     context::Context,
///     tls::{PeerCertificateNames, PeerIdentityLayer},
/// };
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let handler = service_fn(async |_| Ok::<_, std::convert::Infallible>("done"));
/// let service = PeerIdentityLayer.layer(handler);
/// let request = |certificate: &str| {
///     let mut request = http::Request::new(());
///     let actor = Some("gateway".to_owned());
///     let gateway = Principal { actor, ..Principal::on_behalf_of("alice") };
///     request.extensions_mut().insert(Context::background().on_behalf_of(Arc::new(gateway)));
///     // Set by `server::accept`.
///     request.extensions_mut().insert(PeerCertificateNames(Arc::new([certificate.to_owned()])));
///     request
/// };
/// assert!(service.clone().oneshot(request("gateway")).await.is_ok());
/// assert!(service.oneshot(request("orders")).await.is_err());
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
    let cause = format!("token issued by {actor} received from a peer with certificate names {names:?}");
    Some(Rejection::new(&reasons::UNAUTHENTICATED, "the token is not valid here").with_source(cause))
}
