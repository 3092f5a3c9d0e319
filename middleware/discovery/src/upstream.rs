//! Upstream URL: a static list of addresses or a discovery source.

use std::net::{IpAddr, SocketAddr};

use hickory_resolver::proto::rr::Name;

use palisade_transport::client::{InvalidAddress, address::Address};

/// Parsed `url` of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamUrl {
    /// Static list: `http://host:port`, several separated by commas.
    List(Vec<Address>),
    /// DNS: `dns://host:port` or `srv://_service._proto.domain`, with `?server=ip:port` for a
    /// resolver other than the system's.
    Dns(DnsTarget),
    /// etcd: `etcd://host:port/path`, several `host:port` separated by commas.
    Etcd(EtcdPrefix),
}

/// DNS lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsTarget {
    pub(super) name: Name,
    pub(super) kind: Kind,
    /// DNS server; the system's resolvers if `None`.
    pub(super) server: Option<SocketAddr>,
}

/// Record type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A and AAAA, with the configured port.
    Addresses { port: u16 },
    /// SRV, then A and AAAA of the target hosts.
    Srv,
}

/// Key prefix in an etcd cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdPrefix {
    /// Members of the cluster; at least one.
    pub(super) members: Vec<Address>,
    /// Key prefix; begins and ends with a slash.
    pub(super) prefix: String,
}

/// Invalid discovery source; the text begins with its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUpstream {
    /// Invalid address of a static list.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    /// Invalid `dns://` URL.
    #[error("url must be dns://host:port, with ?server=ip:port to name a resolver, not {0:?}; an IP address belongs to http://")]
    Dns(String),
    /// Invalid `srv://` URL.
    #[error("url must be srv://_service._proto.domain, with ?server=ip:port to name a resolver, not {0:?}; the port is in the records")]
    Srv(String),
    /// Invalid `etcd://` URL.
    #[error("url must be etcd://host:port/path, several host:port separated by commas, not {0:?}")]
    Etcd(String),
    /// The URL contains credentials. Not repeated in the text, because it may hold a password.
    #[error("url must not contain a user or a password")]
    Credentials,
}

impl UpstreamUrl {
    /// Parses a static list or a discovery source.
    pub fn parse(url: &str) -> Result<Self, InvalidUpstream> {
        let url = url.trim();
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        if rest.contains('@') {
            return Err(InvalidUpstream::Credentials);
        }
        let invalid_url = || url.to_owned();
        match scheme {
            "dns" => Ok(Self::Dns(parse_dns(rest).ok_or_else(|| InvalidUpstream::Dns(invalid_url()))?)),
            "srv" => Ok(Self::Dns(parse_srv(rest).ok_or_else(|| InvalidUpstream::Srv(invalid_url()))?)),
            "etcd" => Ok(Self::Etcd(EtcdPrefix::parse(url)?)),
            _ => Ok(Self::List(Address::list(url.split(','))?)),
        }
    }

    /// Returns the address of a static list with one entry.
    pub fn single_address(&self) -> Option<&Address> {
        match self {
            Self::List(addresses) => addresses.first().filter(|_| addresses.len() == 1),
            Self::Dns(_) | Self::Etcd(_) => None,
        }
    }

    /// Returns the name of the source for logs.
    pub fn registry(&self) -> &'static str {
        match self {
            Self::List(_) => "the configuration",
            Self::Dns(_) => "DNS",
            Self::Etcd(_) => "etcd",
        }
    }
}

impl EtcdPrefix {
    /// Parses `etcd://host:port/path`.
    pub(super) fn parse(url: &str) -> Result<Self, InvalidUpstream> {
        if url.contains('@') {
            return Err(InvalidUpstream::Credentials);
        }
        let invalid = || InvalidUpstream::Etcd(url.to_owned());
        let (members, path) = url.trim().strip_prefix("etcd://").and_then(|rest| rest.split_once('/')).ok_or_else(invalid)?;
        let members: Vec<_> = members.split(',').map(|member| format!("http://{}", member.trim())).collect();
        let members = Address::list(members.iter().map(String::as_str)).map_err(|_| invalid())?;
        let path = path.trim_matches('/');
        if path.is_empty() || !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?' && byte != b'#') {
            return Err(invalid());
        }
        Ok(Self { members, prefix: format!("/{path}/") })
    }
}

