//! Gives back what ran out: a loop beside the requests that no error ends.

use std::{sync::Arc, time::Duration};

use palisade_middleware::clock::Clock;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::store::{Error, Store};

/// Most reservations given back by one call, so that each call stays short.
const BATCH: u32 = 100;

/// Longest pause after repeated failures, in multiples of the usual one.
const MAX_BACKOFF: u32 = 8;

/// Sweeps every `pause` until `stop`. After a failure it waits twice as long as before, up to eight pauses.
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
                warn!(error = &error as &dyn std::error::Error, "cannot sweep reservations, trying again later");
                (backoff * 2).min(MAX_BACKOFF)
            }
        };
    }
}

/// Gives back until nothing is due, and forgets old keys.
async fn sweep(store: &dyn Store, clock: &dyn Clock, stop: &CancellationToken) -> Result<(), Error> {
    while !stop.is_cancelled() {
        let finished = store.expire_due(clock.now(), BATCH).await?;
        if finished > 0 {
            info!(finished, "gave back reservations that ran out or were left half done");
        }
        if finished < BATCH {
            break;
        }
    }
    store.delete_expired_keys(clock.now()).await?;
    Ok(())
}
