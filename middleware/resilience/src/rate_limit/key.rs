//! Keys of rate limits: requests with the same key share a token bucket.
//!
//! A limit that does not find its key limits no client, or all clients together. This one does the
//! latter: all requests without a key share one bucket. The first of them is logged as an error,
//! and each is counted by `palisade.rate_limit.missing_keys`.

use std::{
    fmt,
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use http::{Extensions, HeaderMap, HeaderName, Method, Request, Uri};
use metrics::Counter;

use crate::{
    caller::{CallerKey, peer_address},
    context::Context,
    method_table::Access,
    trusted_proxies::TrustedProxies,
};

/// Head of a request, from which a key is extracted.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// HTTP method.
    pub method: &'a Method,
    /// Target.
    pub uri: &'a Uri,
    /// Headers.
    pub headers: &'a HeaderMap,
    /// Extensions, such as the [`Context`] and the peer address.
    pub extensions: &'a Extensions,
}

impl<'a> RequestHead<'a> {
    /// Returns the head of `request`.
    pub fn of<B>(request: &'a Request<B>) -> Self {
        Self { method: request.method(), uri: request.uri(), headers: request.headers(), extensions: request.extensions() }
    }

    fn context(self) -> Option<&'a Context> {
        self.extensions.get()
    }
}

/// Key of a request in a rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitKey {
    /// Limited with the other requests of this key.
    Caller(CallerKey),
    /// Not limited by this limit.
    Exempt,
    /// The request should have a key and has none. All such requests share one bucket.
    Missing,
}

impl From<Option<CallerKey>> for LimitKey {
    fn from(key: Option<CallerKey>) -> Self {
        key.map_or(Self::Missing, Self::Caller)
    }
}

/// Extracts the key of a request.
///
/// Implemented by [`PrincipalKey`], [`AddressKey`] and [`HeaderKey`], and by a name with a closure:
///
/// ```
/// use palisade_resilience::{
///     caller::CallerKey,
///     protocol::Protocol,
///     rate_limit::{Config, RateLimitLayer, RequestHead},
/// };
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let by_tenant = |head: RequestHead<'_>| {
///     let tenant = head.uri.path().split('/').nth(1)?;
///     Some(CallerKey::of_value(tenant))
/// };
/// let config = Config { per_second: 1, burst: 1 };
/// let layer = RateLimitLayer::with_key(Protocol::Http, &config, ("tenant", by_tenant));
/// # let handler = service_fn(async |_| Ok::<_, std::convert::Infallible>(http::Response::new(())));
/// # let service = layer.layer(handler);
/// # let get = |uri: &str| service.clone().oneshot(http::Request::get(uri).body(()).unwrap());
/// assert!(get("/a/orders").await.is_ok());
/// assert!(get("/a/products").await.is_err());
/// assert!(get("/b/orders").await.is_ok());
/// # });
/// ```
pub trait KeyExtractor: Send + Sync + 'static {
    /// Name of the limit in logs and metrics.
    fn name(&self) -> &'static str;

    /// Returns the key of a request.
    fn extract(&self, head: RequestHead<'_>) -> LimitKey;
}

impl<F> KeyExtractor for (&'static str, F)
where
    F: Fn(RequestHead<'_>) -> Option<CallerKey> + Send + Sync + 'static,
{
    fn name(&self) -> &'static str {
        self.0
    }

    fn extract(&self, head: RequestHead<'_>) -> LimitKey {
        (self.1)(head).into()
    }
}

/// Verified identity of the caller ([`Context::principal`]). Methods that the method table declares
/// public are exempt, because their callers need no identity.
#[derive(Debug, Clone, Copy)]
pub struct PrincipalKey;

impl KeyExtractor for PrincipalKey {
    fn name(&self) -> &'static str {
        "principal"
    }

    fn extract(&self, head: RequestHead<'_>) -> LimitKey {
        match head.context() {
            Some(context) if context.principal.is_some() => LimitKey::Caller(CallerKey::of_context(context)),
            Some(context) if context.method.is_some_and(|method| method.access == Access::Public) => LimitKey::Exempt,
            _ => LimitKey::Missing,
        }
    }
}

/// Address of the client: IPv4 whole, IPv6 by /64 prefix. Behind trusted proxies the one that they
/// report, otherwise the peer address ([`peer_address`]).
#[derive(Debug, Clone, Default)]
pub struct AddressKey {
    /// Proxies whose `x-forwarded-for` counts.
    pub proxies: TrustedProxies,
}

impl AddressKey {
    /// Returns the address of the client.
    pub(super) fn client(&self, head: RequestHead<'_>) -> Option<IpAddr> {
        Some(self.proxies.client_ip(peer_address(head.extensions)?.ip(), head.headers))
    }
}

impl KeyExtractor for AddressKey {
    fn name(&self) -> &'static str {
        "address"
    }

    fn extract(&self, head: RequestHead<'_>) -> LimitKey {
        self.client(head).map(CallerKey::of_address).into()
    }
}

/// Value of a header, such as an API key that a proxy has verified. A client that may choose the
/// value evades the limit.
#[derive(Debug, Clone)]
pub struct HeaderKey(pub HeaderName);

impl KeyExtractor for HeaderKey {
    fn name(&self) -> &'static str {
        "header"
    }

    fn extract(&self, head: RequestHead<'_>) -> LimitKey {
        head.headers.get(&self.0).map(|value| CallerKey::of_value(value.as_bytes())).into()
    }
}

/// Reports requests without a key.
pub(super) struct MissingKeys {
    limit: &'static str,
    was_logged: AtomicBool,
    count: Counter,
}

impl MissingKeys {
    pub(super) fn new(limit: &'static str) -> Self {
        Self { limit, was_logged: AtomicBool::new(false), count: crate::counter!("palisade.rate_limit.missing_keys", "key" => limit) }
    }

    /// Counts a request without a key, and logs the first.
    pub(super) fn record(&self) {
        self.count.increment(1);
        if !self.was_logged.swap(true, Ordering::Relaxed) {
            tracing::error!(
                key = self.limit,
                "rate limit without its key, all such requests share one bucket; insert the layer that provides the key"
            );
        }
    }
}

impl fmt::Debug for MissingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MissingKeys").field("limit", &self.limit).finish_non_exhaustive()
    }
}
