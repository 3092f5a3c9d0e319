//! Endpoint set of one target at run time: status and replacement.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use arc_swap::{ArcSwap, Guard};
use http::Uri;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use tonic::transport::Channel;
use tower::service_fn;

use super::{
    super::{EndpointConfig, InvalidAddress, address::Address, connector::ConnectParams},
    node::BalancedEndpoint,
    outlier_ejection::{self, EjectionLimit},
    p2c::Rng,
    peak_ewma::PeakEwma,
};
use crate::tls;
use palisade_resilience::{circuit_breaker::State, metrics::LiveLabel};

/// Maximum number of present endpoints with their own metric series per target.
const MAX_LABELLED_ENDPOINTS: usize = 64;

/// Handle to the endpoints of one target, for operators and service discovery. A change applies to
/// all clones of its client.
#[derive(Debug, Clone)]
pub struct Endpoints(pub(super) Arc<Shared>);

/// Status of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointStatus {
    /// Address as `host:port`.
    pub address: String,
    /// Breaker state; `None` for a single endpoint, which has no breaker.
    pub breaker: Option<State>,
    /// Whether the endpoint is ejected: it fails, and enough others work.
    pub ejected: bool,
    /// Calls in flight until their last byte. Not counted for a single endpoint.
    pub in_flight: u32,
}

impl Endpoints {
    /// Replaces the endpoints by `addresses` (`http://host:port`). A retained endpoint keeps its
    /// connection and statistics; calls of a removed endpoint are finished. An empty list is
    /// rejected like an invalid address, because it usually means a registry failure. Must be
    /// called within a tokio runtime.
    pub fn set<'a>(&self, addresses: impl IntoIterator<Item = &'a str>) -> Result<(), InvalidAddress> {
        self.0.replace(Address::list(addresses)?);
        Ok(())
    }

    /// Replaces the endpoints like [`Self::set`], by a validated, deduplicated and non-empty list.
    pub fn replace(&self, addresses: Vec<Address>) {
        self.0.replace(addresses);
    }

    /// Returns at most `max` addresses for health probes, usable endpoints first.
    pub fn sample_addresses(&self, max: usize) -> Vec<Address> {
        let (nodes, now) = (self.0.nodes(), Instant::now());
        let (usable, others): (Vec<_>, Vec<_>) = nodes.iter().partition(|node| node.is_usable(now));
        usable.into_iter().chain(others).take(max).map(|node| node.address.clone()).collect()
    }

    /// Opens a separate lazy connection to `address`, with the connect parameters of calls.
    pub fn connection(&self, address: &Address) -> Channel {
        let way = self.0.connect_params.clone();
        let connect = move |uri: Uri| {
            let way = way.clone();
            async move { way.connect(&uri).await.map(TokioIo::new) }
        };
        address.endpoint(address.is_secure()).connect_with_connector_lazy(service_fn(connect))
    }

    /// Returns the kind of registry that resolves the addresses.
    pub fn registry(&self) -> &'static str {
        self.0.registry
    }

    /// Returns the current status of all endpoints.
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

/// State shared by all clones of a balancer.
pub(super) struct Shared {
    pub(super) target: &'static str,
    pub(super) rng: Rng,
    pub(super) panic_picks: metrics::Counter,
    config: EndpointConfig,
    connect_params: ConnectParams,
    registry: &'static str,
    endpoint_count: metrics::Gauge,
    /// Empty until discovery resolves the first address.
    nodes: ArcSwap<Vec<Arc<BalancedEndpoint>>>,
    /// Notified after a replacement.
    pub(super) changed: Notify,
    ejections: Arc<EjectionLimit>,
    /// Present endpoints with metric series, by address; locked during a replacement.
    labelled: Mutex<HashMap<Arc<str>, LiveLabel>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("target", &self.target).field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(
        target: &'static str,
        config: &EndpointConfig,
        registry: &'static str,
        addresses: Vec<Address>,
    ) -> Result<Self, tls::Error> {
        let shared = Self {
            target,
            rng: Rng::new(),
            panic_picks: palisade_resilience::counter!("palisade.lb.panic_mode_picks", "target" => target),
            config: config.clone(),
            connect_params: ConnectParams {
                timeout: config.connect_timeout,
                tls: config.tls.connector(target)?,
                connection: config.connection.clone(),
            },
            registry,
            endpoint_count: palisade_resilience::gauge!("palisade.lb.endpoints", "target" => target),
            nodes: ArcSwap::default(),
            changed: Notify::new(),
            ejections: EjectionLimit::new(target),
            labelled: Mutex::default(),
        };
        shared.endpoint_count.set(0.0);
        if !addresses.is_empty() {
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
        // Gives back the series of removed endpoints before new ones take theirs.
        labels.retain(|name, _| addresses.iter().any(|address| address.name() == &**name));
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
        self.changed.notify_waiters();
        self.endpoint_count.set(u32::try_from(after.len()).unwrap_or(u32::MAX));
        before.iter().filter(|node| !after.iter().any(|retained| Arc::ptr_eq(retained, node))).for_each(|node| node.retire());
        let limit = outlier_ejection::max_ejected_count(self.config.balance.max_ejected, after.len());
        self.ejections.set_limit(limit, after.iter().filter_map(|node| node.ejection_slot()));
    }

    fn new_node(&self, address: Address) -> BalancedEndpoint {
        let decay = Duration::from_millis(self.config.balance.decay_ms);
        // A failure costs as much as a full attempt timeout, so that no responding endpoint looks
        // worse.
        let penalty = self.config.attempt_timeout;
        BalancedEndpoint::new(address, self.connect_params.clone(), PeakEwma::new(decay, penalty, Instant::now()))
    }

    fn with_breaker(&self, node: &BalancedEndpoint, labels: &mut HashMap<Arc<str>, LiveLabel>) -> BalancedEndpoint {
        let name = node.address.name();
        if !labels.contains_key(name) && labels.len() < MAX_LABELLED_ENDPOINTS {
            labels.insert(name.into(), LiveLabel::new(name));
        }
        let label = labels.get(name).map(|label| label.value().clone());
        node.with_breaker(self.target, label, &self.config.outlier_detection, self.ejections.clone())
    }
}

#[cfg(test)]
mod tests;
