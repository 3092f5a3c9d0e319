//! Order saga as a pure state machine: the stored state and an event determine the next effect.
//!
//! The saga has three steps at products: reserve, then confirm or release. Products may reserve and
//! confirm in one call, since nothing lies between the two. Each step is idempotent, because the
//! order id is also the reservation id. The knowledge about the reservation decides:
//!
//! - A timeout leaves the outcome unknown, so the order keeps its status and the step is retried.
//!   An order fails without a definite outcome only if it is still PENDING at the saga's deadline.
//! - An order fails without a release only if products rejected the reservation. In all other cases
//!   units may be held.
//! - A release is retried until products confirms it.
//!
//! A revision of a confirmed order is one more step, see [`revision`](self::RevisionEnd).

use std::time::Duration;

use palisade_middleware::{backoff::Backoff, clock, planted, preconditions::VersionPreconditions};
use time::OffsetDateTime;

use crate::order::{FailureReason, HeldLine, MaxTotal, Order, Priced, PricingError, Role, Status};

mod revision;

pub use self::revision::{MAX_REVISED_VERSION, ReviseOutcome, RevisionEnd, RevisionRequest, request_revision};

/// Maximum backoff between two attempts. Short: it delays orders after an outage of products.
pub const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// Upper bound of the backoff after the first attempt. Doubles with each further attempt.
const INITIAL_BACKOFF: Duration = Duration::from_millis(500);

/// Stored state of an order and its saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saga {
    /// The order.
    pub order: Order,
    /// Whether products must still release the reservation.
    pub release_pending: bool,
    /// Time at which an order that is still PENDING fails.
    pub deadline: OffsetDateTime,
    /// Number of claims since the last status change, including the current one.
    pub attempts: u32,
    /// Maximum total that the customer accepts. `None`: unlimited.
    pub max_total: Option<MaxTotal>,
}

/// Input of the saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The order was accepted, claimed by a worker, or has just changed its status.
    Resumed,
    /// Result of [`Effect::CallReserve`].
    ReserveReturned(ReserveOutcome),
    /// Result of [`Effect::CallConfirm`].
    ConfirmReturned(ConfirmOutcome),
    /// Result of [`Effect::CallRelease`].
    ReleaseReturned(ReleaseOutcome),
    /// Result of [`Effect::CallRevise`].
    ReviseReturned(ReviseOutcome),
}

/// Result of a reserve call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReserveOutcome {
    /// All lines are reserved.
    Held(Vec<HeldLine>),
    /// All lines are reserved, and the reservation is confirmed.
    Confirmed(Vec<HeldLine>),
    /// No line is or will be reserved.
    Rejected(FailureReason),
    /// The reservation was released before this call.
    Released,
    /// The reservation was made and has expired.
    Expired,
    /// The outcome is unknown: the lines may be reserved or not.
    Unknown {
        /// Minimum delay before a retry, if products requested one.
        retry_after: Option<Duration>,
    },
}

/// Result of a confirm call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfirmOutcome {
    /// The units belong to the order permanently.
    Confirmed,
    /// The reservation expired, was released, or never existed.
    Lost,
    /// The outcome is unknown.
    Unknown {
        /// Minimum delay before a retry, if products requested one.
        retry_after: Option<Duration>,
    },
}

/// Result of a release call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReleaseOutcome {
    /// Nothing is or will be reserved.
    Done,
    /// The outcome is unknown.
    Unknown {
        /// Minimum delay before a retry, if products requested one.
        retry_after: Option<Duration>,
    },
}

/// Next action of the saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Call products to reserve the lines.
    CallReserve,
    /// Call products to confirm the reservation.
    CallConfirm,
    /// Call products to release the reservation.
    CallRelease,
    /// Call products to revise the reservation.
    CallRevise,
    /// Store the transitions, in order and in one step, then continue with [`Event::Resumed`].
    Record(Vec<Transition>),
    /// Store that the release is done. Nothing follows.
    RecordReleased,
    /// Store the end of the revision. Nothing follows.
    EndRevision(RevisionEnd),
    /// Retry at this time.
    RetryAt(OffsetDateTime),
    /// The saga is finished.
    Finished,
}

/// Status transition of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// Required current status.
    pub from: Status,
    /// New status.
    pub to: Status,
    /// Reason of the failure. Set only with [`Status::Failed`].
    pub reason: Option<FailureReason>,
    /// Names and prices. Set only with [`Status::ProductReserved`].
    pub priced: Option<Priced>,
    /// Whether a release becomes pending.
    pub release: bool,
}

/// Result of a status change requested by a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatusChange {
    /// The order already has the status.
    Unchanged,
    /// The transition is legal.
    Allowed(Transition),
    /// The transition is illegal. Holds the legal target statuses.
    Illegal(&'static [Status]),
    /// The version does not satisfy the preconditions.
    VersionMismatch,
}

