//! Retention of rows: lifetimes, and the job that archives and deletes settled orders.

use std::{path::Path, sync::Arc, time::Duration};

use palisade_middleware::{
    clock::{self, Clock},
    job,
    jobs::Run,
};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use crate::{
    archive::{self, Archive},
    config::Config,
    metrics,
    order::{OrderId, Status},
    store::{self, PastRetention, SettledPosition, Store},
};

/// Interval of the deletion of rows past their retention.
pub(crate) const CLEANUP_INTERVAL: Duration = Duration::from_mins(1);
/// Maximum number of rows per deletion, far below what the database deletes within the timeout of a
/// call.
pub(crate) const BATCH: u32 = 500;
/// Maximum number of orders per deletion: each has up to a hundred lines.
const ORDERS_PER_BATCH: u32 = 100;

/// Lifetimes of rows, from their last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// Published events.
    pub events: Duration,
    /// FAILED orders. `None` keeps them for ever.
    pub failed: Option<Duration>,
    /// COMPLETED and CANCELLED orders. `None` keeps them for ever.
    pub ended: Option<Duration>,
}

/// Job that archives and deletes settled orders.
#[derive(Clone)]
pub struct Retention {
    /// Order store.
    pub store: Arc<dyn Store>,
    /// Source of the current time.
    pub clock: Arc<dyn Clock>,
    /// Lifetimes of the orders.
    pub lifetimes: Lifetimes,
    /// Archive. Without one, orders are only deleted.
    pub archive: Option<Archive>,
}

/// Failure of the job. Nothing was deleted that is not in the archive.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The archive failed.
    #[error(transparent)]
    Archive(#[from] archive::Error),
}

impl Lifetimes {
    /// Returns the lifetimes that `config` sets.
    pub fn new(config: &Config) -> Self {
        let days = |days: u32| (days > 0).then(|| Duration::from_hours(24).saturating_mul(days));
        Self {
            events: Duration::from_secs(config.saga.event_retention_hours.saturating_mul(3_600)),
            failed: days(config.retention.failed_days),
            ended: days(config.retention.ended_days),
        }
    }

    /// Returns the lifetime of orders with this status, or `None` if they are kept.
    fn of_orders(&self, status: Status) -> Option<Duration> {
        match status {
            Status::Failed => self.failed,
            Status::Completed | Status::Cancelled => self.ended,
            Status::Pending | Status::ProductReserved | Status::Confirmed => None,
        }
    }

    /// Returns the times before which rows are past their retention at `now`.
    pub fn past(&self, now: OffsetDateTime) -> PastRetention {
        let before = |lifetime: Option<Duration>| lifetime.map_or(OffsetDateTime::UNIX_EPOCH, |lifetime| clock::before(now, lifetime));
        PastRetention { events: clock::before(now, self.events), failed: before(self.failed), ended: before(self.ended) }
    }
}

impl Retention {
    /// Creates the job. Without a directory, nothing is archived.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, lifetimes: Lifetimes, archive: Option<&Path>) -> Self {
        Self { store, clock, lifetimes, archive: archive.map(Archive::new) }
    }

    /// Archives and deletes settled orders past their retention periodically until the stop.
    pub async fn run(self, Run { heartbeat, stop }: Run) -> job::Result {
        let cleaning = async {
            loop {
                heartbeat.record(self.clean(|| heartbeat.success()).await);
                sleep(CLEANUP_INTERVAL).await;
            }
        };
        stop.run_until_cancelled(cleaning).await;
        Ok(())
    }

    /// Archives and deletes all settled orders past their retention. Calls `progress` between two
    /// batches, and pauses as long as each batch took, so that a backlog takes at most half of a
    /// connection. Orders of one status that cannot be deleted do not block those of another.
    pub async fn clean(&self, progress: impl Fn()) -> Result<(), Error> {
        let mut result = Ok(());
        for status in Status::ALL {
            let Some(lifetime) = self.lifetimes.of_orders(status) else { continue };
            let cleaned = self.clean_status(status, clock::before(self.clock.now(), lifetime), &progress).await;
            result = result.and(cleaned);
        }
        result
    }

    async fn clean_status(&self, status: Status, before: OffsetDateTime, progress: &impl Fn()) -> Result<(), Error> {
        let mut after = None;
        loop {
            let started = Instant::now();
            after = self.delete_batch(status, before, after).await?;
            if after.is_none() {
                return Ok(());
            }
            progress();
            sleep(started.elapsed()).await;
        }
    }

    /// Archives and deletes one batch. Returns the position of the next one.
    async fn delete_batch(
        &self,
        status: Status,
        before: OffsetDateTime,
        after: Option<SettledPosition>,
    ) -> Result<Option<SettledPosition>, Error> {
        // Held until the orders are deleted: an erasure in between would miss a line that was
        // read before it and is written after it.
        let archive = match &self.archive {
            Some(archive) => match archive.try_lock().await? {
                Some(locked) => Some(locked),
                // Another process writes: the next run continues.
                None => return Ok(None),
            },
            None => None,
        };
        let page = self.store.settled_orders(status, before, after, ORDERS_PER_BATCH).await?;
        if page.orders.is_empty() {
            return Ok(page.next);
        }
        if let Some(archive) = &archive {
            archive.append(&page.orders, self.clock.now()).await?;
        }
        let ids: Vec<OrderId> = page.orders.iter().map(|settled| settled.order.id).collect();
        metrics::record_deleted("orders", self.store.delete_settled(ids).await?);
        Ok(page.next)
    }
}
