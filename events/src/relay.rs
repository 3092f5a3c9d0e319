//! Outbox relay: publishes events from an outbox to the broker, by one replica at a time (lease),
//! in order per subject, and repeatedly until the broker acknowledges them.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use palisade_middleware::{backoff::Backoff, jitter, job::Heartbeat, planted};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    broker::{Broker, Destination},
    config::Config,
    event::{Event, Topic},
    metrics::{DEAD, PUBLISHED, REJECTED, UNAVAILABLE, published},
    nats::Outcome,
};

/// Backoff after the first failure. Doubles with each further failure.
const INITIAL_BACKOFF: Duration = Duration::from_millis(100);
/// Delay after the broker rejected an event.
const REJECTED_DELAY: Duration = Duration::from_millis(300);
/// Short: it delays events after an outage of the broker. Each attempt is one batch of one relay.
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// Error of the outbox.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// Transactional outbox of a service.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Acquires or extends the lease of the relay `relay` to `destination` for the duration
    /// `lease`. A relay to a broker takes over from one that stays in its process at once; the
    /// outbox belongs to the broker from then on.
    async fn lease(&self, relay: Uuid, destination: Destination, lease: Duration) -> Result<Lease, Error>;

    /// Returns up to `limit` unpublished events, oldest first.
    async fn fetch_unpublished(&self, limit: u32) -> Result<Vec<Event>, Error>;

    /// Marks the events as published to `destination`, unless the outbox belongs to another one.
    async fn mark_published(&self, events: &[Event], destination: Destination) -> Result<(), Error>;

    /// Counts a rejection for each event and stores its reason. Events that were rejected
    /// `max_attempts` times are dead-lettered; returns their number.
    async fn mark_failed(&self, events: &[(Event, String)], max_attempts: u32) -> Result<u64, Error>;

    /// Returns when a new event was written, at the latest after `timeout`.
    async fn wait_for_events(&self, timeout: Duration);
}

/// Result of [`Outbox::lease`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// The relay holds the lease.
    Held,
    /// Another relay holds it.
    HeldByAnother,
    /// The outbox belongs to a broker that this replica is not configured for.
    OtherDestination,
}

impl Lease {
    /// Result for a relay to `destination` that did not get the lease of an outbox that belongs to
    /// `owner`, the stored name of a destination.
    pub fn denied(destination: Destination, owner: Option<&str>) -> Self {
        let belongs_to_broker = owner == Some(Destination::Broker.as_str());
        if belongs_to_broker && destination != Destination::Broker { Self::OtherDestination } else { Self::HeldByAnother }
    }
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
    /// Whether the last lease was denied because of the destination, which is logged once.
    is_misconfigured: AtomicBool,
}

/// Result of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BatchResult {
    /// All fetched events are published, and more may be waiting.
    More,
    /// No more events to publish.
    Idle,
    /// Another replica holds the lease.
    NotLeaseHolder,
    /// The broker rejected at least one event.
    Rejected,
    /// The broker or the outbox was unavailable.
    Blocked,
}

/// Publish results of a batch.
#[derive(Default)]
struct PublishResults {
    published: Vec<Event>,
    rejected: Vec<(Event, String)>,
    unavailable: u64,
    /// Subjects with an unpublished event. Their later events are skipped to preserve the order.
    blocked: HashSet<String>,
}

impl Relay {
    /// Creates a relay from `outbox` to `broker`.
    pub fn new(outbox: Arc<dyn Outbox>, broker: Broker, topic: Topic, config: Config) -> Self {
        let is_misconfigured = AtomicBool::new(false);
        Self { id: Uuid::new_v4(), outbox, broker, topic, config, lease_expires_at: Mutex::default(), is_misconfigured }
    }

