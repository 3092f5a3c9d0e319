//! Mismatch of an order and its reservation.

use std::fmt;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{order::Status, store::SagaStatus};

/// Order and reservation, of the same id, that contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mismatch {
    id: Uuid,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The reservation owns units, and the order does not exist.
    NoOrder,
    /// The order is confirmed, and its reservation owns no units.
    NoReservation,
    /// The order is confirmed, and its reservation owns other units.
    OtherLines,
    /// The reservation owns units that an order in this status no longer needs.
    NotEnded(Status),
}

impl Mismatch {
    /// Compares a reservation that owns units with its order. An unreadable order is counted as
    /// such, and contradicts nothing.
    pub(super) fn of_reservation(id: Uuid, saga: Option<&SagaStatus>) -> Option<Self> {
        let Some(saga) = saga else { return Some(Self { id, kind: Kind::NoOrder }) };
        let status = saga.status?;
        let needed = match status {
            // The order may be behind its reservation, never ahead of it.
            Status::Pending | Status::ProductReserved | Status::Confirmed => true,
            Status::Completed => saga.fulfilment_pending,
            Status::Failed | Status::Cancelled => false,
        };
        (!needed && !saga.release_pending).then_some(Self { id, kind: Kind::NotEnded(status) })
    }

    /// Mismatch of a confirmed order without a reservation.
    pub(super) fn without_reservation(id: Uuid) -> Self {
        Self { id, kind: Kind::NoReservation }
    }

    /// Mismatch of a confirmed order whose reservation has other lines.
    pub(super) fn of_lines(id: Uuid) -> Self {
        Self { id, kind: Kind::OtherLines }
    }

    /// Returns the mismatch for programs: its id and kind.
    pub(super) fn body(&self) -> Value {
        let kind = match self.kind {
            Kind::NoOrder => "reservation_without_order",
            Kind::NoReservation => "order_without_reservation",
            Kind::OtherLines => "other_lines",
            Kind::NotEnded(_) => "reservation_not_ended",
        };
        json!({ "id": self.id.to_string(), "kind": kind })
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, kind } = self;
        match kind {
            Kind::NoOrder => write!(f, "reservation {id} has no order"),
            Kind::NoReservation => write!(f, "order {id} is CONFIRMED, but its reservation owns no units"),
            Kind::OtherLines => write!(f, "order {id} is CONFIRMED, but its reservation has other lines"),
            Kind::NotEnded(status) => {
                write!(f, "order {id} is {status} without a pending release or fulfilment, but its reservation still owns units")
            }
        }
    }
}
