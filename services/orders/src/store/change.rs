//! Status changes as both databases write them: order, history rows and outbox rows.

use time::OffsetDateTime;

use super::{database::Error, orders::Claimed, outbox::NewEvent};
use crate::{
    order::{Actor, FailureReason, Order, Status},
    saga::Transition,
};

/// All data that one write of status changes needs: usually one change, or several in a row that
/// become visible together.
pub(super) struct Change {
    /// The order after its last step. The stored order must have [`Change::old_version`].
    pub(super) order: Order,
    /// The changes in order, at least one.
    pub(super) steps: Vec<Step>,
    pub(super) by: Actor,
    /// Whether the change sets names and prices of the lines.
    pub(super) sets_prices: bool,
    pub(super) release: bool,
    /// Fence of the lease that the change requires. `None` for a change by a user, which needs no
    /// lease and ends an existing one.
    pub(super) fence: Option<i64>,
    /// Whether the lease continues. Otherwise `due_at` is the new due time.
    pub(super) keeps_lease: bool,
    pub(super) due_at: Option<OffsetDateTime>,
    pub(super) attempts: i64,
}

/// One status change: a row of the history and an event.
pub(super) struct Step {
    /// Version of the order after the step.
    pub(super) version: i64,
    pub(super) from: Status,
    pub(super) to: Status,
    pub(super) reason: Option<FailureReason>,
    pub(super) event: NewEvent,
}

impl Change {
    /// Builds the change for transitions of the saga, and the lease after them.
    pub(super) fn by_saga(claimed: &Claimed, transitions: &[Transition], now: OffsetDateTime) -> Result<(Self, Claimed), Error> {
        let after = transitions.iter().fold(claimed.clone(), |claimed, transition| claimed.after(transition, now));
        let change = Self {
            keeps_lease: !after.saga.is_finished(),
            due_at: None,
            attempts: i64::from(after.saga.attempts),
            fence: Some(claimed.fence),
            ..Self::new(claimed.saga.order.clone(), transitions, Actor::saga(), now)?
        };
        Ok((change, after))
    }

    /// Builds the change for a transition of `order` that a user requested.
    pub(super) fn by_user(order: Order, transition: &Transition, by: Actor, now: OffsetDateTime) -> Result<Self, Error> {
        let due_at = transition.release.then_some(now);
        Ok(Self { due_at, ..Self::new(order, std::slice::from_ref(transition), by, now)? })
    }

    /// Version that the stored order must have.
    pub(super) fn old_version(&self) -> i64 {
        self.steps.first().map_or(self.order.version, |step| step.version) - 1
    }

    fn new(mut order: Order, transitions: &[Transition], by: Actor, now: OffsetDateTime) -> Result<Self, Error> {
        let mut steps = Vec::with_capacity(transitions.len());
        for transition in transitions {
            order = transition.apply(order, now);
            let event = NewEvent::for_order(&order)?;
            steps.push(Step { version: order.version, from: transition.from, to: transition.to, reason: transition.reason, event });
        }
        Ok(Self {
            order,
            steps,
            by,
            sets_prices: transitions.iter().any(|transition| transition.priced.is_some()),
            release: transitions.last().is_some_and(|transition| transition.release),
            fence: None,
            keeps_lease: false,
            due_at: None,
            attempts: 0,
        })
    }
}
