//! One round: what waits is handed over, each subject's events one after another, and what became of it is noted.

use std::{collections::HashSet, sync::PoisonError, time::Duration};

use tokio::time::Instant;

use super::{Error, Relay, Round};
use crate::{
    broker::Outcome,
    event::Event,
    metrics::{DEAD, PUBLISHED, REFUSED, UNAVAILABLE, handed_over},
};

/// What became of the events of a round.
#[derive(Default)]
struct Fates {
    published: Vec<Event>,
    refused: Vec<(Event, String)>,
    unavailable: u64,
    /// Subjects of which an event could not go: the later ones wait for it.
    held: HashSet<String>,
}

impl Relay {
    pub(super) async fn round(&self) -> Result<Round, Error> {
        let mut waiting = self.outbox.waiting(self.config.batch).await?;
        if waiting.is_empty() {
            return Ok(Round::Idle);
        }
        if !self.is_ours() {
            if !self.lease().await? {
                return Ok(Round::NotOurs);
            }
            // Whoever had it before may have published what was waiting.
            waiting = self.outbox.waiting(self.config.batch).await?;
        }
        let full = waiting.len() >= self.config.batch as usize;
        let fates = self.hand_over(waiting).await;
        let (refused, unavailable) = (!fates.refused.is_empty(), fates.unavailable > 0);
        self.note(fates).await?;
        Ok(match (unavailable, refused, full) {
            (true, ..) => Round::Held,
            (false, true, _) => Round::Refused,
            (false, false, true) => Round::More,
            // What was written meanwhile has left word.
            (false, false, false) => Round::Idle,
        })
    }

    /// Whether the lease goes on for long enough.
    fn is_ours(&self) -> bool {
        let until = *self.ours_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() + Duration::from_millis(self.config.lease_ms) / 2 < until)
    }

    async fn lease(&self) -> Result<bool, Error> {
        let (asked, lease) = (Instant::now(), Duration::from_millis(self.config.lease_ms));
        let ours = self.outbox.lease(self.id, lease).await?;
        *self.ours_until.lock().unwrap_or_else(PoisonError::into_inner) = ours.then_some(asked + lease);
        Ok(ours)
    }

    async fn hand_over(&self, mut waiting: Vec<Event>) -> Fates {
        let mut fates = Fates::default();
        while !waiting.is_empty() && fates.unavailable == 0 {
            let (wave, later) = first_of_each(waiting);
            waiting = later;
            let outcomes = self.broker.publish(self.topic, &wave).await;
            for (event, outcome) in wave.into_iter().zip(outcomes) {
                match outcome {
                    Outcome::Published => fates.published.push(event),
                    Outcome::Refused(reason) => {
                        fates.held.insert(event.subject.clone());
                        tracing::warn!(event_id = %event.id, kind = event.kind, reason, "the broker refuses an event");
                        fates.refused.push((event, reason));
                    }
                    Outcome::Unavailable(reason) => {
                        if fates.unavailable == 0 {
                            tracing::debug!(reason, "the broker takes no events, they wait");
                        }
                        fates.unavailable += 1;
                    }
                }
            }
            waiting.retain(|event| !fates.held.contains(&event.subject));
        }
        fates
    }

    async fn note(&self, fates: Fates) -> Result<(), Error> {
        handed_over(UNAVAILABLE).increment(fates.unavailable);
        if !fates.published.is_empty() {
            self.outbox.published(&fates.published).await?;
            handed_over(PUBLISHED).increment(fates.published.len() as u64);
        }
        if !fates.refused.is_empty() {
            let dead = self.outbox.refused(&fates.refused, self.config.max_refusals).await?;
            handed_over(REFUSED).increment(fates.refused.len() as u64);
            handed_over(DEAD).increment(dead);
            if dead > 0 {
                tracing::error!(events = dead, "events are put aside because the broker refuses them");
            }
        }
        Ok(())
    }
}

/// The first event of each subject, and the rest, in order.
fn first_of_each(waiting: Vec<Event>) -> (Vec<Event>, Vec<Event>) {
    let mut seen = HashSet::with_capacity(waiting.len());
    waiting.into_iter().partition(|event| seen.insert(event.subject.clone()))
}
