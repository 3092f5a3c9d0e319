//! Saga worker: claims due orders, i.e. orders after a crash, after a timeout, or with a pending
//! release.

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
    config, metrics,
    saga_executor::SagaExecutor,
    store::{Claimed, Store},
};

/// Part of the lease for which an order may be worked on. Below 1, so that the work stops before
/// another worker can claim the order.
const LEASE_FRACTION: f64 = 0.8;
/// Interval of the deletion of published events and expired idempotency keys.
const CLEANUP_INTERVAL: Duration = Duration::from_mins(1);
/// Interval at which the gauges are read from the store. Counters in memory would not survive a
/// restart.
const STATS_INTERVAL: Duration = Duration::from_secs(5);

/// Saga worker of a replica. Several replicas may run one over the same store.
pub struct Worker {
    /// Order store.
    pub store: Arc<dyn Store>,
    /// Executor of the sagas.
    pub executor: SagaExecutor,
    /// Source of the current time.
    pub clock: Arc<dyn Clock>,
    /// Poll interval, batch size and lease duration.
    pub config: config::Saga,
}

impl Worker {
    /// Claims and runs orders until `shutdown`, then finishes the claimed ones.
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
            // Polls again at once while there are more due orders.
            let delay =
                if claimed > 0 && claimed == free_slots { Duration::ZERO } else { Duration::from_millis(self.config.poll_interval_ms) };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(delay) => {}
                // A slot became free.
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
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot claim due orders");
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
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot delete expired idempotency keys and published events");
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
