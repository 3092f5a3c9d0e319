//! What is shown of a pool of connections.

use super::Recorded;
use crate::eventually;

/// One pool's metrics.
#[derive(Debug, Clone, Copy)]
pub struct Pool<'a> {
    recorded: &'a Recorded,
    name: &'static str,
}

impl Recorded {
    /// What is shown of the pool `name`.
    pub fn pool(&self, name: &'static str) -> Pool<'_> {
        Pool { recorded: self, name }
    }
}

impl Pool<'_> {
    /// These of its metrics, as they are called behind `db_client_connection_`.
    pub fn shown<const N: usize>(&self, metrics: [&str; N]) -> [String; N] {
        metrics.map(|metric| {
            let found = self.recorded.value(&format!("db_client_connection_{metric}"), &[("db_client_connection_pool_name", self.name)]);
            found.unwrap_or_else(|| panic!("{metric} of {} is not shown", self.name))
        })
    }

    /// Until somebody waits for a connection, and nobody else does.
    pub async fn wait_for_pending(&self) {
        eventually(async || (self.shown(["pending_requests"]) == ["1"]).then_some(())).await;
    }

    /// Until so many connections are in `state`: `idle` or `used`.
    pub async fn until(&self, state: &str, count: &str) {
        let labels = [("db_client_connection_pool_name", self.name), ("db_client_connection_state", state)];
        eventually(async || self.recorded.value("db_client_connection_count", &labels).filter(|shown| *shown == count)).await;
    }
}
