//! Rate limiting per IP address, applied before authentication, because verifying a token costs
//! more than rejecting a request.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{HeaderMap, HeaderName, Request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower::Layer;

use super::buckets::Buckets;
use crate::{
    context::Context,
    filter::{Filter, Predicate},
    rejection::{Rejection, reasons},
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

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
    /// IP addresses of trusted proxies, separated by commas. Their `x-forwarded-for` determines the
    /// client address. Without it all clients behind a proxy share one limit.
    pub trusted_proxies: String,
}

impl Default for AddressConfig {
    fn default() -> Self {
        Self { per_second: 10_000, burst: 20_000, trusted_proxies: String::new() }
    }
}

impl AddressConfig {
    /// Parses the trusted proxies. The error is the invalid text.
    pub fn proxies(&self) -> Result<Vec<IpAddr>, String> {
        let texts = self.trusted_proxies.split(',').map(str::trim).filter(|text| !text.is_empty());
        texts.map(|text| text.parse().map_err(|_| text.to_owned())).collect()
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
    proxies: Vec<IpAddr>,
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
        let result = self.buckets.take(ip_prefix(client_ip(peer, headers, &self.proxies)));
        result.map(drop).map_err(|wait| {
            self.shed.increment(1);
            Rejection::new(&reasons::RATE_LIMITED, "too many requests from this address").with_retry_after(wait)
        })
    }
}

/// Returns the client address: the peer, or behind trusted proxies the last `x-forwarded-for` entry
/// that is not a trusted proxy.
pub(crate) fn client_ip(peer: IpAddr, headers: &HeaderMap, proxies: &[IpAddr]) -> IpAddr {
    let mut client = peer.to_canonical();
    let hops = headers.get_all(FORWARDED_FOR).iter().rev().filter_map(|value| value.to_str().ok()).flat_map(|value| value.rsplit(','));
    for hop in hops {
        if !proxies.contains(&client) {
            break;
        }
        // No trusted proxy writes invalid entries.
        let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
        client = address.to_canonical();
    }
    client
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

    fn resolved_client(peer: &str, forwarded: &[&str]) -> IpAddr {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        client_ip(peer.parse().unwrap(), &headers, &["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()])
    }

    #[test]
    fn client_address_uses_only_trusted_proxies() {
        for (peer, forwarded, expected) in [
            ("192.0.2.1", &["198.51.100.1"][..], "192.0.2.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.9, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.9, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.9", "198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["nonsense"], "10.0.0.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("::ffff:192.0.2.1", &[], "192.0.2.1"),
        ] {
            assert_eq!(resolved_client(peer, forwarded), expected.parse::<IpAddr>().unwrap(), "{peer} {forwarded:?}");
        }
    }

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
