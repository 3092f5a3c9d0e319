//! Rate limiting per IP address, applied before authentication, because verifying a token costs
//! more than rejecting a request.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{HeaderMap, Request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower::Layer;

use super::buckets::Buckets;
use crate::{
    context::Context,
    filter::{Filter, Predicate},
    rejection::{Rejection, reasons},
    trusted_proxies::TrustedProxies,
};

/// Request extension with the peer address of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Rate limit per IP address, for HTTP ports. Not used for gRPC, where many service replicas share
/// few addresses.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AddressConfig {
    /// Sustained rate per IP address (IPv6: per /64 prefix), requests per second. Excess requests
    /// are rejected. 0 disables.
    pub per_second: u32,
    /// Burst size: maximum number of requests that an idle address may send at once. 0 disables the
    /// limit.
    pub burst: u32,
    /// Trusted proxies: IP addresses and networks (`10.0.0.0/8`), separated by commas. Their
    /// `x-forwarded-for` and `x-forwarded-proto` determine the client address and the scheme.
    /// Without it all clients behind a proxy share one limit.
    pub trusted_proxies: String,
}

impl Default for AddressConfig {
    fn default() -> Self {
        Self { per_second: 10_000, burst: 20_000, trusted_proxies: String::new() }
    }
}

impl AddressConfig {
    /// Parses the trusted proxies. The error is the invalid text.
    pub fn proxies(&self) -> Result<TrustedProxies, String> {
        TrustedProxies::parse(&self.trusted_proxies)
    }
}

/// Rate limit per IP address. Placed before authentication.
///
/// ```
/// use palisade_resilience::rate_limit::{AddressConfig, AddressLimitLayer, Peer};
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let handler = service_fn(async |_| Ok::<_, std::convert::Infallible>("done"));
/// let config = AddressConfig { per_second: 1, burst: 1, ..AddressConfig::default() };
/// let service = AddressLimitLayer::new(&config).layer(handler);
/// let mut request = http::Request::new(());
/// // Set by `server::accept` in a server.
/// request.extensions_mut().insert(Peer("192.0.2.1:4711".parse().unwrap()));
/// assert!(service.clone().oneshot(request.clone()).await.is_ok());
/// assert!(service.oneshot(request).await.is_err());
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct AddressLimitLayer(Option<Arc<Limit>>);

#[derive(Debug)]
struct Limit {
    buckets: Buckets,
    proxies: TrustedProxies,
    shed: metrics::Counter,
}

impl AddressLimitLayer {
    /// Creates the configured limit. `config` must be valid.
    pub fn new(config: &AddressConfig) -> Self {
        let limit = |buckets| {
            let shed = metrics::counter!("palisade.requests.shed", "reason" => "address_limit");
            Arc::new(Limit { buckets, proxies: config.proxies().unwrap_or_default(), shed })
        };
        Self(Buckets::new(config.per_second, config.burst).map(limit))
    }

    /// Disables the limit.
    pub const fn disabled() -> Self {
        Self(None)
    }
}

impl Limit {
    fn check(&self, peer: IpAddr, headers: &HeaderMap) -> Result<(), Rejection> {
        let result = self.buckets.take(ip_prefix(self.proxies.client_ip(peer, headers)));
        result.map(drop).map_err(|wait| {
            self.shed.increment(1);
            Rejection::new(&reasons::RATE_LIMITED, "too many requests from this address").with_retry_after(wait)
        })
    }
}

/// Returns the prefix assigned to one customer: the whole IPv4 address, or the IPv6 /64.
pub fn ip_prefix(address: IpAddr) -> u64 {
    match address {
        // No collision: public IPv6 prefixes do not begin with 32 zero bits.
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

impl<S> Layer<S> for AddressLimitLayer {
    type Service = Filter<S, Self>;

    fn layer(&self, inner: S) -> Filter<S, Self> {
        Filter::new(inner, self.clone())
    }
}

impl Predicate for AddressLimitLayer {
    fn check<B>(&self, request: Request<B>) -> Result<Request<B>, Rejection> {
        let exempt = Context::of(&request).and_then(|context| context.method).is_some_and(|method| method.infrastructure);
        let peer = request.extensions().get::<Peer>().filter(|_| !exempt);
        if let (Some(limit), Some(peer)) = (&self.0, peer) {
            limit.check(peer.0.ip(), request.headers())?;
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::Response;
    use tower::ServiceExt;

    use super::*;

    #[test]
    fn ip_prefix_groups_ipv6_by_64() {
        let of = |text: &str| ip_prefix(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[tokio::test]
    async fn address_limit_is_per_address() {
        let config = AddressConfig { per_second: 1, burst: 1, ..AddressConfig::default() };
        let inner = tower::service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
        let service = AddressLimitLayer::new(&config).layer(inner);
        let send = |peer: &str| {
            let mut request = Request::new(());
            request.extensions_mut().insert(Peer(peer.parse().unwrap()));
            service.clone().oneshot(request)
        };
        assert!(send("192.0.2.1:1").await.is_ok());
        assert_eq!(send("192.0.2.1:2").await.unwrap_err().reason(), &reasons::RATE_LIMITED);
        assert!(send("192.0.2.2:1").await.is_ok());
    }
}
