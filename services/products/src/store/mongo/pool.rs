//! Connection pool metrics from the events of the MongoDB driver.

use std::collections::HashSet;

use mongodb::{event::cmap::CmapEvent, options::ServerAddress};
use palisade_middleware::store_instrumentation;
use parking_lot::Mutex;

/// Connections of one client to all servers.
#[derive(Debug)]
pub(super) struct ConnectionTracker {
    pool: store_instrumentation::PoolMetrics,
    /// Maximum connections per server.
    limit: u32,
    state: Mutex<State>,
}

/// Open and used connections by id. Not plain counters: a caller cancelled during a checkout causes
/// a check-in without a checkout.
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

    /// Handles a driver event. Waits are reported in the waiting task.
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

    /// Records under the lock, so that an older value cannot overwrite a newer one.
    fn update(&self, change: impl FnOnce(&mut State) -> bool) {
        let mut state = self.state.lock();
        if change(&mut state) {
            let [open, used] = [&state.open, &state.used].map(|connections| u32::try_from(connections.len()).unwrap_or(u32::MAX));
            self.pool.count(open.saturating_sub(used), used);
        }
    }
}
