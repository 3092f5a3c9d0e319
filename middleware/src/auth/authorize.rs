//! Whether the caller may call this method: the method table decides, and what is not in it reaches nothing.

use std::task::{self, Poll};

use futures_util::future::{Either, MapErr, Ready, TryFutureExt, ready};
use http::Request;
use tower::{Layer, Service};

use super::{Principal, authenticate::challenge};
use crate::{
    context::Context,
    method_table::Access,
    priority,
    rejection::{Rejection, reasons},
};

/// Refuses callers who lack what the method table asks for. What a service of ours says of the priority counts from here on.
#[derive(Debug, Clone, Copy)]
pub struct AuthorizeLayer;

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorize<S>;

    fn layer(&self, inner: S) -> Authorize<S> {
        Authorize { inner }
    }
}

/// See [`AuthorizeLayer`].
#[derive(Debug, Clone)]
pub struct Authorize<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for Authorize<S>
where
    S: Service<Request<B>>,
    S::Error: Into<Rejection>,
{
    type Response = S::Response;
    type Error = Rejection;
    type Future = Either<MapErr<S::Future, fn(S::Error) -> Rejection>, Ready<Result<S::Response, Rejection>>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let context = Context::of(&request);
        // Without an entry the router below has nothing but "not found" to give.
        let access = context.and_then(|context| context.method).map_or(Access::Public, |method| method.access);
        let principal = context.and_then(|context| context.principal.as_deref());
        match check(access, principal) {
            Ok(()) => {
                priority::believe(&mut request);
                Either::Left(self.inner.call(request).map_err(Into::into as fn(S::Error) -> Rejection))
            }
            Err(rejection) => Either::Right(ready(Err(rejection))),
        }
    }
}

fn check(access: Access, principal: Option<&Principal>) -> Result<(), Rejection> {
    if access == Access::Public {
        return Ok(());
    }
    let Some(principal) = principal else {
        return Err(Rejection::new(&reasons::UNAUTHENTICATED, "a bearer token is needed"));
    };
    let (granted, wanted) = match access {
        Access::Public => (true, ""),
        Access::Scope(scope) => (principal.has_scope(scope), scope),
        Access::AnyScope(scopes) => (scopes.iter().any(|scope| principal.has_scope(scope)), scopes.first().copied().unwrap_or("")),
        Access::Service { scope, callers } => {
            let caller = principal.actor.as_deref().is_some_and(|actor| callers.contains(&actor));
            (caller && principal.has_scope(scope), scope)
        }
    };
    if granted {
        return Ok(());
    }
    let rejection = Rejection::new(&reasons::INSUFFICIENT_SCOPE, format!("the scope {wanted} is needed"));
    Err(challenge(rejection, Some("insufficient_scope"), Some(wanted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(scopes: &[&str], actor: Option<&str>) -> Principal {
        let mut principal = Principal::absent_user("alice");
        principal.scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        principal.actor = actor.map(str::to_owned);
        principal
    }

    #[test]
    fn the_table_decides() {
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
