//! How many connections one address may hold, so that it cannot take them all.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use parking_lot::Mutex;

use super::count_cut;
use crate::{rate_limit::network, server::Config};

/// Counts the open connections of each address.
#[derive(Debug, Clone)]
pub(super) struct Addresses(Option<Arc<Shared>>);

/// One open connection; gives its place back when dropped.
#[derive(Debug)]
pub(super) struct Share(Option<(Arc<Shared>, u64)>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    /// Behind each of these there are many.
    proxies: Vec<IpAddr>,
    open: Mutex<HashMap<u64, usize>>,
}

impl Addresses {
    pub(super) fn new(config: &Config) -> Self {
        let limit = config.max_connections_per_address;
        let proxies = config.address_limit.proxies().unwrap_or_default();
        Self((limit > 0).then(|| Arc::new(Shared { limit, proxies, open: Mutex::default() })))
    }

    pub(super) const fn unlimited() -> Self {
        Self(None)
    }

    /// A place for a connection of `address`; `None` if it holds as many as it may.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Share> {
        let address = address.to_canonical();
        let Some(shared) = self.0.as_ref().filter(|shared| !shared.proxies.contains(&address)) else { return Some(Share(None)) };
        let network = network(address);
        let mut open = shared.open.lock();
        let count = open.entry(network).or_default();
        if *count >= shared.limit {
            count_cut("address");
            return None;
        }
        *count += 1;
        Some(Share(Some((shared.clone(), network))))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some((shared, network)) = self.0.take() else { return };
        if let Entry::Occupied(mut count) = shared.open.lock().entry(network) {
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
    use crate::rate_limit::AddressConfig;

    #[test]
    fn an_address_has_its_share_and_a_trusted_proxy_has_no_bound() {
        let address_limit = AddressConfig { trusted_proxies: "10.0.0.1".to_owned(), ..AddressConfig::default() };
        let addresses = Addresses::new(&Config { max_connections_per_address: 1, address_limit, ..Config::default() });
        let enter = |address: &str| addresses.enter(address.parse().unwrap());
        let first = enter("192.0.2.1").unwrap();
        assert!(enter("::ffff:192.0.2.1").is_none());
        let (_other, _one, _two) = (enter("192.0.2.2").unwrap(), enter("10.0.0.1").unwrap(), enter("10.0.0.1").unwrap());
        drop(first);
        let _again = enter("192.0.2.1").unwrap();
        assert_eq!(addresses.0.unwrap().open.lock().len(), 2, "who has gone is forgotten");
    }
}
