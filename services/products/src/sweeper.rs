//! Sweeper: releases expired holds and finishes abandoned reservations in the background, and
//! deletes expired idempotency keys. Errors never end the loops.

use std::{sync::Arc, time::Duration};

use palisade_middleware::{backoff::Backoff, clock::Clock, job, jobs::Run};
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

/// Maximum number of idempotency keys per deletion.
const CLEANUP_BATCH: u32 = 500;

/// Interval at which the gauges are read from the store.
const STATS_INTERVAL: Duration = Duration::from_secs(5);

/// Interval of the deletion of expired idempotency keys.
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

/// Deletes expired idempotency keys periodically until the stop.
pub async fn run_cleanup(store: Arc<dyn Store>, clock: Arc<dyn Clock>, Run { heartbeat, stop }: Run) -> job::Result {
    let cleaning = async {
        loop {
            let started = Instant::now();
            let deleted = heartbeat.record(store.delete_expired_keys(clock.now(), CLEANUP_BATCH).await);
            // A backlog takes at most half of a connection.
            let wait = if deleted == Some(CLEANUP_BATCH.into()) { started.elapsed() } else { CLEANUP_INTERVAL };
            sleep(wait).await;
        }
    };
    stop.run_until_cancelled(cleaning).await;
    Ok(())
}

/// Updates the gauges of the store periodically until the stop.
pub async fn run_stats(store: Arc<dyn Store>, clock: Arc<dyn Clock>, Run { heartbeat, stop }: Run) -> job::Result {
    let updating = async {
        loop {
            if let Some(stats) = heartbeat.record(store.stats(clock.now()).await) {
                metrics::record_stats(&stats);
            }
            sleep(STATS_INTERVAL).await;
        }
    };
    stop.run_until_cancelled(updating).await;
    Ok(())
}
