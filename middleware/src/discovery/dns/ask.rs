//! One question to DNS: by the system's resolvers, or by one that is named.

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

/// How long one server may take, before the question is asked again.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in super::super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(in super::super) const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

/// One SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Service {
    pub(in super::super) priority: u16,
    pub(in super::super) host: Name,
    pub(in super::super) port: u16,
}

/// Records, of which there may be none, and how long they may be believed.
#[derive(Debug)]
pub(in super::super) struct Answer<T> {
    pub(in super::super) records: Vec<T>,
    pub(in super::super) good_for: Duration,
}

/// Whoever knows records. An error is no answer at all; that there are no records is one.
pub(in super::super) trait Ask: Send + Sync {
    /// Gets ready for some questions.
    fn begin(&mut self) -> Result<(), NetError>;

    /// Not all were answered.
    fn failed(&mut self);

    fn addresses(&self, host: &Name, family: Family) -> impl Future<Output = Result<Answer<IpAddr>, NetError>> + Send;

    fn services(&self, name: &Name) -> impl Future<Output = Result<Answer<Service>, NetError>> + Send;
}

/// Real resolvers. They are looked up again after a failure: the system may have others by now.
pub(in super::super) struct System {
    server: Option<SocketAddr>,
    resolver: Option<TokioResolver>,
}

impl System {
    pub(in super::super) fn new(server: Option<SocketAddr>) -> Self {
        Self { server, resolver: None }
    }

    fn make(&self) -> Result<TokioResolver, NetError> {
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
        // When to ask again is decided by us.
        options.cache_size = 0;
        options.timeout = options.timeout.min(ANSWER_WITHIN);
        builder.build()
    }

    fn resolver(&self) -> Result<&TokioResolver, NetError> {
        self.resolver.as_ref().ok_or_else(|| NetError::from("there is no resolver"))
    }
}

impl Ask for System {
    fn begin(&mut self) -> Result<(), NetError> {
        if self.resolver.is_none() {
            self.resolver = Some(self.make()?);
        }
        Ok(())
    }

    fn failed(&mut self) {
        self.resolver = None;
    }

    async fn addresses(&self, host: &Name, family: Family) -> Result<Answer<IpAddr>, NetError> {
        let resolver = self.resolver()?;
        let found = match family {
            Family::V4 => resolver.ipv4_lookup(host.clone()).await,
            Family::V6 => resolver.ipv6_lookup(host.clone()).await,
        };
        answer(found, |data| match data {
            RData::A(ip) => Some(IpAddr::V4(ip.0)),
            RData::AAAA(ip) => Some(IpAddr::V6(ip.0)),
            _ => None,
        })
    }

    async fn services(&self, name: &Name) -> Result<Answer<Service>, NetError> {
        answer(self.resolver()?.srv_lookup(name.clone()).await, |data| match data {
            RData::SRV(srv) => Some(Service { priority: srv.priority, host: srv.target.clone(), port: srv.port }),
            _ => None,
        })
    }
}

fn answer<T>(found: Result<Lookup, NetError>, of_interest: impl Fn(&RData) -> Option<T>) -> Result<Answer<T>, NetError> {
    match found {
        Ok(found) => {
            let good_for = found.answers().iter().map(|record| record.ttl).min().unwrap_or_default();
            let records = found.answers().iter().filter_map(|record| of_interest(&record.data)).collect();
            Ok(Answer { records, good_for: Duration::from_secs(good_for.into()) })
        }
        // That there is none is said of the whole name's family, for as long as the others are believed.
        Err(error) if error.is_no_records_found() => Ok(Answer { records: Vec::new(), good_for: Duration::MAX }),
        Err(error) => Err(error),
    }
}
