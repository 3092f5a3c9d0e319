//! Callers, between whom limits are shared fairly.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    net::{IpAddr, SocketAddr},
    sync::LazyLock,
};

use http::{Extensions, HeaderMap, Request, header};

use crate::context::Context;

/// Secret of this process: collisions with the key of another caller cannot be provoked.
static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Request extension with the peer address of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Returns the peer address of the connection: [`Peer`], or with the feature `axum` the
/// `ConnectInfo<SocketAddr>` of `Router::into_make_service_with_connect_info`.
pub fn peer_address(extensions: &Extensions) -> Option<SocketAddr> {
    let peer = extensions.get::<Peer>().map(|peer| peer.0);
    #[cfg(feature = "axum")]
    let peer = peer.or_else(|| extensions.get::<axum::extract::ConnectInfo<SocketAddr>>().map(|info| info.0));
    peer
}

/// Key of a caller in the limits of this process: its verified identity (the subject), else its
/// address. The key is a hash, so tables of callers copy no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallerKey(u64);

impl CallerKey {
    /// Returns the key of the caller of `request`. All callers of unknown identity and address
    /// share one key.
    pub fn of<B>(request: &Request<B>) -> Self {
        Context::of(request).map_or(Self::unknown(), Self::of_context)
    }

    /// Returns the key of the caller of the request with this context. A [`Subject`] is unique
    /// among all issuers, so a user is one caller, whether the request comes from the user or from
    /// services on the user's behalf.
    ///
    /// [`Subject`]: crate::context::Subject
    pub fn of_context(context: &Context) -> Self {
        match (&context.principal, context.client_address) {
            (Some(principal), _) => Self(SECRET.hash_one((1, &principal.subject))),
            (None, Some(address)) => Self::of_address(address),
            (None, None) => Self::unknown(),
        }
    }

    /// Returns the key of an address: IPv4 whole, IPv6 by /64 prefix.
    pub fn of_address(address: IpAddr) -> Self {
        Self(SECRET.hash_one((2, ip_prefix(address))))
    }

    /// Returns the key of another property, such as an API key or a tenant.
    pub fn of_value(value: impl Hash) -> Self {
        Self(SECRET.hash_one((4, value)))
    }

    /// Returns a key of these unverified credentials, before authentication; `None` without any.
    pub(crate) fn of_credentials(headers: &HeaderMap) -> Option<Self> {
        headers.get(header::AUTHORIZATION).map(|value| Self(SECRET.hash_one((3, value.as_bytes()))))
    }

    /// Key of all callers without identity and address.
    pub(crate) fn unknown() -> Self {
        Self(0)
    }

    /// Hash bits of the key.
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    #[cfg(test)]
    pub(crate) const fn number(number: u64) -> Self {
        Self(number)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::context::Principal;

    fn caller(principal: Principal) -> CallerKey {
        CallerKey::of_context(&Context::background().on_behalf_of(Arc::new(principal)))
    }

    fn anonymous(address: &str) -> CallerKey {
        CallerKey::of_context(&Context { client_address: Some(address.parse().unwrap()), ..Context::background() })
    }

    #[test]
    fn user_is_one_caller_through_every_service() {
        let user = || Principal { issuer: "https://id.example".to_owned(), ..Principal::on_behalf_of("id|1001") };
        let through = |service: &str| Principal { issuer: service.to_owned(), actor: Some(service.to_owned()), ..user() };
        assert_eq!(caller(user()), caller(through("gateway")));
        assert_eq!(caller(through("orders")), caller(through("gateway")));
        assert_ne!(caller(user()), caller(Principal::on_behalf_of("id|1002")));
        assert_ne!(caller(user()), caller(Principal::on_behalf_of("other|1001")));
    }

    #[test]
    fn anonymous_caller_is_its_address() {
        assert_eq!(anonymous("192.0.2.1"), anonymous("192.0.2.1"));
        assert_ne!(anonymous("192.0.2.1"), anonymous("192.0.2.2"));
        assert_eq!(anonymous("2001:db8:1:2::1"), anonymous("2001:db8:1:2:ffff::9"));
        assert_ne!(anonymous("2001:db8:1:2::1"), anonymous("2001:db8:1:3::1"));
        assert_eq!(CallerKey::of(&Request::new(())), CallerKey::of(&Request::new(())));
    }
}
