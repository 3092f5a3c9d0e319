//! Takes events out of an outbox to the broker: by one replica at a time, in order for each subject, and again until it is known that
//! they are there.

mod batch;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use palisade_middleware::jitter;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    broker::{Broker, Topic},
    config::Config,
    event::Event,
};

/// The pause after the first failure; doubles with each.
const INITIAL_BACKOFF: Duration = Duration::from_millis(100);
/// The pause after a refusal.
const REJECTED_DELAY: Duration = Duration::from_millis(300);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// Why an outbox cannot be worked on.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// Where events wait.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Makes this replica the one that publishes, for `lease` from now. `false`: another one does.
    async fn lease(&self, relay: Uuid, lease: Duration) -> Result<bool, Error>;

    /// Up to `limit` events that wait, oldest first.
    async fn fetch_unpublished(&self, limit: u32) -> Result<Vec<Event>, Error>;

    /// Notes that these have arrived.
    async fn mark_published(&self, events: &[Event]) -> Result<(), Error>;

    /// Notes that these were refused, and why; those that were `most` times are put aside. Answers how many.
    async fn mark_failed(&self, events: &[(Event, String)], max_attempts: u32) -> Result<u64, Error>;

    /// Returns when there is something new, at the latest after `patience`.
    async fn wait_for_events(&self, timeout: Duration);
}

/// Carries the events of one outbox. Any number of them may run over one outbox.
pub struct Relay {
    id: Uuid,
    outbox: Arc<dyn Outbox>,
    broker: Broker,
    topic: Topic,
    config: Config,
    /// Until when nobody else publishes.
    lease_expires_at: Mutex<Option<Instant>>,
}

/// What a round came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BatchResult {
    /// All that waited has gone, and there is more.
    More,
    /// Nothing waits.
    Idle,
    /// Another replica publishes.
    NotLeaseHolder,
    /// The broker refused some of it.
    Rejected,
    /// Some of it could not go.
    Blocked,
}

impl Relay {
    /// A relay from `outbox` to `broker`.
    pub fn new(outbox: Arc<dyn Outbox>, broker: Broker, topic: Topic, config: Config) -> Self {
        Self { id: Uuid::new_v4(), outbox, broker, topic, config, lease_expires_at: Mutex::default() }
    }

    /// Works until `shutdown`, then lets another replica go on.
    pub async fn run(self, shutdown: CancellationToken) {
        let (poll, lease) = (Duration::from_millis(self.config.poll_ms), Duration::from_millis(self.config.lease_ms));
        let mut failures = 0_u32;
        while !shutdown.is_cancelled() {
            // A round is never cut: what it has handed over it also notes.
            let result = self.run_batch().await.unwrap_or_else(|error| {
                tracing::debug!(error = &*error as &dyn std::error::Error, "the outbox cannot be worked on");
                BatchResult::Blocked
            });
            failures = if result == BatchResult::Blocked { failures.saturating_add(1) } else { 0 };
            let delay = async {
                match result {
                    BatchResult::More => {}
                    BatchResult::Idle => {
                        self.outbox.wait_for_events(jitter::jittered(poll, 0.2, jitter::random_unit)).await;
                        // What comes in its wake goes with it: one transaction for all.
                        sleep(self.broker.linger()).await;
                    }
                    BatchResult::NotLeaseHolder => sleep(jitter::jittered(lease / 4, 0.5, jitter::random_unit)).await,
                    // Briefly: what is refused again and again must not hold up the rest.
                    BatchResult::Rejected => sleep(jitter::jittered(REJECTED_DELAY, 0.5, jitter::random_unit)).await,
                    BatchResult::Blocked => sleep(backoff(failures, jitter::random_unit)).await,
                }
            };
            let _ = shutdown.run_until_cancelled(delay).await;
        }
        if let Err(error) = self.outbox.lease(self.id, Duration::ZERO).await {
            tracing::debug!(error = &*error as &dyn std::error::Error, "another replica has to wait until the lease is over");
        }
    }
}

/// The pause after this many failures in a row, half as long more or less.
fn backoff(failures: u32, draw: jitter::RandomFn) -> Duration {
    let delay = INITIAL_BACKOFF.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16)));
    jitter::jittered(delay.min(MAX_BACKOFF), 0.5, draw)
}

#[cfg(test)]
mod tests;
