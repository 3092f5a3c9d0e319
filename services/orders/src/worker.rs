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
    saga_executor::SagaExecutor,
    metrics,
    store::{Claimed, Store},
};

/// How long one order is worked on at a time; less than the lease, so that nobody else has it meanwhile.
const LEASE_FRACTION: f64 = 0.8;
/// How often published events and old keys are forgotten.
const CLEANUP_INTERVAL: Duration = Duration::from_mins(1);
/// How often the gauges are read from the store: what is counted in memory does not survive a restart.
const STATS_INTERVAL: Duration = Duration::from_secs(5);

/// The worker of a replica. Any number of them may run over one store.
pub struct Worker {
    /// Where orders are kept.
    pub store: Arc<dyn Store>,
    /// What takes them on.
    pub executor: SagaExecutor,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// How fast, how many.
    pub config: config::Saga,
}

impl Worker {
    /// Works until `shutdown`, then finishes what it has in hand.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut running = JoinSet::new();
        let (mut next_cleanup, mut next_stats) = (Instant::now(), Instant::now());
        loop {
            let free_slots = (self.config.batch as usize).saturating_sub(running.len());
            let claimed = self.claim_and_run(u32::try_from(free_slots).unwrap_or(u32::MAX), &mut running).await;
            if next_cleanup <= Instant::now() {
                next_cleanup = Instant::now() + CLEANUP_INTERVAL;
                self.cleanup().await;
            }
            if next_stats <= Instant::now() {
                next_stats = Instant::now() + STATS_INTERVAL;
                self.update_gauges().await;
            }
            // As long as there is more, there is no pause.
            let delay = if claimed > 0 && claimed == free_slots { Duration::ZERO } else { Duration::from_millis(self.config.poll_interval_ms) };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(delay) => {}
                // Room for the next.
                _ = running.join_next(), if free_slots == 0 => {}
            }
            while running.try_join_next().is_some() {}
        }
        while running.join_next().await.is_some() {}
    }

    async fn claim_and_run(&self, free_slots: u32, running: &mut JoinSet<()>) -> usize {
        if free_slots == 0 {
            return 0;
        }
        let lease = Duration::from_millis(self.config.lease_ms);
        match self.store.claim_due(self.clock.now(), lease, free_slots).await {
            Ok(orders) => {
                let claimed = orders.len();
                for order in orders {
                    let (executor, time_limit) = (self.executor.clone(), lease.mul_f64(LEASE_FRACTION));
                    let work = run_claimed(executor, order, time_limit);
                    running.spawn(task::in_current_context(work));
                }
                claimed
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "due orders cannot be read");
                0
            }
        }
    }

    async fn cleanup(&self) {
        let now = self.clock.now();
        let retention = Duration::from_secs(self.config.event_retention_hours * 3_600);
        let cleaned = async {
            self.store.delete_expired_keys(now).await?;
            self.store.prune_published(now - retention).await
        };
        if let Err(error) = cleaned.await {
            tracing::warn!(error = &error as &dyn std::error::Error, "old keys and events could not be forgotten");
        }
    }

    async fn update_gauges(&self) {
        if let Ok(stats) = self.store.stats(self.clock.now()).await {
            metrics::record_stats(&stats);
        }
    }
}

async fn run_claimed(executor: SagaExecutor, claimed: Claimed, time_limit: Duration) {
    let user = Arc::new(Principal::on_behalf_of(claimed.saga.order.user_id.clone()));
    let context = Context::background().on_behalf_of(user).with_deadline(Instant::now() + time_limit);
    context::scope(context, executor.resume(claimed)).await;
}
