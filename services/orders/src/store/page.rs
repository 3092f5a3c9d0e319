//! Pages of orders: newest first, by position rather than by number, so that nothing is skipped or repeated while others insert.

use time::OffsetDateTime;

use crate::order::{Order, OrderId, Status};

/// Which orders to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// Only this user's.
    pub user_id: Option<String>,
    /// Only with this status.
    pub status: Option<Status>,
    /// At most so many, from 1.
    pub limit: u32,
    /// Only what comes after this.
    pub after: Option<Position>,
}

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Newest first.
    pub orders: Vec<Order>,
    /// Where the next page starts; absent on the last one.
    pub next: Option<Position>,
}

/// A place in the list: the sort key of the order before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// [`Order::created_at`].
    pub created_at: OffsetDateTime,
    /// [`Order::id`], which decides between orders of the same millisecond.
    pub id: OrderId,
}

impl Page {
    /// Makes a page of up to `limit` orders from one more than that.
    pub(super) fn from_lookahead(mut orders: Vec<Order>, limit: u32) -> Self {
        let limit = limit as usize;
        let has_more = orders.len() > limit;
        orders.truncate(limit);
        let next = orders.last().filter(|_| has_more).map(|last| Position { created_at: last.created_at, id: last.id });
        Self { orders, next }
    }
}
