//! Order queries: keyset pagination, and the state of an order at each of its statuses.

use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use super::{
    database::{Error, corrupt, readable},
    revisions,
};
use palisade_middleware::auth::Subject;

use crate::order::{HistoryEntry, Line, Order, OrderId, Role, Status};

/// Selects the history of order `$1` after version `$2` and up to version `$3`, which the order was
/// read in.
pub(super) const SELECT_HISTORY: &str = "SELECT version, to_status, reason, at, replaced_lines FROM order_history WHERE order_id = $1 AND version > $2 AND version <= $3 ORDER BY version";

/// Selects the first `$2` changes of order `$1`.
pub(super) const SELECT_CHANGES: &str = "
    SELECT version, from_status, to_status, coalesce(reason, revision) AS reason, actor, actor_subject, actor_service, at
    FROM order_history
    WHERE order_id = $1 ORDER BY version LIMIT $2";

/// Query for a page of orders, newest first. Concurrent inserts neither skip nor repeat orders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    /// Owner filter.
    pub user_id: Option<Subject>,
    /// Status filter.
    pub status: Option<Status>,
    /// Product filter: only orders with a line of it.
    pub product_id: Option<Uuid>,
    /// Earliest time of acceptance, in whole milliseconds.
    pub created_from: Option<OffsetDateTime>,
    /// End of the range of the time of acceptance, exclusive, in whole milliseconds.
    pub created_to: Option<OffsetDateTime>,
    /// Whether the page includes removed orders.
    pub with_removed: bool,
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

impl Position {
    /// Position before all orders with a readable time.
    const NEWEST: Self = Self { created_at: datetime!(9999-12-31 23:59:59.999 UTC), id: OrderId::MAX };
}

impl List {
    /// Returns the product whose lines the list walks instead of an index of the orders. A user, or
    /// a status of unfinished orders, selects fewer orders than a product does.
    pub(super) fn walked_product(&self) -> Option<Uuid> {
        self.product_id.filter(|_| self.user_id.is_none() && !self.status.is_some_and(Status::is_in_progress))
    }

    /// Number of rows to select: one order more than the page.
    pub(super) fn lookahead(&self) -> i64 {
        i64::from(self.limit) + 1
    }
}

impl Position {
    fn of(order: &Order) -> Self {
        Self { created_at: order.created_at, id: order.id }
    }
}

/// Row of [`SELECT_HISTORY`].
pub(super) type HistoryRow = (i64, String, Option<String>, OffsetDateTime, Option<String>);

/// Row of [`SELECT_CHANGES`].
#[derive(Debug, sqlx::FromRow)]
pub(super) struct ChangeRow<Time> {
    version: i64,
    from_status: Option<String>,
    to_status: String,
    reason: Option<String>,
    actor: Option<String>,
    actor_subject: Option<String>,
    actor_service: Option<String>,
    pub(super) at: Time,
}

impl<Time> ChangeRow<Time> {
    /// Decodes the row, whose time is `at`.
    pub(super) fn decode(self, at: OffsetDateTime) -> Result<HistoryEntry, Error> {
        Ok(HistoryEntry {
            version: self.version,
            from: self.from_status.as_deref().map(str::parse).transpose().map_err(corrupt)?,
            to: self.to_status.parse().map_err(corrupt)?,
            reason: self.reason,
            role: self.actor.as_deref().map(str::parse::<Role>).transpose().map_err(corrupt)?,
            subject: self.actor_subject.as_deref().map(Subject::parse).transpose().map_err(corrupt)?,
            service: self.actor_service,
            at,
        })
    }
}

impl Page {
    /// Builds a page from up to `limit` + 1 rows. The extra row shows that another page follows.
    /// Leaves out unreadable orders; `positions` are those of all rows, as far as they are
    /// readable.
    pub(super) fn from_lookahead(rows: Vec<Result<Order, Error>>, positions: &[Option<Position>], query: &List) -> Self {
        let limit = query.limit as usize;
        let has_more = rows.len() > limit;
        let last = positions.iter().take(limit).flatten().next_back().copied();
        // A first page of unreadable times only: they lie in the far future, before all others.
        let last = last.or_else(|| query.after.is_none().then_some(Position::NEWEST));
        let orders = rows.into_iter().take(limit).filter_map(|row| readable("orders", row));
        Self { orders: orders.collect(), next: last.filter(|_| has_more) }
    }

    /// Returns a page of the first `count` orders, at least 1. The others begin the next page.
    #[must_use]
    pub fn truncated(mut self, count: usize) -> Self {
        if count < self.orders.len() {
            self.orders.truncate(count);
            self.next = self.orders.last().map(Position::of);
        }
        self
    }
}

/// Returns a list for each combination of filters: of one user, of each status, of each product, of
/// a range, and of a later page.
#[cfg(test)]
pub(super) fn combinations(user: &'static str, products: [Uuid; 2], range: (OffsetDateTime, OffsetDateTime)) -> Vec<List> {
    let mut lists = vec![List { limit: 20, ..List::default() }];
    let mut multiply = |variants: &dyn Fn(&List) -> Vec<List>| lists = lists.iter().flat_map(variants).collect();
    multiply(&|list| [None, Some(user.into())].map(|user_id| List { user_id, ..list.clone() }).into());
    multiply(&|list| {
        [None, Some(Status::Pending), Some(Status::Confirmed), Some(Status::Failed)].map(|status| List { status, ..list.clone() }).into()
    });
    multiply(&|list| [None, Some(products[0]), Some(products[1])].map(|product_id| List { product_id, ..list.clone() }).into());
    multiply(&|list| [None, Some(range.0)].map(|created_from| List { created_from, ..list.clone() }).into());
    multiply(&|list| [None, Some(range.1)].map(|created_to| List { created_to, ..list.clone() }).into());
    multiply(&|list| [false, true].map(|with_removed| List { with_removed, ..list.clone() }).into());
    let position = Position { created_at: range.1, id: crate::order::min_uuid_at(range.1).into() };
    multiply(&|list| [None, Some(position)].map(|after| List { after, ..list.clone() }).into());
    lists
}

/// Returns the state of `order` at each of the rows of its history, which end with its current
/// version.
pub(super) fn snapshots(order: &Order, history: Vec<HistoryRow>) -> Result<Vec<Order>, Error> {
    let mut snapshots = Vec::with_capacity(history.len());
    let (mut lines, mut total_minor) = (order.lines.clone(), order.total_minor);
    // Backwards, because a revision stores the lines that it replaced.
    for (version, status, reason, at, replaced_lines) in history.into_iter().rev() {
        let then = if version == order.version {
            order.clone()
        } else {
            let status = status.parse().map_err(corrupt)?;
            let failure_reason = reason.as_deref().map(str::parse).transpose().map_err(corrupt)?;
            let lines = lines.clone();
            Order { version, status, failure_reason, updated_at: at, lines, total_minor, revision: None, ..order.clone() }
        };
        snapshots.push(if then.status == Status::Pending { without_prices(then) } else { then });
        if let Some(replaced) = replaced_lines {
            lines = revisions::decode_lines(&replaced)?;
            total_minor = lines.iter().map(Line::subtotal_minor).sum();
        }
    }
    snapshots.reverse();
    Ok(snapshots)
}

/// Names and prices are set once, when the order leaves PENDING, or never.
fn without_prices(order: Order) -> Order {
    let lines = order.lines.into_iter().map(|line| Line { snapshot: None, ..line }).collect();
    Order { lines, total_minor: None, ..order }
}
