//! Rate limiting per key: token bucket (GCRA) per principal, address, header or other property of a
//! request ([`KeyExtractor`]), with `RateLimit` headers
//! (draft-ietf-httpapi-ratelimit-headers). A request costs as many tokens as its method says
//! ([`Method::cost`](crate::method_table::Method::cost)).

mod address;
mod bounded_store;
mod buckets;
mod key;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use http::{HeaderName, HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use serde::{Deserialize, Serialize};
use tower::{Layer, Service};

use self::{buckets::Buckets, key::MissingKeys};
use crate::{
    context::Context,
    protocol::Protocol,
    rejection::{Rejection, reasons},
};

pub use address::{AddressConfig, AddressLimitLayer};
pub use key::{AddressKey, HeaderKey, KeyExtractor, LimitKey, PrincipalKey, RequestHead};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Rate limit per caller.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Sustained rate per caller (`iss` and `sub`), tokens per second. A read costs one token, a
    /// list or an order four. Excess requests are rejected. 0 disables.
    pub per_second: u32,
    /// Burst size: maximum number of tokens that an idle caller may use at once. 0 disables the
    /// limit.
    pub burst: u32,
}

impl Default for Config {
    fn default() -> Self {
        // Above what one process serves of one caller: under contention fair shares bound a caller
        // earlier. The rate bounds what remains when no other caller is there.
        Self { per_second: 10_000, burst: 20_000 }
    }
}

/// Rate limit per key, by default per principal. Placed after authentication and before every
/// shared queue. Requests without a key share one bucket ([`LimitKey::Missing`]).
///
/// ```
/// use palisade_resilience::{
///     context::Principal,
///     context::Context,
///     rate_limit::{Config, RateLimitLayer},
///     protocol::Protocol,
/// };
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let handler = service_fn(async |_| {
///     Ok::<_, std::convert::Infallible>(http::Response::new("done"))
/// });
/// let config = Config { per_second: 1, burst: 1 };
/// let service = RateLimitLayer::new(Protocol::Http, &config).layer(handler);
/// let mut request = http::Request::new(());
/// let alice = Principal::on_behalf_of("alice");
/// request.extensions_mut().insert(Context::background().on_behalf_of(alice.into()));
/// assert!(service.clone().oneshot(request.clone()).await.is_ok());
/// let rejection = service.oneshot(request).await.unwrap_err();
/// assert_eq!(rejection.reason().slug, "rate_limited");
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct RateLimitLayer(Option<Arc<Limit>>);

struct Limit {
    protocol: Protocol,
    key: Box<dyn KeyExtractor>,
    missing: MissingKeys,
    buckets: Buckets,
    policy: HeaderValue,
    shed: metrics::Counter,
}

impl RateLimitLayer {
    /// Creates the configured limit per principal. Only HTTP responses carry the `RateLimit`
    /// headers.
    pub fn new(protocol: Protocol, config: &Config) -> Self {
        Self::with_key(protocol, config, PrincipalKey)
    }

    /// As [`new`](Self::new) with a limit per key.
    pub fn with_key(protocol: Protocol, config: &Config, key: impl KeyExtractor) -> Self {
        let limit = |buckets: Buckets| {
            let policy = format!("\"default\";q={};w={}", buckets.burst, buckets.window);
            let policy = HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static(""));
            let missing = MissingKeys::new(key.name());
            let shed = crate::counter!("palisade.requests.shed", "reason" => "rate_limit");
            Arc::new(Limit { protocol, key: Box::new(key), missing, buckets, policy, shed })
        };
        Self(Buckets::new(config.per_second, config.burst).map(limit))
    }
}

impl std::fmt::Debug for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limit").field("key", &self.key.name()).field("buckets", &self.buckets).finish_non_exhaustive()
    }
}

impl Limit {
    /// Takes the tokens of a request. Returns the remaining ones, or `None` if it is exempt.
    fn take<B>(&self, request: &Request<B>) -> Result<Option<u32>, Duration> {
        let key = match self.key.extract(RequestHead::of(request)) {
            LimitKey::Exempt => return Ok(None),
            LimitKey::Caller(key) => Some(key),
            LimitKey::Missing => {
                self.missing.record();
                None
            }
        };
        let cost = Context::method_of(request).map_or(1, |method| method.cost);
        self.buckets.take(key, cost).map(Some)
    }

    /// Builds `RateLimit` and `RateLimit-Policy` for a caller with `left` remaining requests.
    fn headers(&self, left: u32) -> Option<(HeaderValue, HeaderValue)> {
        let limit = HeaderValue::try_from(format!("\"default\";r={left};t={}", self.buckets.window)).ok()?;
        Some((limit, self.policy.clone()))
    }

    fn rejection(&self, wait: Duration) -> Rejection {
        self.shed.increment(1);
        let rejection = Rejection::new(&reasons::RATE_LIMITED, "too many requests from this caller").with_retry_after(wait);
        let rejection = rejection.with_header(RATE_LIMIT_POLICY, self.policy.clone());
        match HeaderValue::try_from(format!("\"default\";r=0;t={}", wait.as_secs() + 1)) {
            Ok(value) => rejection.with_header(RATE_LIMIT, value),
            Err(_) => rejection,
        }
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> RateLimit<S> {
        RateLimit { inner, limit: self.0.clone() }
    }
}

/// Service of [`RateLimitLayer`].
#[derive(Debug, Clone)]
pub struct RateLimit<S> {
    inner: S,
    limit: Option<Arc<Limit>>,
}

impl<S, B, R> Service<Request<B>> for RateLimit<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<Rejection>,
{
    type Response = Response<R>;
    type Error = Rejection;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Some(limit) = &self.limit else {
            return ResponseFuture { inner: Some(self.inner.call(request)), rejection: None, headers: None };
        };
        match limit.take(&request) {
            Ok(left) => {
                let left = left.filter(|_| limit.protocol == Protocol::Http);
                let headers = left.and_then(|left| limit.headers(left));
                ResponseFuture { inner: Some(self.inner.call(request)), rejection: None, headers }
            }
            Err(wait) => ResponseFuture { inner: None, rejection: Some(limit.rejection(wait)), headers: None },
        }
    }
}

pin_project! {
    /// Future of [`RateLimit`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: Option<F>,
        rejection: Option<Rejection>,
        // `RateLimit` and `RateLimit-Policy`.
        headers: Option<(HeaderValue, HeaderValue)>,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<Rejection>,
{
    type Output = Result<Response<R>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else {
            return match this.rejection.take() {
                Some(rejection) => Poll::Ready(Err(rejection)),
                None => unreachable!("future polled after completion"),
            };
        };
        let mut response = ready!(inner.poll(cx)).map_err(Into::into)?;
        if let Some((limit, policy)) = this.headers.take() {
            response.headers_mut().insert(RATE_LIMIT, limit);
            response.headers_mut().insert(RATE_LIMIT_POLICY, policy);
        }
        Poll::Ready(Ok(response))
    }
}

#[cfg(test)]
mod tests;
