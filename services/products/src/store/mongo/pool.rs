//! What the driver tells of its connections, counted.

use std::collections::HashSet;

use mongodb::{event::cmap::CmapEvent, options::ServerAddress};
use palisade_middleware::store_instrumentation;
use parking_lot::Mutex;

/// The connections to all servers of one client.
#[derive(Debug)]
pub(super) struct ConnectionTracker {
    pool: store_instrumentation::PoolMetrics,
    /// How many each server may have.
    limit: u32,
    state: Mutex<State>,
}

/// Counted by name: a caller that goes away while it is handed a connection gives one back that it never had.
#[derive(Debug, Default)]
struct State {
    servers: u32,
    open: HashSet<(ServerAddress, u32)>,
    used: HashSet<(ServerAddress, u32)>,
}

impl ConnectionTracker {
    pub(super) fn new(limit: u32) -> Self {
        Self { pool: store_instrumentation::PoolMetrics::new("products-mongodb", limit), limit, state: Mutex::default() }
    }

    /// The driver tells of waits in the task that waits.
    pub(super) fn on_event(&self, event: CmapEvent) {
        match event {
            CmapEvent::PoolCreated(_) => self.add_servers(1),
            CmapEvent::PoolClosed(_) => self.add_servers(-1),
            CmapEvent::ConnectionReady(event) => self.update(|state| state.open.insert((event.address, event.connection_id))),
            CmapEvent::ConnectionCheckoutStarted(_) => self.pool.wait_begins(),
            CmapEvent::ConnectionCheckoutFailed(_) => self.pool.wait_ends(false),
            CmapEvent::ConnectionCheckedOut(event) => {
                self.pool.wait_ends(true);
                self.update(|state| state.used.insert((event.address, event.connection_id)));
            }
            CmapEvent::ConnectionCheckedIn(event) => self.update(|state| state.used.remove(&(event.address, event.connection_id))),
            CmapEvent::ConnectionClosed(event) => self.update(|state| {
                let connection = (event.address, event.connection_id);
                state.used.remove(&connection);
                state.open.remove(&connection)
            }),
            _ => {}
        }
    }

    fn add_servers(&self, change: i32) {
        let mut state = self.state.lock();
        state.servers = state.servers.saturating_add_signed(change);
        self.pool.limit(self.limit.saturating_mul(state.servers.max(1)));
    }

    /// Shown under the lock, or the last word might be an old one.
    fn update(&self, change: impl FnOnce(&mut State) -> bool) {
        let mut state = self.state.lock();
        if change(&mut state) {
            let [open, used] = [&state.open, &state.used].map(|connections| u32::try_from(connections.len()).unwrap_or(u32::MAX));
            self.pool.count(open.saturating_sub(used), used);
        }
    }
}
