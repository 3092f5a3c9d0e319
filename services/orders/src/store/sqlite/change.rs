//! Writes of status changes and of stored responses in SQLite.

use sqlx::SqliteConnection;

use super::row::to_ms;
use crate::{
    order::{FailureReason, OrderId},
    store::{change::Change, database::Error, orders::StoredResponse},
};

/// Compare-and-set on version and fence. Returns `false` and writes nothing if the order has
/// changed or the lease is lost.
pub(super) async fn write(connection: &mut SqliteConnection, change: &Change) -> Result<bool, Error> {
    let order = &change.order;
    let id = order.id.as_uuid();
    let at = to_ms(order.updated_at);
    let changed = sqlx::query(
        "UPDATE orders SET
             status = $3, failure_reason = $4, total_minor = $5, version = $2, updated_at = $6, release_pending = $7,
             due_at = CASE WHEN $8 THEN due_at ELSE $9 END,
             fence = CASE WHEN $10 IS NULL THEN fence + 1 ELSE fence END,
             attempts = $11, last_error = NULL
         WHERE id = $1 AND version = $2 - 1 AND ($10 IS NULL OR fence = $10)",
    )
    .bind(id)
    .bind(order.version)
    .bind(order.status.as_str())
    .bind(order.failure_reason.map(FailureReason::as_str))
    .bind(order.total_minor)
    .bind(at)
    .bind(change.release)
    .bind(change.keeps_lease)
    .bind(change.due_at.map(to_ms))
    .bind(change.fence)
    .bind(change.attempts)
    .execute(&mut *connection)
    .await?;
    if changed.rows_affected() == 0 {
        return Ok(false);
    }
    for line in order.lines.iter().filter(|_| change.sets_prices) {
        sqlx::query("UPDATE order_lines SET name = $3, unit_price_minor = $4 WHERE order_id = $1 AND product_id = $2")
            .bind(id)
            .bind(line.product_id)
            .bind(line.snapshot.as_ref().map(|snapshot| &snapshot.name))
            .bind(line.snapshot.as_ref().map(|snapshot| snapshot.unit_price_minor))
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query(
        "INSERT INTO order_history (order_id, version, from_status, to_status, reason, actor, at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(id)
    .bind(order.version)
    .bind(change.from.as_str())
    .bind(order.status.as_str())
    .bind(order.failure_reason.map(FailureReason::as_str))
    .bind(change.by.as_str())
    .bind(at)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO outbox (event_id, order_id, version, kind, payload, trace_parent, created_at)
         SELECT $1, id, version, $2, $3, trace_parent, $4 FROM orders WHERE id = $5",
    )
    .bind(change.event.event_id)
    .bind(&change.event.kind)
    .bind(&change.event.payload)
    .bind(at)
    .bind(id)
    .execute(connection)
    .await?;
    Ok(true)
}

pub(super) async fn store_response(db: &mut SqliteConnection, id: OrderId, response: &StoredResponse) -> Result<(), Error> {
    sqlx::query("UPDATE idempotency_keys SET answer = $4 WHERE subject = $1 AND key = $2 AND order_id = $3 AND answer IS NULL")
        .bind(response.key.subject.as_str())
        .bind(&response.key.key)
        .bind(id.as_uuid())
        .bind(&response.bytes)
        .execute(db)
        .await?;
    Ok(())
}