impl Saga {
    /// Returns the effect of `event` at `now`. `random` is a uniformly distributed number for the
    /// jitter of retries.
    pub fn handle(&self, event: Event, now: OffsetDateTime, random: u32) -> Effect {
        match (self.order.status, event) {
            (Status::Pending, Event::ReserveReturned(outcome)) => self.on_reserve(outcome, now, random),
            (Status::ProductReserved, Event::ConfirmReturned(outcome)) => self.on_confirm(&outcome, now, random),
            (Status::Confirmed, Event::ReviseReturned(outcome)) => self.on_revise(outcome, now, random),
            (_, Event::ReleaseReturned(outcome)) if self.release_pending => self.on_release(&outcome, now, random),
            // A late response to an earlier step carries no new information.
            _ => self.next_effect(now),
        }
    }

    /// Returns the saga after `transition` was recorded at `now`.
    #[must_use]
    pub fn after(mut self, transition: &Transition, now: OffsetDateTime) -> Self {
        self.order = transition.apply(self.order, now);
        self.release_pending = transition.release;
        self.attempts = 1;
        self
    }

    /// Whether no work is left for a worker.
    pub fn is_finished(&self) -> bool {
        !self.release_pending && self.order.revision.is_none() && !matches!(self.order.status, Status::Pending | Status::ProductReserved)
    }

    fn next_effect(&self, now: OffsetDateTime) -> Effect {
        match self.order.status {
            _ if self.release_pending => Effect::CallRelease,
            Status::Pending if now >= self.deadline => self.fail(FailureReason::ProductsUnavailable, !planted!("failure without release")),
            Status::Pending => Effect::CallReserve,
            Status::ProductReserved => Effect::CallConfirm,
            Status::Confirmed if self.order.revision.is_some() => Effect::CallRevise,
            Status::Confirmed | Status::Failed | Status::Completed | Status::Cancelled => Effect::Finished,
        }
    }

    fn on_reserve(&self, outcome: ReserveOutcome, now: OffsetDateTime, random: u32) -> Effect {
        match outcome {
            ReserveOutcome::Held(held) => self.record_reserved(&held, false, now, random),
            ReserveOutcome::Confirmed(held) => self.record_reserved(&held, true, now, random),
            ReserveOutcome::Rejected(reason) => self.fail(reason, false),
            ReserveOutcome::Released | ReserveOutcome::Expired => self.fail(FailureReason::ReservationExpired, true),
            ReserveOutcome::Unknown { .. } if planted!("timeout taken for a refusal") => {
                self.fail(FailureReason::ProductsUnavailable, false)
            }
            ReserveOutcome::Unknown { retry_after } => self.retry_pending(retry_after, now, random),
        }
    }

    fn record_reserved(&self, held: &[HeldLine], is_confirmed: bool, now: OffsetDateTime, random: u32) -> Effect {
        let priced = match Priced::new(&self.order.lines, held) {
            Ok(priced) if self.max_total.is_none_or(|max| max.allows(priced.total_minor())) => priced,
            // Products has reserved nevertheless: a replica of the previous release ignores the
            // maximum.
            Ok(_) => return self.fail(FailureReason::PriceChanged, true),
            Err(PricingError::TotalOutOfRange) if self.max_total.is_some() => return self.fail(FailureReason::PriceChanged, true),
            // A reservation with other lines says nothing about this order: retry until the
            // deadline.
            Err(_) => return self.retry_pending(None, now, random),
        };
        let reserved = Transition { priced: Some(priced), ..Transition::new(Status::Pending, Status::ProductReserved) };
        let confirmed = is_confirmed.then(|| Transition::new(Status::ProductReserved, Status::Confirmed));
        Effect::Record(std::iter::once(reserved).chain(confirmed).collect())
    }

    fn on_confirm(&self, outcome: &ConfirmOutcome, now: OffsetDateTime, random: u32) -> Effect {
        match outcome {
            ConfirmOutcome::Confirmed => Effect::Record(vec![Transition::new(Status::ProductReserved, Status::Confirmed)]),
            ConfirmOutcome::Lost => self.fail(FailureReason::ReservationExpired, true),
            ConfirmOutcome::Unknown { retry_after } => Effect::RetryAt(clock::after(now, self.backoff(*retry_after, random))),
        }
    }

    fn on_release(&self, outcome: &ReleaseOutcome, now: OffsetDateTime, random: u32) -> Effect {
        match outcome {
            ReleaseOutcome::Done => Effect::RecordReleased,
            ReleaseOutcome::Unknown { retry_after } => Effect::RetryAt(clock::after(now, self.backoff(*retry_after, random))),
        }
    }

    fn retry_pending(&self, retry_after: Option<Duration>, now: OffsetDateTime, random: u32) -> Effect {
        if now >= self.deadline {
            return self.fail(FailureReason::ProductsUnavailable, !planted!("failure without release"));
        }
        Effect::RetryAt(self.deadline.min(clock::after(now, self.backoff(retry_after, random))))
    }

