//! Takes up orders that nobody works on: after a crash, after a time-out, or because something has to be given back.

use std::{sync::Arc, time::Duration};

use palisade_middleware::{
    auth::Principal,
    clock::Clock,
    context::{self, Context},
    task,
};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    config,
    driver::Driver,
    metrics,
    store::{Claimed, Store},
};

/// How long one order is worked on at a time; less than the lease, so that nobody else has it meanwhile.
const PART_OF_LEASE: f64 = 0.8;
/// How often published events and old keys are forgotten.
const TIDY_EVERY: Duration = Duration::from_mins(1);
/// How often the gauges are read from the store: what is counted in memory does not survive a restart.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// The worker of a replica. Any number of them may run over one store.
pub struct Worker {
    /// Where orders are kept.
    pub store: Arc<dyn Store>,
    /// What takes them on.
    pub driver: Driver,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// How fast, how many.
    pub config: config::Saga,
}

impl Worker {
    /// Works until `shutdown`, then finishes what it has in hand.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut at_work = JoinSet::new();
        let (mut tidy_at, mut measure_at) = (Instant::now(), Instant::now());
        loop {
            let free = (self.config.batch as usize).saturating_sub(at_work.len());
            let taken = self.take_up(u32::try_from(free).unwrap_or(u32::MAX), &mut at_work).await;
            if tidy_at <= Instant::now() {
                tidy_at = Instant::now() + TIDY_EVERY;
                self.tidy().await;
            }
            if measure_at <= Instant::now() {
                measure_at = Instant::now() + MEASURE_EVERY;
                self.measure().await;
            }
            // As long as there is more, there is no pause.
            let pause = if taken > 0 && taken == free { Duration::ZERO } else { Duration::from_millis(self.config.poll_ms) };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
                // Room for the next.
                _ = at_work.join_next(), if free == 0 => {}
            }
            while at_work.try_join_next().is_some() {}
        }
        while at_work.join_next().await.is_some() {}
    }

    async fn take_up(&self, free: u32, at_work: &mut JoinSet<()>) -> usize {
        if free == 0 {
            return 0;
        }
        let lease = Duration::from_millis(self.config.lease_ms);
        match self.store.claim_due(self.clock.now(), lease, free).await {
            Ok(orders) => {
                let taken = orders.len();
                for order in orders {
                    let (driver, time) = (self.driver.clone(), lease.mul_f64(PART_OF_LEASE));
                    let work = work_on(driver, order, time);
                    at_work.spawn(task::keep(work));
                }
                taken
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "due orders cannot be read");
                0
            }
        }
    }

    async fn tidy(&self) {
        let now = self.clock.now();
        let retention = Duration::from_secs(self.config.event_retention_hours * 3_600);
        let tidied = async {
            self.store.sweep_keys(now).await?;
            self.store.prune_published(now - retention).await
        };
        if let Err(error) = tidied.await {
            tracing::warn!(error = &error as &dyn std::error::Error, "old keys and events could not be forgotten");
        }
    }

    async fn measure(&self) {
        if let Ok(stats) = self.store.stats(self.clock.now()).await {
            metrics::measured(&stats);
        }
    }
}

async fn work_on(driver: Driver, claimed: Claimed, time: Duration) {
    let user = Arc::new(Principal::absent_user(claimed.saga.order.user_id.clone()));
    let context = Context::background().on_behalf_of(user).until(Instant::now() + time);
    context::scope(context, driver.resume(claimed)).await;
}
