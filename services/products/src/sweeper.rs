//! Sweeper: releases expired holds and finishes abandoned reservations in the background, and
//! deletes expired idempotency keys and settled reservations. Errors never end the loops.

use std::{sync::Arc, time::Duration};

use palisade_middleware::{
    backoff::Backoff,
    clock::{self, Clock},
    job,
    jobs::Run,
};
use palisade_store::{MISSED_READS, STATS_INTERVAL};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    metrics,
    store::{Error, Store},
};

/// Maximum number of reservations per store call; keeps each call short.
const BATCH: u32 = 100;

/// Maximum backoff after repeated failures, in multiples of the interval.
const MAX_BACKOFF: u32 = 8;

/// Maximum number of rows per deletion.
const CLEANUP_BATCH: u32 = 500;

/// Interval of the deletion of rows past their retention.
const CLEANUP_INTERVAL: Duration = Duration::from_mins(1);

/// Sweeps every `period` until the stop. The backoff doubles after each failure, up to eight
/// intervals.
pub async fn run(store: Arc<dyn Store>, clock: Arc<dyn Clock>, period: Duration, Run { heartbeat, stop }: Run) -> job::Result {
    let mut backoff = Backoff::new(period.saturating_mul(2), period.saturating_mul(MAX_BACKOFF));
    while !stop.is_cancelled() {
        let wait = match sweep(&*store, &*clock, &stop).await {
            Ok(()) => {
                heartbeat.success();
                backoff.reset();
                period
            }
            Err(error) => {
                heartbeat.failure(&error);
                backoff.next_wait()
            }
        };
        let _ = stop.run_until_cancelled(sleep(wait)).await;
    }
    Ok(())
}

/// Releases due reservations until none is left.
async fn sweep(store: &dyn Store, clock: &dyn Clock, stop: &CancellationToken) -> Result<(), Error> {
    while !stop.is_cancelled() {
        let finished = store.expire_due(clock.now(), BATCH).await?;
        if finished > 0 {
            info!(finished, "released expired holds and finished abandoned reservations");
        }
        if finished < BATCH {
            break;
        }
    }
    Ok(())
}

/// Deletes expired idempotency keys, and settled reservations after their `retention`, periodically
/// until the stop. `None` keeps reservations for ever.
pub async fn run_cleanup(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    retention: Option<Duration>,
    Run { heartbeat, stop }: Run,
) -> job::Result {
    let cleaning = async {
        loop {
            let started = Instant::now();
            // Apart: a failure of one does not stop the other.
            let keys = store.delete_expired_keys(clock.now(), CLEANUP_BATCH).await;
            let reservations = match retention {
                Some(retention) => store.delete_settled(clock::before(clock.now(), retention), CLEANUP_BATCH).await,
                None => Ok(0),
            };
            for (collection, deleted) in [("idempotency_keys", &keys), ("reservations", &reservations)] {
                metrics::DELETED.record(collection, *deleted.as_ref().unwrap_or(&0));
            }
            let deleted = heartbeat.record(keys.and_then(|keys| Ok(keys.max(reservations?))));
            // A backlog takes at most half of a connection.
            let wait = if deleted == Some(CLEANUP_BATCH.into()) { started.elapsed() } else { CLEANUP_INTERVAL };
            sleep(wait).await;
        }
    };
    stop.run_until_cancelled(cleaning).await;
    Ok(())
}

/// Updates the gauges of the store periodically until the stop. They become NaN when the store
/// cannot be read.
pub async fn run_stats(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    retention: Option<Duration>,
    Run { heartbeat, stop }: Run,
) -> job::Result {
    let updating = async {
        loop {
            let settled_before = retention.map_or(OffsetDateTime::UNIX_EPOCH, |retention| clock::before(clock.now(), retention));
            if let Some(stats) = heartbeat.record(store.stats(clock.now(), settled_before).await) {
                metrics::record_stats(&stats);
            } else if heartbeat.failures() >= MISSED_READS {
                metrics::forget_stats();
            }
            sleep(STATS_INTERVAL).await;
        }
    };
    stop.run_until_cancelled(updating).await;
    Ok(())
}
