//! One batch of the relay: publishes the unpublished events, one per subject at a time, and records
//! the results.

use std::{collections::HashSet, sync::PoisonError, time::Duration};

use tokio::time::Instant;

use super::{BatchResult, Error, Relay};
use crate::{
    broker::Outcome,
    event::Event,
    metrics::{DEAD, PUBLISHED, REFUSED, UNAVAILABLE, published},
};

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
    pub(super) async fn run_batch(&self) -> Result<BatchResult, Error> {
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
            // Events that were written meanwhile have left a notification.
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
        let acquired = self.outbox.lease(self.id, lease).await?;
        *self.lease_expires_at.lock().unwrap_or_else(PoisonError::into_inner) = acquired.then_some(requested_at + lease);
        Ok(acquired)
    }

    async fn publish_batch(&self, mut events: Vec<Event>) -> PublishResults {
        let mut results = PublishResults::default();
        while !events.is_empty() && results.unavailable == 0 {
            let (wave, later) = first_per_subject(events);
            events = later;
            let outcomes = self.broker.publish(self.topic, &wave).await;
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
            self.outbox.mark_published(&results.published).await?;
            published(PUBLISHED).increment(results.published.len() as u64);
        }
        if !results.rejected.is_empty() {
            let dead = self.outbox.mark_failed(&results.rejected, self.config.max_publish_attempts).await?;
            published(REFUSED).increment(results.rejected.len() as u64);
            published(DEAD).increment(dead);
            if dead > 0 {
                tracing::error!(events = dead, "events dead-lettered after repeated rejections by the broker");
            }
        }
        Ok(())
    }
}

/// Splits off the first event of each subject. Both parts keep their order.
fn first_per_subject(events: Vec<Event>) -> (Vec<Event>, Vec<Event>) {
    let mut seen = HashSet::with_capacity(events.len());
    events.into_iter().partition(|event| seen.insert(event.subject.clone()))
}
