//! Metrics of a group commit.

use metrics::{Counter, Gauge, Histogram};
use palisade_resilience::metrics::Metric;

/// Writes per batch.
pub const BATCH_SIZE: Metric = Metric::counts("palisade.store.batch_size", &["queue"], "Writes that shared one commit, by queue");
/// Writes that wait for the next batch.
pub const WAITING_WRITES: Metric = Metric::gauge("palisade.store.waiting_writes", &["queue"], "Writes waiting for the next commit");
/// Writes beyond the capacity of the queue.
pub const REJECTED_WRITES: Metric =
    Metric::counter("palisade.store.rejected_writes", &["queue"], "Writes rejected because too many were waiting for a commit");

/// Creates the series of `queue` at 0: a rate ignores the event that creates its series.
pub fn register(queue: &'static str) {
    let metrics = BatchMetrics::new(queue);
    metrics.removed(0);
    metrics.rejected.increment(0);
}

/// Metrics of one queue, initially zero.
#[derive(Debug)]
pub(super) struct BatchMetrics {
    size: Histogram,
    waiting: Gauge,
    rejected: Counter,
}

impl BatchMetrics {
    pub(super) fn new(queue: &'static str) -> Self {
        Self {
            size: palisade_resilience::histogram!(BATCH_SIZE.name, "queue" => queue),
            waiting: palisade_resilience::gauge!(WAITING_WRITES.name, "queue" => queue),
            rejected: palisade_resilience::counter!(REJECTED_WRITES.name, "queue" => queue),
        }
    }

    /// Records a write that waits.
    pub(super) fn added(&self) {
        self.waiting.increment(1.0);
    }

    /// Records a batch of `writes` that waited.
    #[expect(clippy::cast_precision_loss, reason = "batches are small")]
    pub(super) fn taken(&self, writes: usize) {
        self.size.record(writes as f64);
        self.removed(writes);
    }

    /// Records `writes` that no longer wait.
    #[expect(clippy::cast_precision_loss, reason = "queues are small")]
    pub(super) fn removed(&self, writes: usize) {
        self.waiting.decrement(writes as f64);
    }

    /// Records that a write did not fit into the queue.
    pub(super) fn rejected(&self) {
        self.removed(1);
        self.rejected.increment(1);
    }
}
