//! Addresses: upstreams of the configuration, and instances that registries name.

use std::net::SocketAddr;

use palisade_middleware::discovery::UpstreamUrl;
use palisade_transport::client::address::Address;

use crate::targets::input::Input;

/// Checks an accepted address. It is a scheme, a host and a port, and nothing else: no credentials,
/// which would become a label, and no path, which would become a part of each request.
fn check(address: &Address) {
    assert!(address.port().is_some_and(|port| port > 0), "{address:?}");
    assert_eq!(address.name().rsplit_once(':'), Some((address.host(), address.port().unwrap().to_string().as_str())), "{address:?}");
    assert!(!address.name().contains(['@', '/', '?', '#', ' ']), "{address:?}");
    let uri = address.uri();
    assert!(uri.query().is_none() && matches!(uri.path(), "" | "/"), "{address:?}");
    assert_eq!(address.is_secure(), uri.scheme_str() == Some("https"));
    let again = format!("{}://{}", uri.scheme_str().unwrap(), address.name());
    assert_eq!(Address::parse(&again).as_ref().map(Address::name), Ok(address.name()));
}

/// An instance of a registry: the value of an etcd entry, or an address of DNS.
pub(crate) fn addresses(input: &[u8]) {
    if let Ok(address) = std::str::from_utf8(input).map_err(|_| ()).and_then(|text| Address::parse(text).map_err(|_| ())) {
        check(&address);
    }
    let mut bytes = Input::new(input);
    let is_v6 = bytes.flag();
    let octets: [u8; 16] = std::array::from_fn(|_| bytes.byte());
    let ip = if is_v6 { octets.into() } else { <[u8; 4]>::try_from(&octets[..4]).unwrap().into() };
    let resolved = SocketAddr::new(ip, bytes.u16());
    match Address::from_socket_addr(resolved) {
        Some(address) => assert_eq!(address.name().parse(), Ok(resolved)),
        None => assert_eq!(resolved.port(), 0),
    }
}

/// A list has distinct addresses. No URL with credentials is accepted, and no error repeats them.
pub(crate) fn upstream_url(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let parsed = UpstreamUrl::parse(text);
    let padded = UpstreamUrl::parse(&format!(" {text}\t"));
    assert_eq!(parsed, padded);
    if text.contains('@') {
        assert!(parsed.is_err());
    }
    match parsed {
        Ok(UpstreamUrl::List(addresses)) => {
            addresses.iter().for_each(check);
            assert!(!addresses.is_empty());
            assert!((1..addresses.len()).all(|at| !addresses[..at].contains(&addresses[at])));
        }
        Ok(other) => assert!(other.single_address().is_none() && text.contains("://")),
        Err(error) => assert!(error.to_string().starts_with("url ")),
    }
}
