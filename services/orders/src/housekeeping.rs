//! Housekeeping jobs beside the saga worker: deletion of expired rows, and gauges of the store.

use std::sync::Arc;

use palisade_middleware::{
    clock::{self, Clock},
    job::{self, Heartbeat},
    jobs::Run,
};
use palisade_store::{MISSED_READS, STATS_INTERVAL};
use tokio::time::{Instant, sleep};

use crate::{
    metrics,
    retention::{BATCH, CLEANUP_INTERVAL, Lifetimes},
    store::{Error, Store},
};

/// Housekeeping of a replica.
#[derive(Clone)]
pub struct Housekeeping {
    /// Order store.
    pub store: Arc<dyn Store>,
    /// Source of the current time.
    pub clock: Arc<dyn Clock>,
    /// Lifetimes of rows.
    pub lifetimes: Lifetimes,
}

impl Housekeeping {
    /// Deletes published events and expired idempotency keys periodically until the stop.
    pub async fn run_cleanup(self, Run { heartbeat, stop }: Run) -> job::Result {
        let cleaning = async {
            loop {
                let (now, store) = (self.clock.now(), &self.store);
                let events_before = clock::before(now, self.lifetimes.events);
                // Apart: a failure of one does not stop the other.
                let keys = in_batches(&heartbeat, "idempotency_keys", || store.delete_expired_keys(now, BATCH)).await;
                let events = in_batches(&heartbeat, "outbox", || store.prune_published(events_before, BATCH)).await;
                heartbeat.record(keys.and(events));
                sleep(CLEANUP_INTERVAL).await;
            }
        };
        stop.run_until_cancelled(cleaning).await;
        Ok(())
    }

    /// Updates the gauges of the store periodically until the stop. They become NaN when the store
    /// cannot be read.
    pub async fn run_stats(self, Run { heartbeat, stop }: Run) -> job::Result {
        let updating = async {
            loop {
                let now = self.clock.now();
                let overdue = self.store.overdue(now, self.lifetimes.past(now)).await;
                let stats = self.store.stats(now).await;
                if let Ok(overdue) = &overdue {
                    metrics::record_overdue(*overdue);
                }
                if let Ok(stats) = &stats {
                    metrics::record_stats(stats);
                }
                let (no_overdue, no_stats) = (overdue.is_err(), stats.is_err());
                heartbeat.record(overdue.and(stats.map(drop)));
                if heartbeat.failures() >= MISSED_READS {
                    if no_overdue {
                        metrics::forget_overdue();
                    }
                    if no_stats {
                        metrics::forget_stats();
                    }
                }
                sleep(STATS_INTERVAL).await;
            }
        };
        stop.run_until_cancelled(updating).await;
        Ok(())
    }
}

/// Repeats `delete` until it deletes less than a batch of `collection`. Pauses as long as each
/// batch took, so that a backlog takes at most half of a connection.
async fn in_batches<F>(heartbeat: &Heartbeat, collection: &'static str, mut delete: impl FnMut() -> F) -> Result<(), Error>
where
    F: Future<Output = Result<u64, Error>>,
{
    loop {
        let started = Instant::now();
        let deleted = delete().await?;
        metrics::record_deleted(collection, deleted);
        if deleted < u64::from(BATCH) {
            return Ok(());
        }
        heartbeat.success();
        sleep(started.elapsed()).await;
    }
}
