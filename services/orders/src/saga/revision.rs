//! Revision of the lines of a confirmed order: the request, the call to products, and the end.
//!
//! The request is stored first, with the version that numbers the revision at products. Products
//! takes the missing units, or none, before it gives back the others; only then the order gets its
//! new lines. A worker repeats the call until its outcome is known. A cancellation ends a pending
//! revision, since the release that follows gives back whatever products has taken.

use std::{collections::HashMap, time::Duration};

use palisade_middleware::{clock, planted, preconditions::VersionPreconditions};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Effect, Saga};
use crate::order::{FailureReason, HeldLine, Line, MaxTotal, Order, Priced, Revision, Status};

/// Version from which an order is not revised any more: its history stays small enough to be read
/// at once. Each revision adds two versions.
pub const MAX_REVISED_VERSION: i64 = 100;

/// Result of a revise call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReviseOutcome {
    /// The reservation has the requested lines.
    Revised(Vec<HeldLine>),
    /// The reservation is unchanged.
    Refused(FailureReason),
    /// No confirmed reservation exists, or it has a later revision.
    Lost,
    /// The outcome is unknown: the reservation may be revised or not.
    Unknown {
        /// Minimum delay before a retry, if products requested one.
        retry_after: Option<Duration>,
    },
}

/// End of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevisionEnd {
    /// The order gets these lines.
    Revised(Priced),
    /// The order keeps its lines.
    Refused(FailureReason),
}

/// Decision about a requested revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevisionRequest {
    /// The order already has these lines.
    Unchanged,
    /// The same revision is pending.
    Pending,
    /// The revision is legal. Holds the order after the request.
    Allowed(Box<Order>),
    /// Another revision is pending.
    InProgress,
    /// An order with this status cannot be revised.
    Illegal,
    /// The order was revised too often.
    Exhausted,
    /// The version does not satisfy the preconditions.
    VersionMismatch,
}

/// Checks a revision of `order` to `lines`, of at most `max_total`, requested at `now` under
/// `preconditions`.
///
/// A revision that was made already is repeated with the version before its request, or before its
/// request and its end. Its conditions are then evaluated for that version (RFC 9110, section
/// 13.1.1).
pub fn request_revision(
    order: &Order,
    (lines, max_total): (Vec<Line>, Option<MaxTotal>),
    preconditions: &VersionPreconditions,
    now: OffsetDateTime,
) -> RevisionRequest {
    let allows = |earlier: i64| preconditions.allow_write(&(order.version - earlier));
    match &order.revision {
        Some(pending) if same_lines(&pending.lines, &lines) && pending.max_total == max_total && (allows(0) || allows(1)) => {
            RevisionRequest::Pending
        }
        None if order.status == Status::Confirmed
            && same_lines(&order.lines, &lines)
            && max_total.is_none_or(|max| order.total_minor.is_some_and(|total| max.allows(total)))
            && (allows(0) || allows(2)) =>
        {
            RevisionRequest::Unchanged
        }
        _ if !allows(0) => RevisionRequest::VersionMismatch,
        _ if order.status != Status::Confirmed => RevisionRequest::Illegal,
        Some(_) => RevisionRequest::InProgress,
        None if order.version >= MAX_REVISED_VERSION => RevisionRequest::Exhausted,
        None => {
            let revision = Some(Revision { lines, max_total, updated_before: order.updated_at });
            RevisionRequest::Allowed(Box::new(Order { revision, updated_at: now, version: order.version + 1, ..order.clone() }))
        }
    }
}

impl Saga {
    pub(super) fn on_revise(&self, outcome: ReviseOutcome, now: OffsetDateTime, random: u32) -> Effect {
        let retry = |retry_after| Effect::RetryAt(clock::after(now, self.backoff(retry_after, random)));
        match (outcome, &self.order.revision) {
            // It ended meanwhile: nothing is left to do.
            (_, None) => Effect::Finished,
            // A reservation with other lines says nothing about this revision.
            (ReviseOutcome::Revised(held), Some(revision)) => {
                Priced::new(&revision.lines, &held).map_or_else(|_| retry(None), |priced| Effect::EndRevision(RevisionEnd::Revised(priced)))
            }
            (ReviseOutcome::Refused(reason), _) => Effect::EndRevision(RevisionEnd::Refused(reason)),
            (ReviseOutcome::Lost, _) => Effect::EndRevision(RevisionEnd::Refused(FailureReason::ReservationExpired)),
            (ReviseOutcome::Unknown { .. }, _) if planted!("revision timeout taken for a refusal") => {
                Effect::EndRevision(RevisionEnd::Refused(FailureReason::ProductsUnavailable))
            }
            (ReviseOutcome::Unknown { retry_after }, _) => retry(retry_after),
        }
    }
}

impl RevisionEnd {
    /// Returns `order` after its revision ended at `now`. A refused revision leaves it as it was,
    /// save for its version.
    pub fn apply(&self, order: Order, now: OffsetDateTime) -> Order {
        let version = order.version + 1;
        match self {
            Self::Revised(priced) => Order {
                lines: priced.lines().to_vec(),
                total_minor: Some(priced.total_minor()),
                updated_at: now,
                version,
                revision: None,
                ..order
            },
            Self::Refused(_) => {
                let updated_at = order.revision.as_ref().map_or(order.updated_at, |revision| revision.updated_before);
                Order { updated_at, version, revision: None, ..order }
            }
        }
    }
}

