//! Credentials of outbound calls: adds an internal token. User tokens never leave the gateway,
//! because each hop that received one could replay it.

use std::sync::Arc;

use http::{Request, header};
use tower::Layer;

use super::InternalTokens;
use palisade_resilience::{
    context, deadline,
    filter::{Filter, Predicate},
    priority::PRIORITY_HEADER,
    rejection::Rejection,
    request_context::REQUEST_ID_HEADER,
};

/// Signs calls to `target` on behalf of the current principal, and propagates the request id and
/// the priority.
///
/// ```
/// use std::sync::Arc;
/// use palisade_middleware::{
///     auth::{CredentialsLayer, InternalTokens, TokenPolicy, keys::SigningKey},
///     clock::SystemClock,
///     rejection::Rejection,
/// };
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let key = SigningKey::from_pem(&SigningKey::generate_pem()?)?;
/// let policy = TokenPolicy::Service(&["orders:count"]);
/// let tokens = InternalTokens::new("gateway", policy, key, Arc::new(SystemClock));
/// let call = service_fn(async |request: http::Request<()>| {
///     Ok::<_, Rejection>(request.headers().contains_key("authorization"))
/// });
/// let orders = CredentialsLayer::new(Arc::new(tokens), "orders").layer(call);
/// assert!(orders.oneshot(http::Request::new(())).await?);
/// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct CredentialsLayer {
    tokens: Arc<InternalTokens>,
    target: &'static str,
}

impl CredentialsLayer {
    /// Creates a layer that signs tokens for `target` (their `aud`).
    pub fn new(tokens: Arc<InternalTokens>, target: &'static str) -> Self {
        Self { tokens, target }
    }
}

impl<S> Layer<S> for CredentialsLayer {
    type Service = Filter<S, Self>;

    fn layer(&self, inner: S) -> Filter<S, Self> {
        Filter::new(inner, self.clone())
    }
}

impl Predicate for CredentialsLayer {
    fn check<B>(&self, mut request: Request<B>) -> Result<Request<B>, Rejection> {
        let headers = request.headers_mut();
        let user = context::with_current(|context| {
            headers.insert(REQUEST_ID_HEADER, context.request_id.header());
            // Set together with the token, because the target ignores the priority of calls without
            // an internal token.
            headers.insert(PRIORITY_HEADER, context.priority.into());
            context.principal.clone()
        });
        // For the same reason.
        deadline::announce_origin(&mut request);
        let authorization = self.tokens.authorization(self.target, user.flatten().as_deref())?;
        request.headers_mut().insert(header::AUTHORIZATION, authorization);
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::Service;

    use super::*;
    use crate::{TokenPolicy, keys::SigningKey};
    use palisade_resilience::{clock::SystemClock, context::Context, priority::Priority};

    #[tokio::test]
    async fn credentials_propagate_request_id_and_priority() {
        let key = SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap();
        let tokens = Arc::new(InternalTokens::new("orders", TokenPolicy::Service(&[]), key, Arc::new(SystemClock)));
        let inner = tower::service_fn(async |request: Request<()>| Ok::<_, Infallible>(request));
        let mut credentials = CredentialsLayer::new(tokens, "products").layer(inner);
        let context = Context { priority: Priority::Batch, ..Context::background() };
        let sent = context::scope(context.clone(), async { credentials.call(Request::new(())).await }).await.unwrap();
        assert_eq!(sent.headers()[PRIORITY_HEADER], "batch");
        assert_eq!(sent.headers()[REQUEST_ID_HEADER], context.request_id.header());
    }
}
