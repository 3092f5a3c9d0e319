//! Saga queue: leases on due orders, and the status changes that their holders record.
//!
//! An order with work left has a due time. A due time in the past means that the order waits for a
//! worker; in the future, that it is leased or backing off. Each claim, and each status change by a
//! user, increments the order's fence (fencing token), so that a worker that lost its lease cannot
//! record anything.

use std::time::Duration;

use time::OffsetDateTime;

use super::{
    database::Error,
    instrumented::{ChangeResult, instrumented_role},
    orders::{Claimed, StoredResponse},
};
use crate::{
    order::{Order, OrderId, Status},
    saga::{RevisionEnd, Transition},
};

instrumented_role! {
    /// Queue of the orders whose sagas have work left.
    pub trait SagaQueue {
        /// Claims up to `limit` due orders, longest due first, and leases each for `lease`. No
        /// other worker can claim them until then. Puts unreadable orders into quarantine.
        async fn claim_due(&self, now: OffsetDateTime, lease: Duration, limit: u32) -> Result<Vec<Claimed>, Error>
            = call("claim_due", "orders");

        /// Records transitions of the saga, one after the other in one step, if `claimed` still
        /// holds the lease. Stores `response` for replays in the same step.
        async fn transition(
            &self,
            claimed: Claimed,
            transitions: Vec<Transition>,
            response: Option<StoredResponse>,
            now: OffsetDateTime,
        ) -> Result<TransitionResult, Error> = change("transition", "orders");

        /// Records the end of a revision and replaces the lines if it was made, if `claimed` still
        /// holds the lease. The lease ends.
        async fn end_revision(&self, claimed: Claimed, end: RevisionEnd, now: OffsetDateTime) -> Result<TransitionResult, Error>
            = change("end_revision", "orders");

        /// Extends the lease of `claimed` until `until`. Returns `false` if it is lost or the order
        /// is finished.
        async fn extend_lease(&self, id: OrderId, fence: i64, until: OffsetDateTime) -> Result<bool, Error>
            = call("extend_lease", "orders");

        /// Schedules the next attempt for `due_at` and stores the error. Returns `false` if the
        /// lease is lost.
        async fn postpone(&self, id: OrderId, fence: i64, due_at: OffsetDateTime, last_error: String) -> Result<bool, Error>
            = call("postpone", "orders");

        /// Records that products has released the reservation. Returns `false` if the lease is
        /// lost.
        async fn release_done(&self, id: OrderId, fence: i64) -> Result<bool, Error> = call("release_done", "orders");

        /// Returns up to `limit` unfinished orders that are unchanged since `unchanged_since` or
        /// were claimed at least `attempts` times, oldest first.
        async fn stuck(&self, unchanged_since: OffsetDateTime, attempts: u32, limit: u32) -> Result<Vec<StuckOrder>, Error>
            = call("stuck", "orders");

        /// Returns up to `limit` orders in quarantine, oldest first.
        async fn quarantined(&self, limit: u32) -> Result<Vec<QuarantinedOrder>, Error> = call("quarantined", "quarantined_orders");

        /// Makes an unfinished or unfulfilled order due now, and releases it from quarantine.
        /// Returns `false` if the order does not exist or is finished.
        async fn retry_now(&self, id: OrderId, now: OffsetDateTime) -> Result<bool, Error> = call("retry_now", "orders");
    }
}

/// Result of [`SagaQueue::transition`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransitionResult {
    /// The transition is recorded and the lease continues.
    Applied(Claimed),
    /// The lease is lost: the order was claimed or changed meanwhile. Holds its current state.
    Fenced(Order),
}

/// Order that cannot be read. No worker claims it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedOrder {
    /// The order.
    pub order_id: OrderId,
    /// Reason why it cannot be read.
    pub reason: String,
    /// Time of the first failure.
    pub since: OffsetDateTime,
}

/// Unfinished order that makes no progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StuckOrder {
    /// The order.
    pub order_id: OrderId,
    /// Status of the order.
    pub status: Status,
    /// Whether a release is pending.
    pub release_pending: bool,
    /// Number of claims since the last status change.
    pub attempts: u32,
    /// Error of the last attempt.
    pub last_error: Option<String>,
    /// Time of the last status change.
    pub updated_at: OffsetDateTime,
    /// Time of the next attempt.
    pub due_at: OffsetDateTime,
}

impl ChangeResult for TransitionResult {
    fn changed_order(&self) -> Option<&Order> {
        if let Self::Applied(claimed) = self { Some(&claimed.saga.order) } else { None }
    }
}
