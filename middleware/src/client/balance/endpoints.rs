//! The endpoints of one target while its client runs: which there are, how they are, and how to change them.

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use arc_swap::{ArcSwap, Guard};
use http::Uri;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::transport::{self, Channel};
use tower::service_fn;

use super::{
    super::{Config, InvalidConfig, address::Address, connector::ConnectParams},
    outlier_ejection::{self, EjectionLimit},
    peak_ewma::PeakEwma,
    node::BalancedEndpoint,
    p2c::Rng,
};
use crate::{circuit_breaker::State, discovery::UpstreamUrl};

/// Endpoints of a target that have series of their own. However many addresses come and go, there are never more.
const MAX_LABELLED_ENDPOINTS: usize = 64;

/// An operator's, or a discovery's, hand on the endpoints of one target; all clones of its client feel it.
#[derive(Debug, Clone)]
pub struct Endpoints(pub(super) Arc<Shared>);

/// How one endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointStatus {
    /// `host:port`.
    pub address: String,
    /// Of its breaker; a single endpoint has none.
    pub breaker: Option<State>,
    /// Calls go elsewhere, because it fails and enough others do not.
    pub ejected: bool,
    /// Its calls, until their last byte. Those of a single endpoint are not counted.
    pub in_flight: u32,
}

impl Endpoints {
    /// From now on calls go to `addresses` (`http://host:port`). One that stays keeps its connection and what is known about it; the calls
    /// of one that goes are finished. An empty list is refused like a bad address: whoever has lost all addresses has likely lost his
    /// directory. Must be called within a tokio runtime.
    pub fn set<'a>(&self, addresses: impl IntoIterator<Item = &'a str>) -> Result<(), InvalidConfig> {
        self.0.replace(Address::list(addresses)?);
        Ok(())
    }

    /// As [`Self::set`], with addresses that are good, each once, and at least one.
    pub(crate) fn replace(&self, addresses: Vec<Address>) {
        self.0.replace(addresses);
    }

    /// At most so many to ask how their service is, those first that nothing speaks against.
    pub(crate) fn sample_uris(&self, max: usize) -> Vec<Uri> {
        let (nodes, now) = (self.0.nodes(), Instant::now());
        let (usable, others): (Vec<_>, Vec<_>) = nodes.iter().partition(|node| node.is_usable(now));
        usable.into_iter().chain(others).take(max).map(|node| node.address.uri().clone()).collect()
    }

    /// A connection of its own to one of them, made when it is needed, as those of calls are made.
    pub(crate) fn connection(&self, address: &Uri) -> Channel {
        let way = self.0.connect_params.clone();
        let connect = move |uri: Uri| {
            let way = way.clone();
            async move { way.connect(&uri).await.map(TokioIo::new) }
        };
        transport::Endpoint::from(address.clone()).connect_with_connector_lazy(service_fn(connect))
    }

    /// Who knows the addresses.
    pub(crate) fn registry(&self) -> &'static str {
        self.0.registry
    }

    /// All of them as they are now.
    pub fn status(&self) -> Vec<EndpointStatus> {
        let status = |node: &Arc<BalancedEndpoint>| EndpointStatus {
            address: node.address.name().to_owned(),
            breaker: node.breaker().map(|breaker| breaker.state()),
            ejected: node.ejection_slot().is_some_and(outlier_ejection::EjectionSlot::is_ejected),
            in_flight: node.load().in_flight(),
        };
        self.0.nodes().iter().map(status).collect()
    }
}

/// What all clones of a balancer share.
pub(super) struct Shared {
    pub(super) target: &'static str,
    pub(super) rng: Rng,
    pub(super) panic_picks: metrics::Counter,
    config: Config,
    connect_params: ConnectParams,
    registry: &'static str,
    endpoint_count: metrics::Gauge,
    /// Empty only until a registry has told of one.
    nodes: ArcSwap<Vec<Arc<BalancedEndpoint>>>,
    ejections: Arc<EjectionLimit>,
    /// The endpoints that have series; locked while the endpoints are changed.
    labelled: Mutex<HashSet<Arc<str>>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("target", &self.target).field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(target: &'static str, config: &Config) -> Result<Self, InvalidConfig> {
        let upstream = config.upstream()?;
        let shared = Self {
            target,
            rng: Rng::new(),
            panic_picks: metrics::counter!("palisade.balance.panics", "target" => target),
            config: config.clone(),
            connect_params: ConnectParams {
                timeout: Duration::from_millis(config.connect_timeout_ms),
                tls: config.tls.connector(target)?,
                connection: config.connection.clone(),
            },
            registry: upstream.registry(),
            endpoint_count: metrics::gauge!("palisade.balance.endpoints", "target" => target),
            nodes: ArcSwap::default(),
            ejections: EjectionLimit::new(target),
            labelled: Mutex::default(),
        };
        shared.endpoint_count.set(0.0);
        if let UpstreamUrl::List(addresses) = upstream {
            shared.replace(addresses);
        }
        Ok(shared)
    }

    pub(super) fn nodes(&self) -> Guard<Arc<Vec<Arc<BalancedEndpoint>>>> {
        self.nodes.load()
    }

    fn replace(&self, addresses: Vec<Address>) {
        let mut labels = self.labelled.lock();
        let before = self.nodes.load_full();
        let is_balanced = addresses.len() > 1;
        let node = |address: Address| match before.iter().find(|node| node.address == address) {
            Some(known) if known.has_breaker() == is_balanced => known.clone(),
            Some(known) if is_balanced => Arc::new(self.with_breaker(known, &mut labels)),
            Some(known) => Arc::new(known.without_breaker()),
            None if is_balanced => Arc::new(self.with_breaker(&self.new_node(address), &mut labels)),
            None => Arc::new(self.new_node(address)),
        };
        let after: Vec<_> = addresses.into_iter().map(node).collect();
        self.nodes.store(Arc::new(after.clone()));
        self.endpoint_count.set(u32::try_from(after.len()).unwrap_or(u32::MAX));
        before.iter().filter(|node| !after.iter().any(|retained| Arc::ptr_eq(retained, node))).for_each(|node| node.retire());
        let limit = outlier_ejection::max_ejected_count(self.config.balance.max_ejected, after.len());
        self.ejections.set_limit(limit, after.iter().filter_map(|node| node.ejection_slot()));
    }

    fn new_node(&self, address: Address) -> BalancedEndpoint {
        let decay = Duration::from_millis(self.config.balance.decay_ms);
        // Whoever fails is no better than one that uses up all the time there is: no endpoint that answers can look worse.
        let penalty = Duration::from_millis(self.config.attempt_timeout_ms);
        BalancedEndpoint::new(address, self.connect_params.clone(), PeakEwma::new(decay, penalty, Instant::now()))
    }

    fn with_breaker(&self, node: &BalancedEndpoint, labels: &mut HashSet<Arc<str>>) -> BalancedEndpoint {
        let name = node.address.name();
        if !labels.contains(name) && labels.len() < MAX_LABELLED_ENDPOINTS {
            labels.insert(name.into());
        }
        node.with_breaker(self.target, labels.get(name).cloned(), &self.config.outlier_detection, self.ejections.clone())
    }
}

#[cfg(test)]
mod tests;
