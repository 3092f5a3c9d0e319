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
    super::{Config, InvalidConfig, address::Address, connector::Way},
    ejection::{self, Ejections},
    load::Load,
    node::Node,
    pick::Dice,
};
use crate::{circuit_breaker::State, discovery::Upstream};

/// Endpoints of a target that have series of their own. However many addresses come and go, there are never more.
const MOST_LABELS: usize = 64;

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
    pub(crate) fn some(&self, most: usize) -> Vec<Uri> {
        let (nodes, now) = (self.0.nodes(), Instant::now());
        let (usable, others): (Vec<_>, Vec<_>) = nodes.iter().partition(|node| node.is_usable(now));
        usable.into_iter().chain(others).take(most).map(|node| node.address.uri().clone()).collect()
    }

    /// A connection of its own to one of them, made when it is needed, as those of calls are made.
    pub(crate) fn connection(&self, address: &Uri) -> Channel {
        let way = self.0.way.clone();
        let connect = move |uri: Uri| {
            let way = way.clone();
            async move { way.to(&uri).await.map(TokioIo::new) }
        };
        transport::Endpoint::from(address.clone()).connect_with_connector_lazy(service_fn(connect))
    }

    /// Who knows the addresses.
    pub(crate) fn registry(&self) -> &'static str {
        self.0.registry
    }

    /// All of them as they are now.
    pub fn status(&self) -> Vec<EndpointStatus> {
        let status = |node: &Arc<Node>| EndpointStatus {
            address: node.address.name().to_owned(),
            breaker: node.breaker().map(|breaker| breaker.state()),
            ejected: node.seat().is_some_and(ejection::Seat::is_out),
            in_flight: node.load().in_flight(),
        };
        self.0.nodes().iter().map(status).collect()
    }
}

/// What all clones of a balancer share.
pub(super) struct Shared {
    pub(super) target: &'static str,
    pub(super) dice: Dice,
    pub(super) panics: metrics::Counter,
    config: Config,
    way: Way,
    registry: &'static str,
    known: metrics::Gauge,
    /// Empty only until a registry has told of one.
    nodes: ArcSwap<Vec<Arc<Node>>>,
    ejections: Arc<Ejections>,
    /// The endpoints that have series; locked while the endpoints are changed.
    labels: Mutex<HashSet<Arc<str>>>,
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
            dice: Dice::new(),
            panics: metrics::counter!("palisade.balance.panics", "target" => target),
            config: config.clone(),
            way: Way {
                timeout: Duration::from_millis(config.connect_timeout_ms),
                tls: config.tls.connector(target)?,
                kept: config.connection.clone(),
            },
            registry: upstream.registry(),
            known: metrics::gauge!("palisade.balance.endpoints", "target" => target),
            nodes: ArcSwap::default(),
            ejections: Ejections::new(target),
            labels: Mutex::default(),
        };
        shared.known.set(0.0);
        if let Upstream::List(addresses) = upstream {
            shared.replace(addresses);
        }
        Ok(shared)
    }

    pub(super) fn nodes(&self) -> Guard<Arc<Vec<Arc<Node>>>> {
        self.nodes.load()
    }

    fn replace(&self, addresses: Vec<Address>) {
        let mut labels = self.labels.lock();
        let before = self.nodes.load_full();
        let several = addresses.len() > 1;
        let node = |address: Address| match before.iter().find(|node| node.address == address) {
            Some(known) if known.is_guarded() == several => known.clone(),
            Some(known) if several => Arc::new(self.guarded(known, &mut labels)),
            Some(known) => Arc::new(known.alone()),
            None if several => Arc::new(self.guarded(&self.unknown(address), &mut labels)),
            None => Arc::new(self.unknown(address)),
        };
        let after: Vec<_> = addresses.into_iter().map(node).collect();
        self.nodes.store(Arc::new(after.clone()));
        self.known.set(u32::try_from(after.len()).unwrap_or(u32::MAX));
        before.iter().filter(|node| !after.iter().any(|kept| Arc::ptr_eq(kept, node))).for_each(|node| node.retire());
        let limit = ejection::most(self.config.balance.max_ejected, after.len());
        self.ejections.limit(limit, after.iter().filter_map(|node| node.seat()));
    }

    fn unknown(&self, address: Address) -> Node {
        let decay = Duration::from_millis(self.config.balance.decay_ms);
        // Whoever fails is no better than one that uses up all the time there is: no endpoint that answers can look worse.
        let penalty = Duration::from_millis(self.config.attempt_timeout_ms);
        Node::new(address, self.way.clone(), Load::new(decay, penalty, Instant::now()))
    }

    fn guarded(&self, node: &Node, labels: &mut HashSet<Arc<str>>) -> Node {
        let name = node.address.name();
        if !labels.contains(name) && labels.len() < MOST_LABELS {
            labels.insert(name.into());
        }
        node.guarded(self.target, labels.get(name).cloned(), &self.config.endpoint_breaker, self.ejections.clone())
    }
}

#[cfg(test)]
mod tests;
