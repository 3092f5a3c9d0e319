//! Retention: settled orders past their lifetime, and their deletion.

use std::collections::HashMap;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    database::{Error, readable},
    instrumented::instrumented_role,
};
use crate::order::{Order, OrderId, Status};

instrumented_role! {
    /// Orders that nothing will change any more.
    pub trait RetentionStore {
        /// Returns up to `limit` settled orders with `status` that have not changed since `before`,
        /// longest unchanged first, after the position `after`. Settled: in a terminal status, with
        /// no release, fulfilment or publication pending. Leaves out orders that cannot be read.
        async fn settled_orders(
            &self,
            status: Status,
            before: OffsetDateTime,
            after: Option<SettledPosition>,
            limit: u32,
        ) -> Result<SettledPage, Error> = call("settled_orders", "orders");

        /// Deletes these orders with their lines, history and events, and returns their number.
        /// Keeps those that are not settled.
        async fn delete_settled(&self, ids: Vec<OrderId>) -> Result<u64, Error> = call("delete_settled", "orders");
    }
}

/// Page of settled orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettledPage {
    /// The orders, longest unchanged first.
    pub orders: Vec<SettledOrder>,
    /// Position of the next page. `None` on the last page.
    pub next: Option<SettledPosition>,
}

/// Settled order with its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettledOrder {
    /// The order.
    pub order: Order,
    /// Its statuses, oldest first.
    pub history: Vec<RecordedChange>,
}

/// Row of the history of an order, with the names of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedChange {
    /// Version of the order after the change.
    pub version: i64,
    /// Previous status. `None` for the first one.
    pub from: Option<String>,
    /// New status.
    pub to: String,
    /// Failure reason, or the step of a revision.
    pub reason: Option<String>,
    /// Lines that a revision replaced, as JSON.
    pub replaced_lines: Option<String>,
    /// Role of the actor. `None` for the first one.
    pub actor: Option<String>,
    /// User that the change was made for.
    pub actor_subject: Option<String>,
    /// Service that made the change.
    pub actor_service: Option<String>,
    /// Time of the change.
    pub at: OffsetDateTime,
}

/// Keyset position in the settled orders of a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettledPosition {
    /// [`Order::updated_at`].
    pub updated_at: OffsetDateTime,
    /// [`Order::id`], the tie-breaker for orders of the same time.
    pub id: OrderId,
}

/// Condition of orders in a terminal status without a release. The index `orders_settled` has the
/// same one. A constraint sets the due time of every order with a release.
macro_rules! settled {
    () => {
        "due_at IS NULL AND status IN ('FAILED', 'COMPLETED', 'CANCELLED')"
    };
}

/// Condition of orders without a fulfilment or publication.
macro_rules! nothing_pending {
    () => {
        " AND NOT EXISTS (SELECT 1 FROM fulfilments WHERE order_id = orders.id) \
         AND NOT EXISTS (SELECT 1 FROM outbox WHERE order_id = orders.id AND published_at IS NULL)"
    };
}

/// Columns of a [`RecordedChange`], after the id of its order.
macro_rules! history_columns {
    () => {
        "order_id, version, from_status, to_status, coalesce(reason, revision) AS reason, replaced_lines, actor, actor_subject, actor_service, at"
    };
}

pub(super) use {history_columns, nothing_pending, settled};

/// Maximum number of history rows of a page: those of revisions are long.
const MAX_HISTORY_ROWS: i64 = 1_000;

/// Returns how many orders with these versions fit in a page, at least one. The version counts the
/// history rows of an order.
pub(super) fn fitting(versions: impl Iterator<Item = i64>) -> usize {
    let rows = versions.scan(0_i64, |rows, version| {
        *rows = rows.saturating_add(version.max(1));
        Some(*rows)
    });
    rows.take_while(|rows| *rows <= MAX_HISTORY_ROWS).count().max(1)
}

impl SettledPosition {
    /// Position before all others.
    pub(super) const START: Self = Self { updated_at: OffsetDateTime::UNIX_EPOCH, id: OrderId::NIL };
}

impl SettledPage {
    /// Joins orders and their history. Leaves out orders of which a row cannot be read.
    pub(super) fn new(
        orders: Vec<Result<Order, Error>>,
        history: Vec<(Uuid, Result<RecordedChange, Error>)>,
        next: Option<SettledPosition>,
    ) -> Self {
        let mut entries: HashMap<Uuid, Vec<Result<RecordedChange, Error>>> = HashMap::new();
        for (id, entry) in history {
            entries.entry(id).or_default().push(entry);
        }
        let join = |order: Result<Order, Error>| {
            let order = order?;
            let history = entries.remove(&order.id.as_uuid()).unwrap_or_default().into_iter().collect::<Result<_, Error>>()?;
            Ok(SettledOrder { order, history })
        };
        let orders = orders.into_iter().map(join).filter_map(|order| readable("orders", order));
        Self { orders: orders.collect(), next }
    }
}
