//! Sweeper: releases expired holds and finishes abandoned reservations in the background. Errors
//! never end the loop.

use std::{sync::Arc, time::Duration};

use palisade_middleware::clock::Clock;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::store::{Error, Store};

/// Maximum number of reservations per store call; keeps each call short.
const BATCH: u32 = 100;

/// Maximum backoff after repeated failures, in multiples of the interval.
const MAX_BACKOFF: u32 = 8;

/// Sweeps every `period` until `stop`. The backoff doubles after each failure, up to eight
/// intervals.
pub async fn run(store: Arc<dyn Store>, clock: Arc<dyn Clock>, period: Duration, stop: CancellationToken) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut backoff = 1;
    loop {
        let tick = async {
            for _ in 0..backoff {
                ticks.tick().await;
            }
        };
        if stop.run_until_cancelled(tick).await.is_none() {
            return;
        }
        backoff = match sweep(&*store, &*clock, &stop).await {
            Ok(()) => 1,
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "reservation sweep failed, retrying later");
                (backoff * 2).min(MAX_BACKOFF)
            }
        };
    }
}

/// Releases due reservations until none is left, and deletes expired idempotency keys.
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
    store.delete_expired_keys(clock.now()).await?;
    Ok(())
}
