//! Authorization by method table. Default deny: a method without an entry reaches no handler.

use http::{Request, header};
use tower::Layer;

use super::{Principal, authenticate::challenge};
use palisade_resilience::{
    context::Context,
    deadline,
    filter::{Filter, Predicate},
    method_table::{Access, Allowed},
    planted,
    rejection::{Rejection, reasons},
    request_context,
    respond::Protocol,
};

/// Authorization layer: rejects callers without the scope that the method table requires. Default
/// deny: a route without an entry is closed. The priority and the deadline origin that an internal
/// caller states apply from here on.
///
/// ```
/// use palisade_middleware::{
///     auth::AuthorizeLayer,
///     rejection::{Rejection, reasons},
///     respond::Protocol,
/// };
/// use tower::{Layer, ServiceExt, service_fn};
///
/// # tokio_test::block_on(async {
/// let handler = service_fn(async |_: http::Request<()>| Ok::<_, Rejection>("done"));
/// let layer = AuthorizeLayer(Protocol::Http);
/// let rejection = layer.layer(handler).oneshot(http::Request::new(())).await.unwrap_err();
/// assert_eq!(rejection.reason(), &reasons::NOT_FOUND);
/// # });
/// ```
#[derive(Debug, Clone, Copy)]
pub struct AuthorizeLayer(pub Protocol);

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Filter<S, Self>;

    fn layer(&self, inner: S) -> Filter<S, Self> {
        Filter::new(inner, *self)
    }
}

impl Predicate for AuthorizeLayer {
    fn check<B>(&self, mut request: Request<B>) -> Result<Request<B>, Rejection> {
        let context = Context::of(&request);
        let Some(method) = context.and_then(|context| context.method) else {
            return Err(self.not_in_table(request.extensions().get()));
        };
        check(method.access, context.and_then(|context| context.principal.as_deref()))?;
        request_context::apply_inbound_priority(&mut request);
        deadline::apply_inbound_origin(&mut request);
        Ok(request)
    }
}

impl AuthorizeLayer {
    /// Rejection for a method without an entry, with the same detail as the router's for an unknown
    /// route.
    fn not_in_table(self, allowed: Option<&Allowed>) -> Rejection {
        match (self.0, allowed) {
            (Protocol::Grpc, _) => Rejection::new(&reasons::UNIMPLEMENTED, "unknown method"),
            (Protocol::Http, None) => Rejection::new(&reasons::NOT_FOUND, "there is nothing at this path"),
            (Protocol::Http, Some(Allowed(allow))) => {
                Rejection::new(&reasons::METHOD_NOT_ALLOWED, "see the header allow for the methods of this path")
                    .with_header(header::ALLOW, allow.clone())
            }
        }
    }
}

fn check(access: Access, principal: Option<&Principal>) -> Result<(), Rejection> {
    if access == Access::Public {
        return Ok(());
    }
    let Some(principal) = principal else {
        return Err(Rejection::new(&reasons::UNAUTHENTICATED, "a bearer token is required"));
    };
    let (granted, required) = match access {
        Access::Public => (true, ""),
        Access::Scope(scope) => (principal.has_scope(scope), scope),
        Access::AnyScope(scopes) => (scopes.iter().any(|scope| principal.has_scope(scope)), scopes.first().copied().unwrap_or("")),
        Access::Service { scope, callers } => {
            let caller = principal.actor.as_deref().is_some_and(|actor| callers.contains(&actor));
            (caller && principal.has_scope(scope), scope)
        }
    };
    if granted || planted!("scope not checked") {
        return Ok(());
    }
    let rejection = Rejection::new(&reasons::INSUFFICIENT_SCOPE, format!("the scope {required} is needed"));
    Err(challenge(rejection, Some("insufficient_scope"), Some(required)))
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt;

    use super::*;

    fn principal(scopes: &[&str], actor: Option<&str>) -> Principal {
        let mut principal = Principal::on_behalf_of("alice");
        principal.scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        principal.actor = actor.map(str::to_owned);
        principal
    }

    #[tokio::test]
    async fn authorize_denies_methods_not_in_table() {
        let allowed = Allowed(http::HeaderValue::from_static("GET,HEAD"));
        for (protocol, allowed, reason) in [
            (Protocol::Http, None, &reasons::NOT_FOUND),
            (Protocol::Http, Some(allowed), &reasons::METHOD_NOT_ALLOWED),
            (Protocol::Grpc, None, &reasons::UNIMPLEMENTED),
        ] {
            let mut request = Request::new(());
            // A caller with other scopes is rejected as well.
            request.extensions_mut().insert(Context::background().on_behalf_of(principal(&["a:read"], None).into()));
            let listed = allowed.map(|allowed| request.extensions_mut().insert(allowed)).is_some();
            let handler = tower::service_fn(async |_| -> Result<(), Rejection> { unreachable!("the request is rejected") });
            let refused = AuthorizeLayer(protocol).layer(handler).oneshot(request).await.unwrap_err();
            assert_eq!(refused.reason(), reason);
            assert_eq!(refused.headers().iter().any(|(name, value)| name == header::ALLOW && value == "GET,HEAD"), listed);
        }
    }

    #[test]
    fn authorize_checks_scopes_and_callers() {
        let service = Access::Service { scope: "s:reserve", callers: &["orders"] };
        let any = Access::AnyScope(&["o:read", "o:admin"]);
        let cases = [
            (Access::Public, &[][..], None, true),
            (Access::Scope("a:read"), &["a:read"][..], None, true),
            (Access::Scope("a:read"), &["a:reader", "A:READ"][..], None, false),
            (any, &["o:admin"][..], None, true),
            (any, &["o:write"][..], None, false),
            (service, &["s:reserve"][..], Some("orders"), true),
            (service, &["s:reserve"][..], Some("gateway"), false),
            (service, &["s:reserve"][..], None, false),
            (service, &["a:read"][..], Some("orders"), false),
        ];
        for (access, scopes, actor, granted) in cases {
            assert_eq!(check(access, Some(&principal(scopes, actor))).is_ok(), granted, "{access:?} {scopes:?} {actor:?}");
        }
        assert_eq!(check(any, None).unwrap_err().reason(), &reasons::UNAUTHENTICATED);
    }
}