    fn fail(&self, reason: FailureReason, release: bool) -> Effect {
        Effect::Record(vec![Transition { reason: Some(reason), release, ..Transition::new(self.order.status, Status::Failed) }])
    }

    fn backoff(&self, retry_after: Option<Duration>, random: u32) -> Duration {
        backoff(self.attempts, retry_after, random)
    }
}

/// Exponential backoff with full jitter, so that steps that failed together do not retry together.
pub(crate) fn backoff(attempts: u32, retry_after: Option<Duration>, random: u32) -> Duration {
    let longest = Backoff::at(INITIAL_BACKOFF, MAX_BACKOFF, attempts.saturating_sub(1));
    let longest_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
    let jittered = Duration::from_millis((longest_ms.saturating_mul(u64::from(random))) >> u32::BITS);
    jittered.max(retry_after.unwrap_or_default()).min(MAX_BACKOFF)
}

impl Transition {
    fn new(from: Status, to: Status) -> Self {
        Self { from, to, reason: None, priced: None, release: false }
    }

    /// Returns `order` after this transition was recorded at `now`.
    pub fn apply(&self, mut order: Order, now: OffsetDateTime) -> Order {
        if let Some(priced) = &self.priced {
            order.lines = priced.lines().to_vec();
            order.total_minor = Some(priced.total_minor() + i64::from(planted!("wrong total")));
        }
        Order { status: self.to, failure_reason: self.reason, updated_at: now, version: order.version + 1, revision: None, ..order }
    }
}

/// Checks a status change of `order` to `to` requested by `by` under `preconditions`.
///
/// A change that was made already is repeated with the version before it. Its conditions are then
/// evaluated for that version (RFC 9110, section 13.1.1).
pub fn request_conditional_change(order: &Order, to: Status, by: Role, preconditions: &VersionPreconditions) -> StatusChange {
    let is_repeated = order.status == to && preconditions.allow_write(&(order.version - 1));
    if preconditions.allow_write(&order.version) || is_repeated {
        match request_status_change(order.status, to, by) {
            // The lines are not known until the revision ends.
            StatusChange::Allowed(_) if order.revision.is_some() && to != Status::Cancelled => StatusChange::Illegal(&[Status::Cancelled]),
            change => change,
        }
    } else {
        StatusChange::VersionMismatch
    }
}

/// Checks a status change from `from` to `to` requested by `by`.
///
/// A cancellation always makes a release pending, whatever is reserved: it also blocks a reserve
/// call that is still in flight (tombstone).
pub fn request_status_change(from: Status, to: Status, by: Role) -> StatusChange {
    let allowed = from.allowed_transitions(by);
    if from == to {
        StatusChange::Unchanged
    } else if (allowed.contains(&to) || planted!("illegal transition")) && by != Role::Saga {
        let release = to == Status::Cancelled && !planted!("cancellation without release");
        StatusChange::Allowed(Transition { release, ..Transition::new(from, to) })
    } else {
        StatusChange::Illegal(allowed)
    }
}

#[cfg(test)]
mod tests {
    use palisade_middleware::preconditions::{Condition, Preconditions};
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::order::{NewOrder, OrderId};

    /// A CONFIRMED order in version 3.
    fn confirmed() -> Order {
        let now = datetime!(2026-01-01 0:00 UTC);
        let product = Uuid::from_u128(1).to_string();
        let order = Order::accepted(OrderId::generate(now), NewOrder::new("alice", &[(&product, 1)]).unwrap(), now);
        Order { status: Status::Confirmed, version: 3, ..order }
    }

    #[test]
    fn precondition_is_evaluated_before_the_transition() {
        let none_match = |condition| Preconditions { if_match: None, if_none_match: Some(condition) };
        for (to, preconditions, is_mismatch) in [
            (Status::Cancelled, VersionPreconditions::default(), false),
            (Status::Cancelled, VersionPreconditions::expect(3), false),
            (Status::Cancelled, VersionPreconditions::expect(2), true),
            (Status::Cancelled, none_match(Condition::Any), true),
            (Status::Cancelled, none_match(Condition::Listed(vec![3])), true),
            (Status::Pending, VersionPreconditions::expect(2), true),
            (Status::Pending, VersionPreconditions::expect(3), false),
            // The change to CONFIRMED was made from version 2.
            (Status::Confirmed, VersionPreconditions::expect(2), false),
            (Status::Confirmed, VersionPreconditions::expect(1), true),
        ] {
            let change = request_conditional_change(&confirmed(), to, Role::Owner, &preconditions);
            assert_eq!(change == StatusChange::VersionMismatch, is_mismatch, "{to} {preconditions:?}: {change:?}");
        }
    }
}
