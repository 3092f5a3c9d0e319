//! Transactional outbox: one event per status change, written in the same transaction and published
//! by the relay of one replica.

use palisade_events::{Destination, Lease};
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::{
    database::{Error, UNREADABLE},
    instrumented::instrumented_role,
};
use crate::order::{FailureReason, Order, OrderId};

/// Makes up to `$2` dead-lettered events after the position `$1` publishable again.
pub(super) const REDRIVE: &str = "
    UPDATE outbox SET dead_at = NULL, refusals = 0
    WHERE position IN (SELECT position FROM outbox WHERE dead_at IS NOT NULL AND position > $1 ORDER BY position LIMIT $2)
        AND dead_at IS NOT NULL
    RETURNING position";
/// Maximum number of events per call of [`OutboxStore::redrive`].
const REDRIVE_BATCH: u32 = 1_000;

instrumented_role! {
    /// Outbox of the events of all orders.
    pub trait OutboxStore {
        /// Acquires or extends the outbox lease of `relay` to `destination` until `until`. A relay
        /// to a broker takes over from one that stays in its process at once.
        async fn lease_outbox(
            &self,
            relay: Uuid,
            destination: Destination,
            now: OffsetDateTime,
            until: OffsetDateTime,
        ) -> Result<Lease, Error> = call("lease_outbox", "outbox");

        /// Ends every lease and forgets the destination, for operators: the outbox belongs to the
        /// next relay.
        async fn reset_relay(&self) -> Result<(), Error> = call("reset_relay", "outbox");

        /// Returns up to `limit` events that are neither published nor dead-lettered, oldest first.
        /// Dead-letters unreadable events.
        async fn unpublished(&self, limit: u32) -> Result<Vec<Event>, Error> = call("unpublished", "outbox");

        /// Marks the events as published to `destination`. Events of an outbox that belongs to a
        /// broker stay unpublished unless they went there.
        async fn mark_published(&self, events: Vec<Uuid>, destination: Destination, now: OffsetDateTime) -> Result<(), Error>
            = call("mark_published", "outbox");

        /// Counts a rejection by the broker for each event and stores its reason. Events that were
        /// rejected `max_attempts` times are dead-lettered; returns their number.
        async fn mark_rejected(&self, events: Vec<(Uuid, String)>, max_attempts: u32, now: OffsetDateTime) -> Result<u64, Error>
            = call("mark_refused", "outbox");

        /// Returns up to `limit` dead-lettered events, oldest first.
        async fn dead_events(&self, limit: u32) -> Result<Vec<DeadEvent>, Error> = call("dead_events", "outbox");

        /// Makes up to `limit` dead-lettered events after the position `after` publishable again,
        /// oldest first.
        async fn redrive(&self, after: i64, limit: u32) -> Result<Redriven, Error> = call("redrive", "outbox");

        /// Deletes up to `limit` events that were published before `before` and returns their
        /// number.
        async fn prune_published(&self, before: OffsetDateTime, limit: u32) -> Result<u64, Error> = call("prune_published", "outbox");
    }
}

/// Event of a status change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Unique id, which consumers use for deduplication.
    pub id: Uuid,
    /// The changed order.
    pub order_id: OrderId,
    /// Version of the order after the change.
    pub version: i64,
    /// Event type: `palisade.orders.v1.` and the new status in lower case, or the step of a
    /// revision.
    pub kind: String,
    /// Order as JSON, without its lines.
    pub payload: String,
    /// W3C `traceparent` of the request that created the order.
    pub trace_parent: Option<String>,
    /// Time of the status change.
    pub created_at: OffsetDateTime,
}

/// Dead-lettered event: the broker rejected it too often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadEvent {
    /// The event.
    pub event: Event,
    /// Message of the last rejection.
    pub reason: String,
    /// Time of dead-lettering.
    pub dead_lettered_at: OffsetDateTime,
}

/// Result of [`OutboxStore::redrive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redriven {
    /// Events that can be published again.
    pub events: u64,
    /// Position of the last one. `None` if there was none.
    pub last: Option<i64>,
}

impl Redriven {
    /// Result of a batch with these positions.
    pub(super) fn of(positions: &[i64]) -> Self {
        Self { events: positions.len() as u64, last: positions.iter().max().copied() }
    }
}

/// Makes all dead-lettered events publishable again, in batches, and returns their number. Events
/// that are dead-lettered again meanwhile stay so.
pub async fn redrive_all<S: OutboxStore + ?Sized>(store: &S) -> Result<u64, Error> {
    let (mut after, mut events) = (i64::MIN, 0);
    loop {
        let batch = store.redrive(after, REDRIVE_BATCH).await?;
        events += batch.events;
        let Some(last) = batch.last else { return Ok(events) };
        after = last;
    }
}

/// Condition of a publication to `$3`: the outbox does not belong to another destination.
macro_rules! owned {
    () => {
        " AND NOT EXISTS (SELECT 1 FROM outbox_relay WHERE destination = 'broker' AND destination <> $3)"
    };
}

pub(super) use owned;

/// Reason of dead-lettering of an event that cannot be read.
pub(super) fn unreadable(error: &Error) -> String {
    UNREADABLE.record("outbox", error);
    format!("unreadable: {error}")
}

/// Outbox row of a status change.
pub(super) struct NewEvent {
    pub(super) event_id: Uuid,
    pub(super) kind: String,
    pub(super) payload: String,
}

impl NewEvent {
    /// Builds the event for the current status of `order`.
    pub(super) fn for_order(order: &Order) -> Result<Self, Error> {
        Self::new(order, &order.status.as_str().to_lowercase(), order.updated_at)
    }

    /// Builds an event of `order` that occurred at `at`. Its type ends with `name`.
    pub(super) fn new(order: &Order, name: &str, at: OffsetDateTime) -> Result<Self, Error> {
        let occurred_at = at.format(&Rfc3339).map_err(|error| Error::Corrupt(format!("cannot format a timestamp: {error}")))?;
        let payload = json!({
            "orderId": order.id.to_string(),
            "userId": order.user_id.as_str(),
            "status": order.status.as_str(),
            "failureReason": order.failure_reason.map(FailureReason::as_str),
            "totalMinor": order.total_minor,
            "version": order.version,
            "occurredAt": occurred_at,
        });
        Ok(Self { event_id: crate::order::new_uuid(at), kind: format!("palisade.orders.v1.{name}"), payload: payload.to_string() })
    }
}
