//! Outbox relay: publishes events from an outbox to the broker, by one replica at a time (lease),
//! in order per subject, and repeatedly until the broker acknowledges them.

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

/// Backoff after the first failure. Doubles with each further failure.
const INITIAL_BACKOFF: Duration = Duration::from_millis(100);
/// Delay after the broker rejected an event.
const REJECTED_DELAY: Duration = Duration::from_millis(300);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// Error of the outbox.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// Transactional outbox of a service.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Acquires or extends the lease of the relay `relay` for the duration `lease`. Returns `false`
    /// if another relay holds it.
    async fn lease(&self, relay: Uuid, lease: Duration) -> Result<bool, Error>;

    /// Returns up to `limit` unpublished events, oldest first.
    async fn fetch_unpublished(&self, limit: u32) -> Result<Vec<Event>, Error>;

    /// Marks the events as published.
    async fn mark_published(&self, events: &[Event]) -> Result<(), Error>;

    /// Counts a rejection for each event and stores its reason. Events that were rejected
    /// `max_attempts` times are dead-lettered; returns their number.
    async fn mark_failed(&self, events: &[(Event, String)], max_attempts: u32) -> Result<u64, Error>;

    /// Returns when a new event was written, at the latest after `timeout`.
    async fn wait_for_events(&self, timeout: Duration);
}

/// Relay from one outbox to the broker. Several replicas may run one for the same outbox.
pub struct Relay {
    id: Uuid,
    outbox: Arc<dyn Outbox>,
    broker: Broker,
    topic: Topic,
    config: Config,
    /// Expiry of this relay's lease.
    lease_expires_at: Mutex<Option<Instant>>,
}

/// Result of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BatchResult {
    /// All fetched events are published, and more may be waiting.
    More,
    /// Nothing is left to publish.
    Idle,
    /// Another replica holds the lease.
    NotLeaseHolder,
    /// The broker rejected at least one event.
    Rejected,
    /// The broker or the outbox was unavailable.
    Blocked,
}

impl Relay {
    /// Creates a relay from `outbox` to `broker`.
    pub fn new(outbox: Arc<dyn Outbox>, broker: Broker, topic: Topic, config: Config) -> Self {
        Self { id: Uuid::new_v4(), outbox, broker, topic, config, lease_expires_at: Mutex::default() }
    }

    /// Publishes until `shutdown`, then gives up the lease so that another replica can continue at
    /// once.
    pub async fn run(self, shutdown: CancellationToken) {
        let (poll, lease) = (Duration::from_millis(self.config.poll_ms), Duration::from_millis(self.config.lease_ms));
        let mut failures = 0_u32;
        while !shutdown.is_cancelled() {
            // A batch is never cancelled: events that were published must also be marked.
            let result = self.run_batch().await.unwrap_or_else(|error| {
                tracing::debug!(error = &*error as &dyn std::error::Error, "outbox unavailable, retrying");
                BatchResult::Blocked
            });
            failures = if result == BatchResult::Blocked { failures.saturating_add(1) } else { 0 };
            let delay = async {
                match result {
                    BatchResult::More => {}
                    BatchResult::Idle => {
                        self.outbox.wait_for_events(jitter::jittered(poll, 0.2, jitter::random_unit)).await;
                        // Linger: events that follow closely are published in the same batch and
                        // marked in one transaction.
                        sleep(self.broker.linger()).await;
                    }
                    BatchResult::NotLeaseHolder => sleep(jitter::jittered(lease / 4, 0.5, jitter::random_unit)).await,
                    // A short delay: an event that is rejected repeatedly must not block the
                    // others.
                    BatchResult::Rejected => sleep(jitter::jittered(REJECTED_DELAY, 0.5, jitter::random_unit)).await,
                    BatchResult::Blocked => sleep(backoff(failures, jitter::random_unit)).await,
                }
            };
            let _ = shutdown.run_until_cancelled(delay).await;
        }
        if let Err(error) = self.outbox.lease(self.id, Duration::ZERO).await {
            tracing::debug!(error = &*error as &dyn std::error::Error, "could not release the outbox lease, it expires by itself");
        }
    }
}

/// Exponential backoff after `failures` failures in a row, ±50 %.
fn backoff(failures: u32, draw: jitter::RandomFn) -> Duration {
    let delay = INITIAL_BACKOFF.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16)));
    jitter::jittered(delay.min(MAX_BACKOFF), 0.5, draw)
}

#[cfg(test)]
mod tests;
