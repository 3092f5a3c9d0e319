//! Bearer token authentication (RFC 6750): `Authorization` header to
//! [`Principal`](super::Principal) in the request context.

use std::{
    fmt::Write,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Request, header};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{Verifier, verifier::VerifyError};
use palisade_resilience::{
    context::{Context, Principal},
    method_table::Access,
    naming,
    rejection::{Rejection, reasons},
    streams::{EndStream, StreamGuard},
};

/// Verifies the bearer token of each request to a non-public method and stores the
/// [`Principal`](super::Principal) in its context.
///
/// The stream that a token opens ends with the token: at its expiry and at its revocation. So does
/// a public stream, if its request has a valid token.
///
/// ```
/// use std::sync::Arc;
///
/// use palisade_middleware::{auth::{AuthenticateLayer, Verifier}, clock::SystemClock};
///
/// let verifier = Verifier::new(vec![/* issuers */], Arc::new(SystemClock))?;
/// let layer = AuthenticateLayer(Arc::new(verifier));
/// # Ok::<_, palisade_middleware::setting::Invalid>(())
/// ```
#[derive(Debug, Clone)]
pub struct AuthenticateLayer(pub Arc<Verifier>);

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticate<S>;

    fn layer(&self, inner: S) -> Authenticate<S> {
        Authenticate { inner, verifier: self.0.clone() }
    }
}

/// Service of [`AuthenticateLayer`].
#[derive(Debug, Clone)]
pub struct Authenticate<S> {
    inner: S,
    verifier: Arc<Verifier>,
}

impl<S, B> Service<Request<B>> for Authenticate<S>
where
    S: Service<Request<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Rejection>,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = Rejection;
    type Future = ResponseFuture<S, Request<B>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Some(context) = request.extensions_mut().get_mut::<Context>() else {
            return ResponseFuture::rejected(Rejection::internal("the authentication layer requires a request context"));
        };
        if context.method.is_none_or(|method| method.access == Access::Public) {
            // The token of a public request gives no right, so an invalid one does no harm.
            if context.is_stream()
                && let Ok(principal) = bearer(request.headers()).and_then(|token| self.verifier.verify_now(token).map_err(|_| missing()))
            {
                guard_stream(&mut request, &self.verifier, &principal);
            }
            return ResponseFuture::Ready { future: self.inner.call(request) };
        }
        let token = match bearer(request.headers()) {
            Ok(token) => token,
            Err(rejection) => {
                self.verifier.count_rejection(&rejection);
                return ResponseFuture::rejected(rejection);
            }
        };
        match self.verifier.verify_now(token) {
            Ok(principal) => {
                set_principal(&mut request, &self.verifier, &principal);
                ResponseFuture::Ready { future: self.inner.call(request) }
            }
            Err(VerifyError::Rejected(rejection)) => {
                self.verifier.count_rejection(&rejection);
                ResponseFuture::rejected(rejection)
            }
            Err(VerifyError::UnknownKey(_)) => {
                // Rare path: the JWKS has to be fetched first. The clone stays in `self`, and the
                // service that was polled ready moves into the future.
                let verifier = self.verifier.clone();
                let token = token.to_owned();
                let clone = self.inner.clone();
                let mut inner = std::mem::replace(&mut self.inner, clone);
                ResponseFuture::RefreshingKeys {
                    future: Box::pin(async move {
                        let principal = verifier.verify(&token).await.inspect_err(|rejection| verifier.count_rejection(rejection))?;
                        set_principal(&mut request, &verifier, &principal);
                        inner.call(request).await.map_err(Into::into)
                    }),
                }
            }
        }
    }
}

/// Stores the principal in the context of the request.
fn set_principal<B>(request: &mut Request<B>, verifier: &Arc<Verifier>, principal: &Arc<Principal>) {
    let Some(context) = request.extensions_mut().get_mut::<Context>() else { return };
    context.authenticate(principal.clone());
    if context.is_stream() {
        guard_stream(request, verifier, principal);
    }
}

fn guard_stream<B>(request: &mut Request<B>, verifier: &Arc<Verifier>, principal: &Arc<Principal>) {
    let token = OpenToken { verifier: verifier.clone(), principal: principal.clone() };
    request.extensions_mut().insert(StreamGuard(Arc::new(token)));
}

/// Ends a stream with the token that opened it.
#[derive(Debug)]
struct OpenToken {
    verifier: Arc<Verifier>,
    principal: Arc<Principal>,
}

impl EndStream for OpenToken {
    fn check(&self) -> Result<Duration, Rejection> {
        self.verifier.check_open_stream(&self.principal)
    }
}

fn missing() -> Rejection {
    challenge(Rejection::new(&reasons::UNAUTHENTICATED, "a bearer token is required"), None, None)
}

/// Extracts the single bearer token of a request (RFC 6750 §2.1). The scheme is case-insensitive.
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, Rejection> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(missing)?;
    if values.next().is_some() {
        // RFC 6750, section 3.1: a repeated credential is an invalid request, status 400.
        let rejection = Rejection::new(&reasons::INVALID_PARAMETER, "header authorization must not be repeated");
        return Err(challenge(rejection, Some("invalid_request"), None));
    }
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(missing)?;
    let token = token.trim_start_matches(' ');
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() { Err(missing()) } else { Ok(token) }
}

/// Adds `WWW-Authenticate` as defined by RFC 6750 §3: no `error` attribute if the request had no
/// credentials.
pub(super) fn challenge(rejection: Rejection, error: Option<&str>, scope: Option<&str>) -> Rejection {
    let mut value = naming::current().bearer_challenge();
    for (name, attribute) in [("error", error), ("scope", scope)] {
        if let Some(attribute) = attribute {
            // Writing to a `String` cannot fail.
            let _ = write!(value, ", {name}=\"{attribute}\"");
        }
    }
    match HeaderValue::from_str(&value) {
        Ok(value) => rejection.with_header(header::WWW_AUTHENTICATE, value),
        Err(_) => rejection,
    }
}

type BoxedFuture<S, Q> = Pin<Box<dyn Future<Output = Result<<S as Service<Q>>::Response, Rejection>> + Send>>;

pin_project! {
    /// Future of [`Authenticate`].
    #[project = Projected]
    pub enum ResponseFuture<S: Service<Q>, Q> {
        /// The key was cached, so the request was forwarded at once.
        Ready { #[pin] future: S::Future },
        /// The JWKS is being refreshed.
        RefreshingKeys { future: BoxedFuture<S, Q> },
        /// Authentication failed.
        Rejected { rejection: Option<Rejection> },
    }
}

impl<S: Service<Q>, Q> ResponseFuture<S, Q> {
    fn rejected(rejection: Rejection) -> Self {
        Self::Rejected { rejection: Some(rejection) }
    }
}

impl<S, Q> Future for ResponseFuture<S, Q>
where
    S: Service<Q>,
    S::Error: Into<Rejection>,
{
    type Output = Result<S::Response, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Projected::Ready { future } => future.poll(cx).map_err(Into::into),
            Projected::RefreshingKeys { future } => future.as_mut().poll(cx),
            Projected::Rejected { rejection } => match rejection.take() {
                Some(rejection) => Poll::Ready(Err(rejection)),
                None => unreachable!("future polled after completion"),
            },
        }
    }
}

#[cfg(test)]
mod tests;
