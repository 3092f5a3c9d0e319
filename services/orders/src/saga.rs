//! The saga that takes an order to its end, as a pure function: what is stored and what was heard give what to do next.
//!
//! Three steps towards products, each of which may be repeated at will because the order's id names the reservation: reserve,
//! then confirm, or release. What is known of the reservation decides:
//!
//! - No answer is no knowledge: the order stays as it is and the step is tried again. Only an order that is still PENDING at the
//!   saga's deadline fails.
//! - An order fails without a release only when products refused the reservation; in every other case units may be held.
//! - A release is tried until products has answered it.

use std::time::Duration;

use time::OffsetDateTime;

use crate::order::{Actor, FailureReason, HeldLine, Order, Priced, Status};

/// The longest wait between two tries, in milliseconds.
pub const MAX_BACKOFF_MS: u64 = 30_000;
/// The longest wait after the first try, in milliseconds; doubles with each.
const INITIAL_BACKOFF_MS: u64 = 500;

/// What is stored of an order and its saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saga {
    /// The order.
    pub order: Order,
    /// Whether products has yet to be told that the order needs no stock.
    pub release_pending: bool,
    /// When an order that is still PENDING fails.
    pub deadline: OffsetDateTime,
    /// How many workers took the order up since its last change, this one included.
    pub attempts: u32,
}

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The order was accepted, taken up by a worker, or has just changed.
    Resumed,
    /// An answer to [`Effect::CallReserve`].
    ReserveAnswered(ReserveOutcome),
    /// An answer to [`Effect::CallConfirm`].
    ConfirmAnswered(ConfirmOutcome),
    /// An answer to [`Effect::CallRelease`].
    ReleaseAnswered(ReleaseOutcome),
}

/// What products said to a reserve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReserveOutcome {
    /// All lines are held.
    Held(Vec<HeldLine>),
    /// Not one line was taken, nor will be.
    Rejected(FailureReason),
    /// A release came first.
    Released,
    /// It was held, and ran out.
    Expired,
    /// Nothing that tells whether anything is held.
    Unknown {
        /// Not before this long, if products said so.
        retry_after: Option<Duration>,
    },
}

/// What products said to a confirm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfirmOutcome {
    /// The units are the order's.
    Confirmed,
    /// The hold expired, was given back, or never was.
    Lost,
    /// Nothing that tells.
    Unknown {
        /// Not before this long, if products said so.
        retry_after: Option<Duration>,
    },
}

/// What products said to a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReleaseOutcome {
    /// Nothing is held, nor will be.
    Done,
    /// Nothing that tells.
    Unknown {
        /// Not before this long, if products said so.
        retry_after: Option<Duration>,
    },
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Ask products to hold the lines.
    CallReserve,
    /// Ask products to make the hold final.
    CallConfirm,
    /// Ask products to give back what it holds.
    CallRelease,
    /// Store this, then go on with [`Event::Resumed`].
    Record(Transition),
    /// Store that the release is done; nothing follows.
    RecordReleased,
    /// Try again at this time.
    RetryAt(OffsetDateTime),
    /// Nothing is left to do.
    Finished,
}

/// A change of an order's status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The status it must have.
    pub from: Status,
    /// The status it gets.
    pub to: Status,
    /// Why it failed; only with [`Status::Failed`].
    pub reason: Option<FailureReason>,
    /// Names and prices; only with [`Status::ProductReserved`].
    pub priced: Option<Priced>,
    /// Whether a release is queued.
    pub release: bool,
}

/// What comes of a person's wish to change the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatusChange {
    /// It has it already.
    Unchanged,
    /// It may.
    Allowed(Transition),
    /// It may not; these it may have.
    Illegal(&'static [Status]),
}

impl Saga {
    /// What to do now that `event` was heard at `now`. `random` spreads the waits of many: any number, each as likely.
    pub fn handle(&self, event: Event, now: OffsetDateTime, random: u32) -> Effect {
        match (self.order.status, event) {
            (Status::Pending, Event::ReserveAnswered(answer)) => self.on_reserve(answer, now, random),
            (Status::ProductReserved, Event::ConfirmAnswered(answer)) => self.on_confirm(&answer, now, random),
            (_, Event::ReleaseAnswered(answer)) if self.release_pending => self.on_release(&answer, now, random),
            // An answer to an earlier step says nothing new.
            _ => self.next_effect(now),
        }
    }

    /// The saga as it is stored once `transition` was recorded at `now`.
    #[must_use]
    pub fn after(mut self, transition: &Transition, now: OffsetDateTime) -> Self {
        self.order = transition.apply(self.order, now);
        self.release_pending = transition.release;
        self.attempts = 1;
        self
    }