fn same_lines(one: &[Line], other: &[Line]) -> bool {
    let quantities = |lines: &[Line]| lines.iter().map(|line| (line.product_id, line.quantity)).collect::<HashMap<Uuid, i64>>();
    quantities(one) == quantities(other)
}

#[cfg(test)]
mod tests {
    use palisade_middleware::preconditions::VersionPreconditions;
    use time::macros::datetime;

    use super::*;
    use crate::order::{NewOrder, OrderId};

    const NOW: OffsetDateTime = datetime!(2026-01-01 0:00 UTC);
    const LATER: OffsetDateTime = datetime!(2026-01-02 0:00 UTC);

    fn lines(lines: &[(u128, i64)]) -> Vec<Line> {
        lines.iter().map(|&(n, quantity)| Line { product_id: Uuid::from_u128(n), quantity, snapshot: None }).collect()
    }

    /// A CONFIRMED order of 2 units of product 1, in version 3.
    fn confirmed() -> Order {
        let product = Uuid::from_u128(1).to_string();
        let order = Order::accepted(OrderId::generate(NOW), NewOrder::new("alice", &[(&product, 2)]).unwrap(), NOW);
        Order { status: Status::Confirmed, version: 3, total_minor: Some(200), ..order }
    }

    fn requested() -> Order {
        match request_revision(&confirmed(), (lines(&[(2, 1)]), None), &VersionPreconditions::default(), LATER) {
            RevisionRequest::Allowed(order) => *order,
            decision => panic!("{decision:?}"),
        }
    }

    #[test]
    fn request_is_decided_by_status_version_and_lines() {
        let (same, new, other) = (lines(&[(1, 2)]), lines(&[(2, 1)]), lines(&[(3, 1)]));
        let (any, expect) = (VersionPreconditions::default(), VersionPreconditions::expect);
        let decide = |order: &Order, lines: &[Line], conditions: &VersionPreconditions| {
            request_revision(order, (lines.to_vec(), None), conditions, LATER)
        };
        let cancelled = Order { status: Status::Cancelled, ..confirmed() };
        assert_eq!(decide(&confirmed(), &same, &any), RevisionRequest::Unchanged);
        assert_eq!(decide(&confirmed(), &same, &expect(1)), RevisionRequest::Unchanged, "a repeated call");
        assert_eq!(decide(&confirmed(), &same, &expect(2)), RevisionRequest::VersionMismatch);
        assert_eq!(decide(&confirmed(), &new, &expect(2)), RevisionRequest::VersionMismatch);
        assert_eq!(decide(&cancelled, &new, &any), RevisionRequest::Illegal);
        assert_eq!(decide(&cancelled, &same, &any), RevisionRequest::Illegal);
        let often = Order { version: MAX_REVISED_VERSION, ..confirmed() };
        assert_eq!(decide(&often, &new, &any), RevisionRequest::Exhausted);
        assert_eq!(decide(&often, &same, &any), RevisionRequest::Unchanged);
        assert_eq!(decide(&requested(), &new, &any), RevisionRequest::Pending);
        assert_eq!(decide(&requested(), &new, &expect(3)), RevisionRequest::Pending, "a repeated call");
        assert_eq!(decide(&requested(), &other, &any), RevisionRequest::InProgress);
        assert_eq!(decide(&requested(), &other, &expect(3)), RevisionRequest::VersionMismatch);
    }

    #[test]
    fn same_lines_above_the_maximum_are_a_request() {
        let decide = |max| {
            let max = MaxTotal::new(max).unwrap();
            request_revision(&confirmed(), (lines(&[(1, 2)]), Some(max)), &VersionPreconditions::default(), LATER)
        };
        assert_eq!(decide(200), RevisionRequest::Unchanged);
        assert!(matches!(decide(199), RevisionRequest::Allowed(order) if order.revision.as_ref().unwrap().max_total.is_some()));
        let pending = (lines(&[(2, 1)]), Some(MaxTotal::new(1).unwrap()));
        assert_eq!(request_revision(&requested(), pending, &VersionPreconditions::default(), LATER), RevisionRequest::InProgress);
    }

    #[test]
    fn refused_revision_restores_the_order() {
        let requested = requested();
        let refused = RevisionEnd::Refused(FailureReason::InsufficientStock).apply(requested.clone(), LATER);
        assert_eq!(refused, Order { version: 5, updated_at: NOW, revision: None, ..requested });
    }

    #[test]
    fn order_with_a_pending_revision_can_only_be_cancelled() {
        use crate::{
            order::Role,
            saga::{StatusChange, request_conditional_change},
        };
        let change = |to| request_conditional_change(&requested(), to, Role::Admin, &VersionPreconditions::default());
        assert_eq!(change(Status::Completed), StatusChange::Illegal(&[Status::Cancelled]));
        let StatusChange::Allowed(transition) = change(Status::Cancelled) else { panic!("must be allowed") };
        let cancelled = transition.apply(requested(), LATER);
        assert!(transition.release && cancelled.revision.is_none());
    }
}