    /// Publishes until `shutdown`, then releases the lease so that another replica can continue at
    /// once. An unavailable broker is no failure of the job: the metrics of the outbox show it.
    pub async fn run(&self, heartbeat: &Heartbeat, shutdown: &CancellationToken) {
        let (poll, lease) = (Duration::from_millis(self.config.poll_ms), Duration::from_millis(self.config.lease_ms));
        let mut backoff = Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF);
        // Without events, too: the outbox belongs to the broker as soon as one replica has it.
        let mut must_claim = self.broker.destination() == Destination::Broker;
        while !shutdown.is_cancelled() {
            // A batch is never cancelled: events that were published must also be marked.
            let batch = async {
                if must_claim {
                    self.lease().await?;
                }
                self.run_batch().await
            };
            let result = match batch.await {
                Ok(result) => {
                    must_claim = false;
                    heartbeat.success();
                    result
                }
                Err(error) => {
                    heartbeat.failure(&*error);
                    BatchResult::Blocked
                }
            };
            if result != BatchResult::Blocked {
                backoff.reset();
            }
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
                    // Short, since an event that is rejected repeatedly must not block the others.
                    BatchResult::Rejected => sleep(jitter::jittered(REJECTED_DELAY, 0.5, jitter::random_unit)).await,
                    BatchResult::Blocked => sleep(jitter::jittered(backoff.next_wait(), 0.5, jitter::random_unit)).await,
                }
            };
            let _ = shutdown.run_until_cancelled(delay).await;
        }
        if let Err(error) = self.outbox.lease(self.id, self.broker.destination(), Duration::ZERO).await {
            tracing::debug!(error = &*error as &dyn std::error::Error, "could not release the outbox lease, it expires by itself");
        }
    }

    /// Publishes one batch of events and records the results in the outbox.
    async fn run_batch(&self) -> Result<BatchResult, Error> {
        let mut events = self.outbox.fetch_unpublished(self.config.batch).await?;
        if events.is_empty() {
            return Ok(BatchResult::Idle);
        }
        if !self.holds_lease() {
            if !self.lease().await? {
                return Ok(BatchResult::NotLeaseHolder);
            }
            // The previous lease holder may have published some of the fetched events.
            events = self.outbox.fetch_unpublished(self.config.batch).await?;
        }
        let full = events.len() >= self.config.batch as usize;
        let results = self.publish_batch(events).await;
        let (rejected, unavailable) = (!results.rejected.is_empty(), results.unavailable > 0);
        self.record_results(results).await?;
        Ok(match (unavailable, rejected, full) {
            (true, ..) => BatchResult::Blocked,
            (false, true, _) => BatchResult::Rejected,
            (false, false, true) => BatchResult::More,
            // For events written meanwhile, `wait_for_events` returns at once.
            (false, false, false) => BatchResult::Idle,
        })
    }

    /// Returns whether at least half of the lease duration remains.
    fn holds_lease(&self) -> bool {
        let until = *self.lease_expires_at.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() + Duration::from_millis(self.config.lease_ms) / 2 < until)
    }

    async fn lease(&self) -> Result<bool, Error> {
        let (requested_at, lease) = (Instant::now(), Duration::from_millis(self.config.lease_ms));
        let result = self.outbox.lease(self.id, self.broker.destination(), lease).await?;
        let (acquired, other) = (result == Lease::Held, result == Lease::OtherDestination);
        if other && !self.is_misconfigured.swap(other, Ordering::AcqRel) {
            tracing::warn!("another replica publishes the events of this store to a broker, which this one is not configured for");
        } else if !other {
            self.is_misconfigured.store(false, Ordering::Release);
        }
        *self.lease_expires_at.lock().unwrap_or_else(PoisonError::into_inner) = acquired.then_some(requested_at + lease);
        Ok(acquired)
    }

    /// Publishes one event per subject at a time.
    async fn publish_batch(&self, mut events: Vec<Event>) -> PublishResults {
        let mut results = PublishResults::default();
        while !events.is_empty() && results.unavailable == 0 {
            let (wave, later) = first_per_subject(events);
            events = later;
            let outcomes = if planted!("event marked but not published") {
                vec![Outcome::Published; wave.len()]
            } else {
                self.broker.publish(self.topic, &wave).await
            };
            for (event, outcome) in wave.into_iter().zip(outcomes) {
                match outcome {
                    Outcome::Published => results.published.push(event),
                    Outcome::Rejected(reason) => {
                        results.blocked.insert(event.subject.clone());
                        tracing::warn!(event_id = %event.id, kind = event.kind, reason, "event rejected by the broker");
                        results.rejected.push((event, reason));
                    }
                    Outcome::Unavailable(reason) => {
                        if results.unavailable == 0 {
                            tracing::debug!(reason, "broker unavailable, events stay in the outbox");
                        }
                        results.unavailable += 1;
                    }
                }
            }
            events.retain(|event| !results.blocked.contains(&event.subject));
        }
        results
    }

    async fn record_results(&self, results: PublishResults) -> Result<(), Error> {
        published(UNAVAILABLE).increment(results.unavailable);
        if !results.published.is_empty() {
            self.outbox.mark_published(&results.published, self.broker.destination()).await?;
            published(PUBLISHED).increment(results.published.len() as u64);
        }
        if !results.rejected.is_empty() {
            let dead = self.outbox.mark_failed(&results.rejected, self.config.max_publish_attempts).await?;
            published(REJECTED).increment(results.rejected.len() as u64);
            published(DEAD).increment(dead);
            if dead > 0 {
                tracing::error!(events = dead, "events dead-lettered after repeated rejections by the broker");
            }
        }
        Ok(())
    }
}

/// Splits off the first event of each subject. The order within both parts is unchanged.
fn first_per_subject(events: Vec<Event>) -> (Vec<Event>, Vec<Event>) {
    let mut seen = HashSet::with_capacity(events.len());
    events.into_iter().partition(|event| seen.insert(event.subject.clone()))
}

#[cfg(test)]
mod tests;
