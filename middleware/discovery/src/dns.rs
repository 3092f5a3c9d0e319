//! DNS discovery: A and AAAA records of a name, or its SRV records with the addresses of their
//! hosts.
//!
//! Only SRV records of the lowest priority are used. Their weights are ignored, because the load
//! balancer goes by load. A failed lookup keeps its last result: a failed AAAA lookup does not
//! remove addresses of A records, nor does one host affect another.

mod lookup;

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use hickory_resolver::{net::NetError, proto::rr::Name};

use self::lookup::{DnsLookup, Family, HickoryLookup, SrvRecord};
use super::{
    poll::{Resolve, Resolved},
    upstream::{DnsTarget, Kind},
};
use palisade_transport::client::address::Address;

/// Maximum hosts of a service that are resolved; the limit on addresses is lower.
const MAX_HOSTS: usize = 1_024;
/// Maximum concurrent host lookups.
const MAX_CONCURRENT_LOOKUPS: usize = 16;

/// Resolver of a [`DnsTarget`].
pub(super) struct Dns<A = HickoryLookup> {
    lookup: A,
    target: DnsTarget,
    previous: HashMap<(Name, Family), Vec<IpAddr>>,
}

impl Dns {
    pub(super) fn new(question: DnsTarget) -> Self {
        Self { lookup: HickoryLookup::new(question.server), target: question, previous: HashMap::new() }
    }
}

/// Resolved addresses of some hosts.
struct HostAddresses {
    addresses: Vec<SocketAddr>,
    ttl: Duration,
    stale_part: bool,
}

impl<A: DnsLookup> Dns<A> {
    /// Resolves `hosts`; an error only if every lookup failed.
    async fn resolve_hosts(&mut self, hosts: Vec<(Name, u16)>) -> Result<HostAddresses, NetError> {
        let lookups: Vec<_> = hosts.iter().flat_map(|(name, _)| Family::BOTH.map(|family| (name.clone(), family))).collect();
        let lookup = &self.lookup;
        let results: Vec<_> = stream::iter(lookups.iter().cloned())
            .map(|(name, family)| async move { lookup.addresses(&name, family).await })
            .buffered(MAX_CONCURRENT_LOOKUPS)
            .collect()
            .await;
        let mut resolved = HashMap::new();
        let (mut ttl, mut stale_part, mut any_succeeded, mut error) = (Duration::MAX, false, false, None);
        for (key, result) in lookups.into_iter().zip(results) {
            let addresses = match result {
                Ok(answer) => {
                    any_succeeded = true;
                    ttl = ttl.min(answer.ttl);
                    answer.records
                }
                Err(lookup_error) => {
                    (stale_part, error) = (true, Some(lookup_error));
                    self.previous.remove(&key).unwrap_or_default()
                }
            };
            resolved.insert(key, addresses);
        }
        if let Some(error) = error.filter(|_| !any_succeeded) {
            self.previous.extend(resolved);
            return Err(error);
        }
        let addresses_of = |name: &Name, family| resolved.get(&(name.clone(), family)).into_iter().flatten().copied();
        let addresses_of_host = |name: &Name| Family::BOTH.map(|family| addresses_of(name, family).collect::<Vec<_>>()).concat();
        let addresses =
            hosts.iter().flat_map(|(name, port)| addresses_of_host(name).into_iter().map(|ip| SocketAddr::new(ip, *port))).collect();
        self.previous = resolved;
        Ok(HostAddresses { addresses, ttl, stale_part })
    }
}

impl<A: DnsLookup> Resolve for Dns<A> {
    type Error = NetError;

    async fn resolve(&mut self) -> Result<Resolved, NetError> {
        self.lookup.prepare()?;
        let (hosts, invalid, ttl) = match self.target.kind {
            Kind::Addresses { port } => (vec![(self.target.name.clone(), port)], 0, Duration::MAX),
            Kind::Srv => {
                let services = self.lookup.srv_records(&self.target.name).await.inspect_err(|_| self.lookup.on_failure())?;
                let (hosts, refused) = lowest_priority(services.records);
                (hosts, refused, services.ttl)
            }
        };
        let hosts = self.resolve_hosts(hosts).await.inspect_err(|_| self.lookup.on_failure())?;
        if hosts.stale_part {
            self.lookup.on_failure();
        }
        let resolved = hosts.addresses.len();
        let addresses: Vec<_> = hosts.addresses.into_iter().filter(is_unicast).filter_map(Address::from_socket_addr).collect();
        let invalid = invalid + resolved - addresses.len();
        Ok(Resolved { addresses, invalid, ttl: ttl.min(hosts.ttl), stale_part: hosts.stale_part })
    }
}

/// Returns the deduplicated hosts and ports of the lowest priority, and the number of unusable
/// records. The host "." means that the service does not exist.
fn lowest_priority(services: Vec<SrvRecord>) -> (Vec<(Name, u16)>, usize) {
    let total = services.len();
    let usable: Vec<_> = services.into_iter().filter(|service| service.port > 0 && !service.host.is_root()).collect();
    let invalid = total - usable.len();
    let lowest = usable.iter().map(|service| service.priority).min();
    let hosts = usable.into_iter().filter(|service| Some(service.priority) == lowest).map(|service| (service.host, service.port));
    (hosts.collect::<BTreeSet<_>>().into_iter().take(MAX_HOSTS).collect(), invalid)
}

/// Returns `true` for a unicast address: not unspecified, multicast or broadcast.
fn is_unicast(address: &SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}

#[cfg(test)]
mod tests;
