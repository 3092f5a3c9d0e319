//! Status change as both databases write it: order, history row and outbox row.

use time::OffsetDateTime;

use super::{database::Error, orders::Claimed, outbox::NewEvent};
use crate::{
    order::{Actor, Order, Status},
    saga::Transition,
};

/// All data that one status change writes.
pub(super) struct Change {
    /// The order after the change. The stored order must have the preceding version.
    pub(super) order: Order,
    pub(super) from: Status,
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
    pub(super) event: NewEvent,
}

impl Change {
    /// Builds the change for a transition of the saga, and the lease after it.
    pub(super) fn by_saga(claimed: &Claimed, transition: &Transition, now: OffsetDateTime) -> Result<(Self, Claimed), Error> {
        let after = claimed.after(transition, now);
        let change = Self {
            keeps_lease: !after.saga.is_finished(),
            due_at: None,
            attempts: i64::from(after.saga.attempts),
            fence: Some(claimed.fence),
            ..Self::new(after.saga.order.clone(), transition, Actor::Saga)?
        };
        Ok((change, after))
    }

    /// Builds the change for a transition of `order` that a user requested.
    pub(super) fn by_user(order: Order, transition: &Transition, by: Actor, now: OffsetDateTime) -> Result<Self, Error> {
        Ok(Self { due_at: transition.release.then_some(now), ..Self::new(transition.apply(order, now), transition, by)? })
    }

    fn new(order: Order, transition: &Transition, by: Actor) -> Result<Self, Error> {
        Ok(Self {
            event: NewEvent::for_order(&order)?,
            order,
            from: transition.from,
            by,
            sets_prices: transition.priced.is_some(),
            release: transition.release,
            fence: None,
            keeps_lease: false,
            due_at: None,
            attempts: 0,
        })
    }
}
