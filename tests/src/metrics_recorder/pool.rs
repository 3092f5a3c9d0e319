//! Metrics of a connection pool.

use super::MetricsRecorder;
use crate::eventually;

/// Metrics of one pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolMetrics<'a> {
    recorder: &'a MetricsRecorder,
    name: &'static str,
}

impl MetricsRecorder {
    /// Returns the metrics of the pool `name`.
    pub fn pool(&self, name: &'static str) -> PoolMetrics<'_> {
        PoolMetrics { recorder: self, name }
    }
}

impl PoolMetrics<'_> {
    /// Returns the values of these metrics, named without the prefix `db_client_connection_`.
    pub fn values<const N: usize>(&self, metrics: [&str; N]) -> [String; N] {
        metrics.map(|metric| {
            let found = self.recorder.value(&format!("db_client_connection_{metric}"), &[("db_client_connection_pool_name", self.name)]);
            found.unwrap_or_else(|| panic!("{metric} of {} is not exposed", self.name))
        })
    }

    /// Waits until exactly one operation waits for a connection.
    pub async fn wait_for_pending(&self) {
        eventually(async || (self.values(["pending_requests"]) == ["1"]).then_some(())).await;
    }

    /// Waits until this number of connections is in `state`: `idle` or `used`.
    pub async fn wait_for_count(&self, state: &str, count: &str) {
        let labels = [("db_client_connection_pool_name", self.name), ("db_client_connection_state", state)];
        eventually(async || self.recorder.value("db_client_connection_count", &labels).filter(|shown| *shown == count)).await;
    }
}