    /// Whether a worker has anything to do.
    pub fn is_finished(&self) -> bool {
        !self.release_pending && !matches!(self.order.status, Status::Pending | Status::ProductReserved)
    }

    fn next_effect(&self, now: OffsetDateTime) -> Effect {
        match self.order.status {
            _ if self.release_pending => Effect::CallRelease,
            Status::Pending if now >= self.deadline => self.fail(FailureReason::ProductsUnavailable, true),
            Status::Pending => Effect::CallReserve,
            Status::ProductReserved => Effect::CallConfirm,
            Status::Confirmed | Status::Failed | Status::Completed | Status::Cancelled => Effect::Finished,
        }
    }

    fn on_reserve(&self, outcome: ReserveOutcome, now: OffsetDateTime, random: u32) -> Effect {
        match outcome {
            ReserveOutcome::Held(held) => match Priced::new(&self.order.lines, &held) {
                Ok(priced) => {
                    Effect::Record(Transition { priced: Some(priced), ..Transition::new(Status::Pending, Status::ProductReserved) })
                }
                // A hold that does not fit the order is no answer to it: the deadline decides.
                Err(_) => self.retry_pending(None, now, random),
            },
            ReserveOutcome::Rejected(reason) => self.fail(reason, false),
            ReserveOutcome::Released | ReserveOutcome::Expired => self.fail(FailureReason::ReservationExpired, true),
            ReserveOutcome::Unknown { retry_after } => self.retry_pending(retry_after, now, random),
        }
    }

    fn on_confirm(&self, outcome: &ConfirmOutcome, now: OffsetDateTime, random: u32) -> Effect {
        match outcome {
            ConfirmOutcome::Confirmed => Effect::Record(Transition::new(Status::ProductReserved, Status::Confirmed)),
            ConfirmOutcome::Lost => self.fail(FailureReason::ReservationExpired, true),
            ConfirmOutcome::Unknown { retry_after } => Effect::RetryAt(now + self.backoff(*retry_after, random)),
        }
    }

    fn on_release(&self, outcome: &ReleaseOutcome, now: OffsetDateTime, random: u32) -> Effect {
        match outcome {
            ReleaseOutcome::Done => Effect::RecordReleased,
            ReleaseOutcome::Unknown { retry_after } => Effect::RetryAt(now + self.backoff(*retry_after, random)),
        }
    }

    fn retry_pending(&self, retry_after: Option<Duration>, now: OffsetDateTime, random: u32) -> Effect {
        if now >= self.deadline {
            return self.fail(FailureReason::ProductsUnavailable, true);
        }
        Effect::RetryAt(self.deadline.min(now + self.backoff(retry_after, random)))
    }

    fn fail(&self, reason: FailureReason, release: bool) -> Effect {
        Effect::Record(Transition { reason: Some(reason), release, ..Transition::new(self.order.status, Status::Failed) })
    }

    /// Exponential with full jitter: many that failed together come back apart.
    fn backoff(&self, retry_after: Option<Duration>, random: u32) -> Duration {
        let doublings = self.attempts.saturating_sub(1).min(16);
        let max_ms = (INITIAL_BACKOFF_MS << doublings).min(MAX_BACKOFF_MS);
        let jittered = Duration::from_millis((max_ms * u64::from(random)) >> u32::BITS);
        jittered.max(retry_after.unwrap_or_default()).min(Duration::from_millis(MAX_BACKOFF_MS))
    }
}

impl Transition {
    fn new(from: Status, to: Status) -> Self {
        Self { from, to, reason: None, priced: None, release: false }
    }

    /// `order` as it is once this was recorded at `now`.
    pub fn apply(&self, mut order: Order, now: OffsetDateTime) -> Order {
        if let Some(priced) = &self.priced {
            order.lines = priced.lines().to_vec();
            order.total_minor = Some(priced.total_minor());
        }
        Order { status: self.to, failure_reason: self.reason, updated_at: now, version: order.version + 1, ..order }
    }
}

/// What comes of `by` wishing an order with status `from` to become `to`.
///
/// A cancelled order's stock comes back whatever was reserved: the release also refuses a reserve that is still under way.
pub fn request_status_change(from: Status, to: Status, by: Actor) -> StatusChange {
    let allowed = from.allowed_transitions(by);
    if from == to {
        StatusChange::Unchanged
    } else if allowed.contains(&to) && by != Actor::Saga {
        StatusChange::Allowed(Transition { release: to == Status::Cancelled, ..Transition::new(from, to) })
    } else {
        StatusChange::Illegal(allowed)
    }
}
