//! Table of the open connections of a port: limits in total and per address, and eviction of the
//! longest idle connection when a limit is reached. If none is idle, a busy connection of the
//! address with the most connections is closed.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{
    connection_state::{ConnectionState, IdleSignal, PortClock},
    record_connection_closed,
    waiting_bytes::{Bounds, Total, WaitingBytes},
};
use crate::server::Config;
use palisade_resilience::{
    caller::ip_prefix,
    metrics::{as_f64, register_observable_sum},
    respond::Protocol,
    trusted_proxies::TrustedProxies,
};

/// Maximum time of an evicted connection to close; then it is aborted.
pub(super) const EVICTION_GRACE: Duration = Duration::from_millis(250);
/// A connection used within this time is not closed for a new one of its address, which waits this
/// long instead. A client with too many connections would otherwise lose those it uses, and
/// reconnect as fast as it can.
const MIN_IDLE: Duration = Duration::from_secs(1);
/// Share of the limit that eviction keeps free, so that new connections do not wait for evicted
/// ones: 1/32.
const RESERVE_DIVISOR: usize = 32;
/// An address with more connections than this, and than 1/16 of the limit, gives way at a full port
/// even if all of them are busy: a request sent slowly keeps its connection busy at no cost.
const LARGE_ADDRESS: usize = 64;
/// See [`LARGE_ADDRESS`].
const LARGE_DIVISOR: usize = 16;
/// Number of eviction candidates found in one pass over the table.
const CANDIDATES: usize = 128;
/// Minimum interval of the log lines about a limit.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Open connections of one port.
#[derive(Debug)]
pub(super) struct OpenConnections {
    limit: usize,
    slots: Arc<Semaphore>,
    /// 0 is no limit.
    per_address: usize,
    exempt: TrustedProxies,
    bounds: Bounds,
    waiting: Total,
    clock: PortClock,
    idle: Arc<IdleSignal>,
    table: Mutex<Table>,
    gauge: metrics::Gauge,
    log: LogThrottle,
}

#[derive(Debug, Default)]
struct Table {
    /// By IPv4 address or IPv6 /64 network.
    addresses: HashMap<u64, Address>,
    /// Connections that were the longest idle ones, oldest first, with the start of their idle
    /// time.
    candidates: VecDeque<(u64, Arc<ConnectionState>)>,
}

#[derive(Debug, Default)]
struct Address {
    connections: Vec<Arc<ConnectionState>>,
    waiting: Total,
    /// Whether it is a trusted proxy, which speaks for many clients.
    is_exempt: bool,
}

/// Entry of one connection, removed on drop.
#[derive(Debug)]
pub(super) struct Registered {
    port: Arc<OpenConnections>,
    address: u64,
    state: Arc<ConnectionState>,
}

impl Registered {
    pub(super) fn state(&self) -> &Arc<ConnectionState> {
        &self.state
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut table = self.port.table.lock();
        if let Entry::Occupied(mut address) = table.addresses.entry(self.address) {
            let connections = &mut address.get_mut().connections;
            if let Some(index) = connections.iter().position(|state| Arc::ptr_eq(state, &self.state)) {
                connections.swap_remove(index);
            }
            if connections.is_empty() {
                address.remove();
            }
        }
        drop(table);
        self.port.gauge.decrement(1);
    }
}

impl OpenConnections {
    /// Creates an empty table of the port `listener`, its label in metrics.
    pub(super) fn new(listener: &'static str, protocol: Protocol, config: &Config) -> Arc<Self> {
        let limit = config.max_connections;
        palisade_resilience::gauge!("palisade.connections.limit", "listener" => listener).set(as_f64(limit));
        let gauge = palisade_resilience::gauge!("palisade.connections.open", "listener" => listener);
        gauge.increment(0);
        let port = Arc::new(Self {
            limit,
            slots: Arc::new(Semaphore::new(limit)),
            per_address: config.max_connections_per_address,
            exempt: config.address_limit.proxies().unwrap_or_default(),
            bounds: config.waiting_bytes.bounds(protocol),
            waiting: Total::default(),
            clock: PortClock::new(),
            idle: Arc::default(),
            table: Mutex::default(),
            gauge,
            log: LogThrottle::default(),
        });
        let waiting = palisade_resilience::gauge!("palisade.connections.waiting_bytes", "listener" => listener);
        register_observable_sum(&port, waiting, |port| u32::try_from(port.waiting.get()).unwrap_or(u32::MAX));
        port
    }

