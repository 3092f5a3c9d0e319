//! Connection limit per client IP, so that one address cannot use all connections.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use parking_lot::Mutex;

use super::record_connection_closed;
use crate::server::Config;
use palisade_resilience::rate_limit::ip_prefix;

/// Counts open connections per IPv4 address or IPv6 /64 network.
#[derive(Debug, Clone)]
pub(super) struct PerIpConnectionLimit(Option<Arc<Shared>>);

/// Permit of one open connection, released on drop.
#[derive(Debug)]
pub(super) struct ConnectionPermit(Option<(Arc<Shared>, u64)>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    /// Trusted proxies, which are exempt because each serves many clients.
    proxies: Vec<IpAddr>,
    counts: Mutex<HashMap<u64, usize>>,
}

impl PerIpConnectionLimit {
    pub(super) fn new(config: &Config) -> Self {
        let limit = config.max_connections_per_address;
        let proxies = config.address_limit.proxies().unwrap_or_default();
        Self((limit > 0).then(|| Arc::new(Shared { limit, proxies, counts: Mutex::default() })))
    }

    pub(super) const fn unlimited() -> Self {
        Self(None)
    }

    /// Returns a permit for a connection of `address`, or `None` at the limit.
    pub(super) fn try_acquire(&self, address: IpAddr) -> Option<ConnectionPermit> {
        let address = address.to_canonical();
        let Some(shared) = self.0.as_ref().filter(|shared| !shared.proxies.contains(&address)) else { return Some(ConnectionPermit(None)) };
        let network = ip_prefix(address);
        let mut counts = shared.counts.lock();
        let count = counts.entry(network).or_default();
        if *count >= shared.limit {
            record_connection_closed("address");
            return None;
        }
        *count += 1;
        Some(ConnectionPermit(Some((shared.clone(), network))))
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let Some((shared, network)) = self.0.take() else { return };
        if let Entry::Occupied(mut count) = shared.counts.lock().entry(network) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palisade_resilience::rate_limit::AddressConfig;

    #[test]
    fn per_ip_limit_exempts_trusted_proxies() {
        let address_limit = AddressConfig { trusted_proxies: "10.0.0.1".to_owned(), ..AddressConfig::default() };
        let limit = PerIpConnectionLimit::new(&Config { max_connections_per_address: 1, address_limit, ..Config::default() });
        let try_acquire = |address: &str| limit.try_acquire(address.parse().unwrap());
        let first = try_acquire("192.0.2.1").unwrap();
        assert!(try_acquire("::ffff:192.0.2.1").is_none());
        let (_other, _one, _two) = (try_acquire("192.0.2.2").unwrap(), try_acquire("10.0.0.1").unwrap(), try_acquire("10.0.0.1").unwrap());
        drop(first);
        let _again = try_acquire("192.0.2.1").unwrap();
        assert_eq!(limit.0.unwrap().counts.lock().len(), 2, "an address without connections is removed");
    }
}
