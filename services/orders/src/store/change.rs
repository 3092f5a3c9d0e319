//! A change of status as both databases write it: the order, its history row and its outbox row.

use time::OffsetDateTime;

use super::{Claimed, Error, outbox::NewEvent};
use crate::{
    order::{Actor, Order, Status},
    saga::Transition,
};

/// Everything one change writes.
pub(super) struct Change {
    /// The order as it is afterwards; it must have the version before this one.
    pub(super) order: Order,
    pub(super) from: Status,
    pub(super) by: Actor,
    /// Whether it copies names and prices onto the lines.
    pub(super) sets_prices: bool,
    pub(super) release: bool,
    /// The lease it is made under. A person needs none, and ends whatever lease there is.
    pub(super) fence: Option<i64>,
    /// Whether the lease goes on; else `due_at` says when a worker is needed.
    pub(super) keeps_lease: bool,
    pub(super) due_at: Option<OffsetDateTime>,
    pub(super) attempts: i64,
    pub(super) event: NewEvent,
}

impl Change {
    /// What the saga decided, and the lease as it goes on.
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

    /// What a person wants of `order`.
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
