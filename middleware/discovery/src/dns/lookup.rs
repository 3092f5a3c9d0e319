//! DNS lookups through the system's resolvers or a configured server.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig},
    lookup::Lookup,
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RData},
};

/// Timeout of one server before the query is repeated.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);

/// Address family, IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in super::super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(in super::super) const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

/// SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct SrvRecord {
    pub(in super::super) priority: u16,
    pub(in super::super) host: Name,
    pub(in super::super) port: u16,
}

/// Records, possibly none, with their TTL.
#[derive(Debug)]
pub(in super::super) struct LookupResult<T> {
    pub(in super::super) records: Vec<T>,
    pub(in super::super) ttl: Duration,
}

/// Source of DNS records. "No records" is a result; an error means no response.
pub(in super::super) trait DnsLookup: Send + Sync {
    /// Prepares for a series of lookups.
    fn prepare(&mut self) -> Result<(), NetError>;

    /// Called after a lookup failed.
    fn on_failure(&mut self);

    fn addresses(&self, host: &Name, family: Family) -> impl Future<Output = Result<LookupResult<IpAddr>, NetError>> + Send;

    fn srv_records(&self, name: &Name) -> impl Future<Output = Result<LookupResult<SrvRecord>, NetError>> + Send;
}

/// Lookups with Hickory. The resolver is rebuilt after a failure, because the system's resolvers
/// may have changed.
pub(in super::super) struct HickoryLookup {
    server: Option<SocketAddr>,
    resolver: Option<TokioResolver>,
}

impl HickoryLookup {
    pub(in super::super) fn new(server: Option<SocketAddr>) -> Self {
        Self { server, resolver: None }
    }

    fn build_resolver(&self) -> Result<TokioResolver, NetError> {
        let mut builder = match self.server {
            None => Resolver::builder_tokio()?,
            Some(server) => {
                let mut named = NameServerConfig::udp_and_tcp(server.ip());
                named.connections.iter_mut().for_each(|connection| connection.port = server.port());
                let config = ResolverConfig::from_name_servers(vec![named]);
                let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
                builder.options_mut().use_hosts_file = ResolveHosts::Never;
                builder
            }
        };
        let options = builder.options_mut();
        // Not cached: the poll loop decides when to look up again.
        options.cache_size = 0;
        options.timeout = options.timeout.min(SERVER_TIMEOUT);
        builder.build()
    }

    fn resolver(&self) -> Result<&TokioResolver, NetError> {
        self.resolver.as_ref().ok_or_else(|| NetError::from("no DNS resolver available"))
    }
}

impl DnsLookup for HickoryLookup {
    fn prepare(&mut self) -> Result<(), NetError> {
        if self.resolver.is_none() {
            self.resolver = Some(self.build_resolver()?);
        }
        Ok(())
    }

    fn on_failure(&mut self) {
        self.resolver = None;
    }

    async fn addresses(&self, host: &Name, family: Family) -> Result<LookupResult<IpAddr>, NetError> {
        let resolver = self.resolver()?;
        let lookup = match family {
            Family::V4 => resolver.ipv4_lookup(host.clone()).await,
            Family::V6 => resolver.ipv6_lookup(host.clone()).await,
        };
        to_result(lookup, |data| match data {
            RData::A(ip) => Some(IpAddr::V4(ip.0)),
            RData::AAAA(ip) => Some(IpAddr::V6(ip.0)),
            _ => None,
        })
    }

    async fn srv_records(&self, name: &Name) -> Result<LookupResult<SrvRecord>, NetError> {
        to_result(self.resolver()?.srv_lookup(name.clone()).await, |data| match data {
            RData::SRV(srv) => Some(SrvRecord { priority: srv.priority, host: srv.target.clone(), port: srv.port }),
            _ => None,
        })
    }
}

fn to_result<T>(lookup: Result<Lookup, NetError>, extract: impl Fn(&RData) -> Option<T>) -> Result<LookupResult<T>, NetError> {
    match lookup {
        Ok(found) => {
            let ttl = found.answers().iter().map(|record| record.ttl).min().unwrap_or_default();
            let records = found.answers().iter().filter_map(|record| extract(&record.data)).collect();
            Ok(LookupResult { records, ttl: Duration::from_secs(ttl.into()) })
        }
        // Without records there is no TTL of its own: the TTL of the other family applies.
        Err(error) if error.is_no_records_found() => Ok(LookupResult { records: Vec::new(), ttl: Duration::MAX }),
        Err(error) => Err(error),
    }
}