fn parse_dns(rest: &str) -> Option<DnsTarget> {
    let (target, server) = split_server(rest)?;
    let (host, port) = target.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    Some(DnsTarget { name: parse_name(host)?, kind: Kind::Addresses { port }, server })
}

fn parse_srv(rest: &str) -> Option<DnsTarget> {
    let (target, server) = split_server(rest)?;
    // The service and protocol labels begin with an underscore (RFC 2782).
    let has_srv_labels = target.split('.').take(2).filter(|label| label.len() > 1 && label.starts_with('_')).count() == 2;
    Some(DnsTarget { name: parse_name(target).filter(|_| has_srv_labels)?, kind: Kind::Srv, server })
}

/// Splits off `?server=`.
fn split_server(rest: &str) -> Option<(&str, Option<SocketAddr>)> {
    match rest.split_once('?') {
        None => Some((rest, None)),
        Some((target, query)) => Some((target, Some(query.strip_prefix("server=")?.parse().ok()?))),
    }
}

fn parse_name(text: &str) -> Option<Name> {
    let is_valid = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    (is_valid && text.parse::<IpAddr>().is_err()).then(|| Name::from_ascii(text).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_url_parses_each_scheme() {
        let UpstreamUrl::Dns(question) = UpstreamUrl::parse("dns://products:5000").unwrap() else { panic!("not DNS") };
        assert_eq!(
            (question.name.to_string().as_str(), question.kind, question.server),
            ("products", Kind::Addresses { port: 5000 }, None)
        );
        let url = "srv://_products._tcp.example.?server=127.0.0.1:5353";
        let UpstreamUrl::Dns(question) = UpstreamUrl::parse(url).unwrap() else { panic!("not DNS") };
        assert_eq!((question.name.to_string().as_str(), question.kind), ("_products._tcp.example.", Kind::Srv));
        assert_eq!(question.server, Some("127.0.0.1:5353".parse().unwrap()));
        let UpstreamUrl::Etcd(place) = UpstreamUrl::parse("etcd://a:2379,b:2379/palisade/products").unwrap() else { panic!("not etcd") };
        assert_eq!(place.members.iter().map(Address::name).collect::<Vec<_>>(), ["a:2379", "b:2379"]);
        assert_eq!(place.prefix, "/palisade/products/");
        assert!(matches!(UpstreamUrl::parse("http://a:1,http://b:2").unwrap(), UpstreamUrl::List(list) if list.len() == 2));
    }

    #[test]
    fn invalid_upstream_url_names_expected_form() {
        let cases = [
            ("dns://products", "url must be dns://host:port"),
            ("dns://products:0", "url must be dns://host:port"),
            ("dns://10.0.0.1:5000", "url must be dns://host:port"),
            ("dns://a b:5000", "url must be dns://host:port"),
            ("dns://products:5000?server=dns.example", "url must be dns://host:port"),
            ("dns://products:5000?resolver=127.0.0.1:53", "url must be dns://host:port"),
            ("srv://products.example", "url must be srv://_service._proto.domain"),
            ("srv://_products._tcp.example:5000", "url must be srv://_service._proto.domain"),
            ("etcd://a:2379", "url must be etcd://host:port/path"),
            ("etcd://a:2379/", "url must be etcd://host:port/path"),
            ("etcd://a/palisade", "url must be etcd://host:port/path"),
            ("etcd://a:2379,/palisade", "url must be etcd://host:port/path"),
            ("consul://a:8500/products", "url must be http://host:port"),
            ("dns://a:1,dns://b:1", "url must be dns://host:port"),
        ];
        for (url, expected) in cases {
            let error = UpstreamUrl::parse(url).unwrap_err().to_string();
            assert!(error.starts_with(expected) && error.contains(url), "{url}: {error}");
        }
        let error = UpstreamUrl::parse("etcd://root:secret@a:2379/palisade").unwrap_err().to_string();
        assert_eq!(error, "url must not contain a user or a password");
    }
}
