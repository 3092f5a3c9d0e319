//! Keyset pagination of orders, newest first. Concurrent inserts neither skip nor repeat orders.

use time::OffsetDateTime;

use crate::order::{Order, OrderId, Status};

/// Query for a page of orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// Owner filter.
    pub user_id: Option<String>,
    /// Status filter.
    pub status: Option<Status>,
    /// Maximum number of orders, at least 1.
    pub limit: u32,
    /// Keyset position after which the page starts.
    pub after: Option<Position>,
}

/// Page of orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Orders, newest first.
    pub orders: Vec<Order>,
    /// Position of the next page. `None` on the last page.
    pub next: Option<Position>,
}

/// Keyset position: the sort key of the last order before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// [`Order::created_at`].
    pub created_at: OffsetDateTime,
    /// [`Order::id`], the tie-breaker for orders of the same millisecond.
    pub id: OrderId,
}

impl Page {
    /// Builds a page from up to `limit` + 1 orders. The extra order shows that another page
    /// follows.
    pub(super) fn from_lookahead(mut orders: Vec<Order>, limit: u32) -> Self {
        let limit = limit as usize;
        let has_more = orders.len() > limit;
        orders.truncate(limit);
        let next = orders.last().filter(|_| has_more).map(|last| Position { created_at: last.created_at, id: last.id });
        Self { orders, next }
    }
}
