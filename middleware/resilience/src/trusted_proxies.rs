//! Trusted proxies: the addresses and networks whose statements about a client are used, such as
//! `x-forwarded-for` and the PROXY protocol.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use http::HeaderMap;
use ipnet::{IpNet, Ipv4Net};

const FORWARDED_FOR: &str = "x-forwarded-for";

/// Set of IP addresses and networks.
///
/// ```
/// use palisade_resilience::trusted_proxies::TrustedProxies;
///
/// let proxies = TrustedProxies::parse("192.0.2.1, 10.0.0.0/8").unwrap();
/// assert!(proxies.contains("10.1.2.3".parse().unwrap()));
/// assert!(!proxies.contains("192.0.2.2".parse().unwrap()));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    /// Parses addresses and networks in CIDR notation, separated by commas. The error is the
    /// invalid text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
        let networks = texts.map(|text| parse_network(text).ok_or_else(|| text.to_owned()));
        Ok(Self(networks.collect::<Result<_, String>>()?))
    }

    /// Returns `true` if `address` is trusted. An IPv4 address mapped to IPv6 is treated as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Returns `true` if no address is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the client address: the peer, or behind trusted proxies the last `x-forwarded-for`
    /// entry that is not a trusted proxy. Ports in entries are ignored.
    ///
    /// `Forwarded` (RFC 7239) is not read: a proxy that writes only `x-forwarded-for` passes on
    /// what a client wrote there.
    pub fn client_ip(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        // Bytes, not text: what a client sent before its address must not hide the address.
        let hops = headers.get_all(FORWARDED_FOR).iter().rev().flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
        for hop in hops {
            if !self.contains(client) {
                break;
            }
            // No trusted proxy writes invalid entries.
            let address = std::str::from_utf8(hop).ok().and_then(|hop| parse_hop(hop.trim()));
            let Some(address) = address else { break };
            client = address.to_canonical();
        }
        client
    }
}

/// Parses an address, which may have brackets (IPv6) and a port: some proxies write the port of the
/// client.
fn parse_hop(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::from)
}

/// Parses an address or a network. Bits after the prefix are ignored, as in `10.1.2.3/8`.
fn parse_network(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()?.trunc();
    let IpNet::V6(mapped) = network else { return Some(network) };
    let (Some(address), Some(prefix)) = (mapped.addr().to_ipv4_mapped(), mapped.prefix_len().checked_sub(96)) else { return Some(network) };
    Ipv4Net::new(address, prefix).ok().map(IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_addresses_are_matched_in_any_form() {
        let proxies = TrustedProxies::parse("192.0.2.1,10.1.2.3/8, ::ffff:172.16.0.0/108 ,2001:db8::/32,").unwrap();
        for trusted in ["192.0.2.1", "::ffff:192.0.2.1", "10.255.0.1", "::ffff:10.0.0.1", "172.31.0.1", "2001:db8:ffff::1"] {
            assert!(proxies.contains(trusted.parse().unwrap()), "{trusted}");
        }
        for other in ["192.0.2.2", "11.0.0.1", "172.32.0.1", "2001:db9::1", "::1"] {
            assert!(!proxies.contains(other.parse().unwrap()), "{other}");
        }
        assert!(TrustedProxies::parse(" , ").unwrap().is_empty());
        let everyone = TrustedProxies::parse("0.0.0.0/0").unwrap();
        assert!(everyone.contains("198.51.100.7".parse().unwrap()) && !everyone.contains("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn invalid_network_is_the_error() {
        for text in ["10.0.0.0/33", "10.0.0/8", "proxy.example", "10.0.0.1/", "2001:db8::/129", "10.0.0.1/8/8"] {
            assert_eq!(TrustedProxies::parse(&format!("192.0.2.1, {text}")), Err(text.to_owned()));
        }
    }

    #[test]
    fn text_of_the_client_does_not_hide_its_address() {
        let proxies = TrustedProxies::parse("10.0.0.0/8").unwrap();
        for lines in [&[&b"\xff, 198.51.100.1"[..]][..], &[b"203.0.113.9", b"\xff,198.51.100.1"], &[b"203.0.113.9, \xff", b"198.51.100.1"]]
        {
            let headers =
                lines.iter().map(|line| (http::HeaderName::from_static(FORWARDED_FOR), http::HeaderValue::from_bytes(line).unwrap()));
            let client = proxies.client_ip("10.0.0.1".parse().unwrap(), &headers.collect());
            assert_eq!(client, "198.51.100.1".parse::<IpAddr>().unwrap(), "{lines:?}");
        }
    }

    #[test]
    fn client_address_uses_only_trusted_proxies() {
        for (peer, forwarded, expected) in [
            ("192.0.2.1", &["198.51.100.1"][..], "192.0.2.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.9, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.9, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.9", "198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1, 10.7.7.7"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.9:1, 198.51.100.1:50123, 10.0.0.2:443"], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1, [::ffff:10.0.0.2]:443"], "198.51.100.1"),
            ("10.0.0.1", &["[2001:db8::1]:50123"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["198.51.100.1:port"], "10.0.0.1"),
            ("10.0.0.1", &["[198.51.100.1]"], "10.0.0.1"),
            ("10.0.0.1", &["nonsense"], "10.0.0.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("::ffff:192.0.2.1", &[], "192.0.2.1"),
        ] {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append(FORWARDED_FOR, value.parse().unwrap());
            }
            let proxies = TrustedProxies::parse("10.0.0.0/8").unwrap();
            let client = proxies.client_ip(peer.parse().unwrap(), &headers);
            assert_eq!(client, expected.parse::<IpAddr>().unwrap(), "{peer} {forwarded:?}");
        }
    }
}
