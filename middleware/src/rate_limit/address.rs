//! How much one address may ask, before anything is known of who asks: verifying a token costs more than refusing it.

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
    filter::{Predicate, Filter},
    rejection::{Rejection, reasons},
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The other end of the connection that a request came by; in the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// What one address may ask of an HTTP port. gRPC callers are services, which come in great numbers from few addresses.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AddressConfig {
    /// Requests per second and address (IPv6: per /64 network) in the long run; 0 turns the limit off.
    pub per_second: u32,
    /// Requests that an address that was quiet may send at once.
    pub burst: u32,
    /// Addresses of proxies whose `x-forwarded-for` is believed, separated by commas. Without it everybody behind a proxy is one.
    pub trusted_proxies: String,
}

impl Default for AddressConfig {
    fn default() -> Self {
        Self { per_second: 10_000, burst: 20_000, trusted_proxies: String::new() }
    }
}

impl AddressConfig {
    /// The proxies; the text that is no address if there is one.
    pub fn proxies(&self) -> Result<Vec<IpAddr>, String> {
        let texts = self.trusted_proxies.split(',').map(str::trim).filter(|text| !text.is_empty());
        texts.map(|text| text.parse().map_err(|_| text.to_owned())).collect()
    }
}

/// Refuses what is too much of one address. Sits in front of authentication.
///
/// ```
/// use palisade_middleware::rate_limit::{AddressConfig, AddressLimitLayer, Peer};
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let handler = service_fn(async |_| Ok::<_, std::convert::Infallible>("done"));
/// let service = AddressLimitLayer::new(&AddressConfig { per_second: 1, burst: 1, ..AddressConfig::default() }).layer(handler);
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(Peer("192.0.2.1:4711".parse().unwrap())); // `server::accept` does so.
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
    /// A limit as configured; `config` was validated by its owner.
    pub fn new(config: &AddressConfig) -> Self {
        let limit = |buckets| {
            let shed = metrics::counter!("palisade.requests.shed", "reason" => "address_limit");
            Arc::new(Limit { buckets, proxies: config.proxies().unwrap_or_default(), shed })
        };
        Self(Buckets::new(config.per_second, config.burst).map(limit))
    }

    /// No limit.
    pub const fn disabled() -> Self {
        Self(None)
    }
}

impl Limit {
    fn check(&self, peer: IpAddr, headers: &HeaderMap) -> Result<(), Rejection> {
        let result = self.buckets.take(ip_prefix(client_ip(peer, headers, &self.proxies)));
        result.map(drop).map_err(|wait| {
            self.shed.increment(1);
            Rejection::new(&reasons::RATE_LIMITED, "too many requests of this address").with_retry_after(wait)
        })
    }
}

/// Who asks: the peer, or, behind proxies that are believed, the last address that one of them saw and that is none of them.
pub(crate) fn client_ip(peer: IpAddr, headers: &HeaderMap, proxies: &[IpAddr]) -> IpAddr {
    let mut client = peer.to_canonical();
    let hops = headers.get_all(FORWARDED_FOR).iter().rev().filter_map(|value| value.to_str().ok()).flat_map(|value| value.rsplit(','));
    for hop in hops {
        if !proxies.contains(&client) {
            break;
        }
        // What cannot be read was written by nobody we believe.
        let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
        client = address.to_canonical();
    }
    client
}

/// The part of an address that one customer has: all of IPv4's, the first half of IPv6's.
pub(crate) fn ip_prefix(address: IpAddr) -> u64 {
    match address {
        // No IPv6 network of the public internet begins so.
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
    fn only_what_a_trusted_proxy_says_is_believed() {
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
    fn a_network_of_ipv6_is_one_customer() {
        let of = |text: &str| ip_prefix(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[tokio::test]
    async fn one_addresss_excess_is_not_anothers() {
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
