//! Upstream addresses: `http://host:port` or `https://host:port`.

use std::net::{Ipv6Addr, SocketAddr};

use http::{
    Uri,
    uri::{Authority, Scheme},
};
use tonic::transport;

use super::InvalidAddress;

/// One upstream address: a scheme, a host and a port, without credentials and path. It becomes a
/// label and a part of each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(Uri);

impl Address {
    /// Parses `http://host:port` or `https://host:port`.
    pub fn parse(url: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress(url.to_owned());
        let uri: Uri = url.trim().parse().map_err(|_| invalid())?;
        let is_valid = matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(is_host_and_port)
            && uri.path() == "/"
            && uri.query().is_none();
        if is_valid { Ok(Self(uri)) } else { Err(invalid()) }
    }

    /// Creates an address from a resolved socket address; `None` for an unusable one (port 0).
    pub fn from_socket_addr(address: SocketAddr) -> Option<Self> {
        Self::parse(&format!("http://{address}")).ok()
    }

    /// Parses and deduplicates `urls` in the given order. An empty list is an error.
    pub fn list<'a>(urls: impl IntoIterator<Item = &'a str>) -> Result<Vec<Self>, InvalidAddress> {
        let mut addresses = Vec::new();
        for url in urls {
            let address = Self::parse(url)?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() { Err(InvalidAddress(String::new())) } else { Ok(addresses) }
    }

    /// Returns `true` for `https`.
    pub fn is_secure(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }

    /// Returns the scheme and authority that requests carry.
    pub fn origin(&self, secure: bool) -> Uri {
        let mut parts = self.0.clone().into_parts();
        parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
        Uri::from_parts(parts).unwrap_or_else(|_| self.0.clone())
    }

    /// Returns the connection parameters of tonic for requests with this origin. tonic refuses
    /// `https` unless it does TLS itself, so it sees the address as `http`; the connector does TLS.
    pub(super) fn endpoint(&self, secure: bool) -> transport::Endpoint {
        transport::Endpoint::from(self.origin(false)).origin(self.origin(secure))
    }

    /// Returns the URI.
    pub fn uri(&self) -> &Uri {
        &self.0
    }

    /// Returns `host:port`, the name of the address in logs and metrics.
    pub fn name(&self) -> &str {
        self.0.authority().map_or("", |authority| authority.as_str())
    }

    /// Returns the host.
    pub fn host(&self) -> &str {
        self.0.host().unwrap_or_default()
    }

    /// Returns the port.
    pub fn port(&self) -> Option<u16> {
        self.0.port_u16()
    }
}

/// Whether the authority is a host and a port and nothing else. [`Uri`] also accepts credentials,
/// and text before an IPv6 address.
fn is_host_and_port(authority: &Authority) -> bool {
    let host = authority.host();
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains(['[', ']']),
    };
    let port = authority.port_u16().filter(|port| *port > 0);
    is_host && port.is_some_and(|port| authority.as_str() == format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_scheme_host_and_port() {
        for (url, name) in [
            ("http://10.0.0.1:5000", "10.0.0.1:5000"),
            ("https://products.example:443/", "products.example:443"),
            (" http://[2001:db8::1]:5000 ", "[2001:db8::1]:5000"),
        ] {
            assert_eq!(Address::parse(url).as_ref().map(Address::name), Ok(name), "{url}");
        }
        for url in [
            "10.0.0.1:5000",
            "ftp://a:1",
            "http://a",
            "http://a:0",
            "http://a:01",
            "http://a:+1",
            "http://:1",
            "http://user:secret@a:1",
            "http://@a:1",
            "http://0[2001:db8::1]:5000",
            "http://[2001:db8::1]0:5000",
            "http://[products]:5000",
            "http://a:1/path",
            "http://a:1?query",
        ] {
            assert_eq!(Address::parse(url), Err(InvalidAddress(url.to_owned())));
        }
    }
}
