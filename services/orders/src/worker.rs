//! Saga worker: claims due orders, i.e. orders after a crash, after a timeout, or with a pending
//! release.

use std::{sync::Arc, time::Duration};

use palisade_middleware::{
    auth::Principal,
    clock::Clock,
    context::{self, Context},
    job,
    jobs::Run,
    planted, task,
};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    claim_pace::ClaimPace,
    config,
    products::Products,
    saga_executor::SagaExecutor,
    store::{Claimed, Store},
};

/// Maximum time for which an order is worked on. Its lease is extended meanwhile.
const WORK_LIMIT: Duration = Duration::from_secs(12);

/// Saga worker of a replica. Several replicas may run one over the same store.
#[derive(Clone)]
pub struct Worker {
    /// Order store.
    pub store: Arc<dyn Store>,
    /// Executor of the sagas.
    pub executor: SagaExecutor,
    /// Client of products, whose circuit breaker sets the pace.
    pub products: Products,
    /// Source of the current time.
    pub clock: Arc<dyn Clock>,
    /// Poll interval, batch size and lease duration.
    pub config: config::Saga,
}

impl Worker {
    /// Claims and runs orders until the stop, then finishes the claimed ones.
    pub async fn run(self, Run { heartbeat, stop }: Run) -> job::Result {
        let mut running = JoinSet::new();
        let poll_interval = Duration::from_millis(self.config.poll_interval_ms);
        while !stop.is_cancelled() {
            let free_slots = (self.config.batch as usize).saturating_sub(running.len());
            let pace = ClaimPace::new(self.products.breaker_state(), free_slots);
            let claimed = match self.claim_and_run(u32::try_from(pace.limit).unwrap_or(u32::MAX), &mut running).await {
                Ok(claimed) => {
                    heartbeat.success();
                    claimed
                }
                Err(error) => {
                    heartbeat.failure(&error);
                    0
                }
            };
            let delay = if pace.is_more_due(claimed) { Duration::ZERO } else { poll_interval };
            let wait = async {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(delay) => {}
                    // A slot became free.
                    _ = running.join_next(), if free_slots == 0 => {}
                }
            };
            wait.await;
            while running.try_join_next().is_some() {}
        }
        while running.join_next().await.is_some() {}
        Ok(())
    }

    async fn claim_and_run(&self, limit: u32, running: &mut JoinSet<()>) -> Result<usize, crate::store::Error> {
        if limit == 0 {
            return Ok(0);
        }
        let lease = Duration::from_millis(self.config.lease_ms);
        let orders = self.store.claim_due(self.clock.now(), lease, limit).await?;
        let claimed = orders.len();
        for order in orders {
            if planted!("worker forgets its orders") {
                continue;
            }
            running.spawn(task::in_current_context(run_claimed(self.executor.clone(), order)));
        }
        Ok(claimed)
    }
}

/// A panic concerns this order only: its lease expires, and it is claimed again with a backoff.
async fn run_claimed(executor: SagaExecutor, claimed: Claimed) {
    let id = claimed.saga.order.id;
    let user = Arc::new(Principal::on_behalf_of(claimed.saga.order.user_id.clone()));
    let context = Context::background().on_behalf_of(user).with_deadline(Instant::now() + WORK_LIMIT);
    if let Err(panicked) = job::catch(context::scope(context, executor.resume(claimed))).await {
        tracing::error!(order_id = %id, error = &panicked as &dyn std::error::Error, "saga panicked, it is retried when its lease expires");
    }
}
