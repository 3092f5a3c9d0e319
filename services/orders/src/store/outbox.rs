//! The outbox: one event for every change of status, written in the same step, to be published by the relay of one replica.

use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::Error;
use crate::order::{FailureReason, Order, OrderId};

/// A change of an order's status, as others are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Chosen once: a consumer that sees it twice drops the second.
    pub id: Uuid,
    /// The order that changed.
    pub order_id: OrderId,
    /// The version of the order that it tells of.
    pub version: i64,
    /// `palisade.orders.v1.` and the new status in lower case.
    pub kind: String,
    /// JSON: the order without its lines.
    pub payload: String,
    /// W3C `traceparent` of the request that created the order.
    pub trace_parent: Option<String>,
    /// When the status changed.
    pub created_at: OffsetDateTime,
}

/// An event that the broker refused so often that it is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadEvent {
    /// The event.
    pub event: Event,
    /// What the broker said the last time.
    pub reason: String,
    /// When it was given up.
    pub dead_lettered_at: OffsetDateTime,
}

/// What the outbox row of a change says.
pub(super) struct NewEvent {
    pub(super) event_id: Uuid,
    pub(super) kind: String,
    pub(super) payload: String,
}

impl NewEvent {
    /// About `order`, which has just got its status.
    pub(super) fn for_order(order: &Order) -> Result<Self, Error> {
        let occurred_at = order.updated_at.format(&Rfc3339).map_err(|error| Error::Corrupt(format!("a time without a text: {error}")))?;
        let payload = json!({
            "orderId": order.id.to_string(),
            "userId": order.user_id,
            "status": order.status.as_str(),
            "failureReason": order.failure_reason.map(FailureReason::as_str),
            "totalMinor": order.total_minor,
            "version": order.version,
            "occurredAt": occurred_at,
        });
        Ok(Self {
            event_id: crate::order::new_uuid(order.updated_at),
            kind: format!("palisade.orders.v1.{}", order.status.as_str().to_lowercase()),
            payload: payload.to_string(),
        })
    }
}
