//! Order history: the state of an order at each of its statuses, from its history rows and its
//! current state.

use time::OffsetDateTime;

use super::{Error, sqlx_error::corrupt};
use crate::order::{Line, Order, Status};

/// Selects the history of order `$1` after version `$2`. Must be read before the order itself, so
/// that the order is at least as recent.
pub(super) const SELECT_AFTER: &str =
    "SELECT version, to_status, reason, at FROM order_history WHERE order_id = $1 AND version > $2 ORDER BY version";

/// Row of [`SELECT_AFTER`].
pub(super) type Row = (i64, String, Option<String>, OffsetDateTime);

/// Returns the state of `order` at each of `rows`.
pub(super) fn snapshots(order: &Order, rows: Vec<Row>) -> Result<Vec<Order>, Error> {
    let snapshot = |(version, status, reason, at): Row| {
        let status = status.parse().map_err(corrupt)?;
        let failure_reason = reason.as_deref().map(str::parse).transpose().map_err(corrupt)?;
        let order_then = Order { version, status, failure_reason, updated_at: at, ..order.clone() };
        Ok(if status == Status::Pending { without_prices(order_then) } else { order_then })
    };
    rows.into_iter().map(snapshot).collect()
}

/// Names and prices are set once, when the order leaves PENDING, or never.
fn without_prices(order: Order) -> Order {
    let lines = order.lines.into_iter().map(|line| Line { snapshot: None, ..line }).collect();
    Order { lines, total_minor: None, ..order }
}
