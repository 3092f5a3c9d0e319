//! Early rejection: sheds requests before authentication while the adaptive limit sheds load.

use std::sync::Arc;

use http::Request;
use tower::Layer;

use super::limiter::Limiter;
use crate::{
    caller::CallerKey,
    context::Context,
    filter::{Filter, Predicate},
    rejection::Rejection,
};

/// Rejects requests that the adaptive limit behind would shed, before they cost a signature, a rate
/// limit and a queue. It reads the state of that limit and decides by the same rule: the queue is
/// too long, and the caller is not within its share. The caller is known by its address, or by
/// credentials that were verified lately; a request with other credentials passes.
#[derive(Debug, Clone)]
pub struct EarlyRejectionLayer(pub(super) Option<Arc<Limiter>>);

/// Service of [`EarlyRejectionLayer`].
pub type EarlyRejection<S> = Filter<S, EarlyRejectionLayer>;

impl<S> Layer<S> for EarlyRejectionLayer {
    type Service = EarlyRejection<S>;

    fn layer(&self, inner: S) -> EarlyRejection<S> {
        Filter::new(inner, self.clone())
    }
}

impl Predicate for EarlyRejectionLayer {
    fn check<B>(&self, request: Request<B>) -> Result<Request<B>, Rejection> {
        let method = Context::method_of(&request);
        // An unknown path is rejected by its access rule, not by load.
        if let (Some(limiter), Some(method)) = (&self.0, method)
            && !method.is_exempt_from_limits()
        {
            limiter.refuse_early(|aliases| match CallerKey::of_credentials(request.headers()) {
                Some(credentials) => aliases.caller_of(credentials),
                None => Some(CallerKey::of(&request)),
            })?;
        }
        Ok(request)
    }
}
