//! Worker of the fulfilment queue: calls products for completed orders and schedules retries.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use palisade_middleware::{
    auth::Principal,
    clock::{self, Clock},
    context::{self, Context},
    job,
    jobs::Run,
    planted, trace,
};
use tokio::{sync::Notify, time::Instant};
use tracing::field::Empty;

use crate::{
    claim_pace::ClaimPace,
    config,
    fulfilment::FulfilOutcome,
    metrics,
    products::Products,
    store::{DueFulfilment, Error, FulfilmentQueue},
};

/// Maximum number of calls at the same time.
const CONCURRENCY: usize = 4;

/// Fulfilment worker of a replica. Several replicas may run one over the same store.
#[derive(Clone)]
pub struct Fulfiller {
    /// Fulfilment queue.
    pub store: Arc<dyn FulfilmentQueue>,
    /// Client of products.
    pub products: Products,
    /// Source of the current time.
    pub clock: Arc<dyn Clock>,
    /// Poll interval, batch size and lease duration.
    pub config: config::Saga,
    /// Notification of a completed order.
    pub completed: Arc<Notify>,
}

impl Fulfiller {
    /// Fulfils due orders until the stop, then finishes the claimed ones.
    pub async fn run(self, Run { heartbeat, stop }: Run) -> job::Result {
        while !stop.is_cancelled() {
            let pace = ClaimPace::new(self.products.breaker_state(), self.config.batch as usize);
            let claimed = heartbeat.record(self.fulfil_due(pace.limit).await);
            if claimed.is_some_and(|claimed| pace.is_more_due(claimed)) {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(Duration::from_millis(self.config.poll_interval_ms)) => {}
                () = self.completed.notified() => {}
            }
        }
        Ok(())
    }

    /// Fulfils one batch of due orders and returns their number.
    async fn fulfil_due(&self, limit: usize) -> Result<usize, Error> {
        let lease = Duration::from_millis(self.config.lease_ms);
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let due = self.store.claim_fulfilments(self.clock.now(), lease, limit).await?;
        let claimed = due.len();
        let deadline = Instant::now() + lease;
        stream::iter(due).for_each_concurrent(CONCURRENCY, |due| self.fulfil(due, deadline)).await;
        Ok(claimed)
    }

    async fn fulfil(&self, due: DueFulfilment, deadline: Instant) {
        let id = due.order_id;
        let attempts = i64::from(due.attempts);
        let scope = trace::start_repeated(None, move || {
            tracing::info_span!(
                "step",
                otel.name = "step fulfil_reservation",
                otel.status_code = Empty,
                app.saga.step = "fulfil_reservation",
                app.saga.attempt = attempts,
                app.order.id = %id,
                error.type = Empty,
            )
        });
        let user = Arc::new(Principal::on_behalf_of(due.user_id.clone()));
        let context = Context::background().on_behalf_of(user).with_deadline(deadline);
        let call = async {
            let started = Instant::now();
            let outcome = if planted!("fulfilment not sent") { FulfilOutcome::Done } else { self.products.fulfil(id).await };
            metrics::record_step(&outcome, started.elapsed());
            if matches!(outcome, FulfilOutcome::Unknown { .. }) {
                trace::record("otel.status_code", "ERROR");
                trace::record("error.type", "unanswered");
            }
            self.record(&due, outcome).await;
        };
        scope.instrument(context::scope(context, call)).await;
    }

    async fn record(&self, due: &DueFulfilment, outcome: FulfilOutcome) {
        let id = due.order_id;
        if outcome == FulfilOutcome::Missing {
            tracing::error!(order_id = %id, "order is completed, but products has no confirmed reservation of it");
        }
        // Without randomness all retries coincide, which is worse but not incorrect.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        let recorded = match outcome.retry_delay(due.attempts, random) {
            None => self.store.fulfilment_done(id).await,
            Some(delay) => {
                let error = "fulfilment failed: no definite response from products".to_owned();
                self.store.postpone_fulfilment(id, clock::after(self.clock.now(), delay), error).await
            }
        };
        if let Err(error) = recorded {
            tracing::warn!(order_id = %id, error = &error as &dyn std::error::Error, "cannot record the fulfilment, it is repeated after the lease");
        }
    }
}