    /// Acquires a slot for a new connection. At the limit the longest idle connection is closed; if
    /// none is idle, one of an address with very many connections; otherwise waits.
    pub(super) async fn acquire_slot(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(slot) = self.slots.clone().try_acquire_owned() {
                if self.slots.available_permits() < self.limit / RESERVE_DIVISOR {
                    self.evict_longest_idle();
                }
                return slot;
            }
            // Asked for before the search, so that no connection becomes idle unnoticed.
            self.idle.want(true);
            let became_idle = self.idle.notify.notified();
            let evicted = self.evict_longest_idle() || self.evict_of_largest_address();
            let slot = self.slots.clone().acquire_owned();
            let slot = tokio::select! {
                slot = slot => slot.ok(),
                () = became_idle, if !evicted => None,
                () = tokio::time::sleep(EVICTION_GRACE), if evicted => None,
            };
            self.idle.want(false);
            if let Some(slot) = slot {
                return slot;
            }
        }
    }

    /// Enters a connection of `peer`. At the limit of its address the longest idle connection of
    /// this address is closed. If none is idle, waits once, unless the port itself is half full;
    /// `None` if none is idle afterwards either.
    pub(super) async fn register(self: &Arc<Self>, peer: IpAddr) -> Option<Registered> {
        if let Some(entry) = self.try_register(peer) {
            return Some(entry);
        }
        if self.slots.available_permits() > self.limit / 2 {
            tokio::time::sleep(MIN_IDLE).await;
            if let Some(entry) = self.try_register(peer) {
                return Some(entry);
            }
        }
        record_connection_closed("address");
        None
    }

    fn try_register(self: &Arc<Self>, peer: IpAddr) -> Option<Registered> {
        let peer = peer.to_canonical();
        let is_exempt = self.exempt.contains(peer);
        let key = ip_prefix(peer);
        let mut table = self.table.lock();
        let address = table.addresses.entry(key).or_default();
        address.is_exempt = is_exempt;
        if self.per_address > 0 && !is_exempt && address.connections.len() >= self.per_address {
            let open = || address.connections.iter().filter(|state| !state.is_evicted());
            if open().count() >= self.per_address {
                let idle = open().filter_map(|state| Some((state.idle_at()?, state)));
                let longest_idle = idle.min_by_key(|(since, _)| *since).filter(|(since, _)| since.elapsed() >= MIN_IDLE);
                let evicted = longest_idle.is_some_and(|(_, state)| state.evict());
                self.log.connection_limit(|count| {
                    tracing::warn!(address = %peer, limit = self.per_address, count, "connection limit of an address reached");
                });
                if !evicted {
                    return None;
                }
                record_connection_closed("address_evicted");
            }
        }
        let total = (!is_exempt).then(|| address.waiting.clone());
        let waiting = WaitingBytes::new(self.bounds, self.waiting.clone(), total);
        let state = ConnectionState::new(self.clock.clone(), waiting, self.idle.clone());
        address.connections.push(state.clone());
        drop(table);
        self.gauge.increment(1);
        Some(Registered { port: self.clone(), address: key, state })
    }

    /// Closes a busy connection of the address with the most connections. Returns `false` if no
    /// address has very many.
    fn evict_of_largest_address(&self) -> bool {
        let table = self.table.lock();
        let open = |address: &Address| address.connections.iter().filter(|state| !state.is_evicted()).count();
        let largest = table.addresses.values().filter(|address| !address.is_exempt).max_by_key(|address| open(address));
        let largest = largest.filter(|address| open(address) > LARGE_ADDRESS.max(self.limit / LARGE_DIVISOR));
        let evicted = largest.and_then(|address| address.connections.iter().find(|state| !state.is_evicted()));
        let evicted = evicted.is_some_and(|state| state.evict());
        drop(table);
        if evicted {
            record_connection_closed("busy_evicted");
        }
        evicted
    }

    /// Closes the connection that has been idle for the longest time. Returns `false` if none is
    /// idle.
    fn evict_longest_idle(&self) -> bool {
        let mut table = self.table.lock();
        let evicted = table.pop_idle() || {
            table.find_candidates();
            table.pop_idle()
        };
        drop(table);
        if evicted {
            record_connection_closed("evicted");
        }
        self.log.connection_limit(|count| {
            let limit = self.limit;
            tracing::warn!(limit, count, evicted, "connection limit reached, closing the longest idle connections");
        });
        evicted
    }
}

impl Table {
    /// Asks the first candidate that is still idle to close.
    fn pop_idle(&mut self) -> bool {
        while let Some((since, state)) = self.candidates.pop_front() {
            if state.idle_since() == Some(since) && state.evict() {
                return true;
            }
        }
        false
    }

    /// Collects the longest idle connections. One pass serves many evictions: a connection that
    /// becomes idle later is not older.
    fn find_candidates(&mut self) {
        let all = self.addresses.values().flat_map(|address| &address.connections).filter(|state| !state.is_evicted());
        let mut idle: Vec<_> = all.filter_map(|state| Some((state.idle_since()?, state.clone()))).collect();
        if idle.len() > CANDIDATES {
            idle.select_nth_unstable_by_key(CANDIDATES, |(since, _)| *since);
            idle.truncate(CANDIDATES);
        }
        idle.sort_unstable_by_key(|(since, _)| *since);
        self.candidates = idle.into();
    }
}

/// Writes at most one log line per interval.
#[derive(Debug, Default)]
struct LogThrottle(Mutex<(Option<Instant>, u64)>);

impl LogThrottle {
    /// Calls `log` with the number of events since the last line, if one is due.
    fn connection_limit(&self, log: impl FnOnce(u64)) {
        let mut state = self.0.lock();
        let (last, count) = &mut *state;
        *count += 1;
        if last.is_none_or(|last| last.elapsed() >= LOG_INTERVAL) {
            *last = Some(Instant::now());
            let count = std::mem::take(count);
            drop(state);
            log(count);
        }
    }
}

#[cfg(test)]
mod tests;
