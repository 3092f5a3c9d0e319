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
const MAX_BACK_OFF: u32 = 8;

/// Sweeps every `pause` until `stop`. After a failure it waits twice as long as before, up to eight pauses.
pub async fn run(store: Arc<dyn Store>, clock: Arc<dyn Clock>, pause: Duration, stop: CancellationToken) {
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut back_off = 1;
    loop {
        let tick = async {
            for _ in 0..back_off {
                ticks.tick().await;
            }
        };
        if stop.run_until_cancelled(tick).await.is_none() {
            return;
        }
        back_off = match sweep(&*store, &*clock, &stop).await {
            Ok(()) => 1,
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "cannot sweep reservations, trying again later");
                (back_off * 2).min(MAX_BACK_OFF)
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
    store.forget_keys(clock.now()).await?;
    Ok(())
}
