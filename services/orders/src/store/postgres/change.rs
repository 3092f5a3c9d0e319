//! Writes of status changes in PostgreSQL.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    order::FailureReason,
    store::{change::Change, database::Error, orders::StoredResponse},
};

/// Compare-and-set on version and fence: updates the order only if it is unchanged and the lease is
/// valid. All other writes depend on that update.
const CHANGE: &str = "
    WITH changed AS (
        UPDATE orders SET
            status = $3, failure_reason = $4, total_minor = $5, version = $2, updated_at = $6, release_pending = $7,
            due_at = CASE WHEN $8 THEN due_at ELSE $9 END,
            fence = CASE WHEN $10::bigint IS NULL THEN fence + 1 ELSE fence END,
            attempts = $11, last_error = NULL
        WHERE id = $1 AND version = $2 - 1 AND ($10::bigint IS NULL OR fence = $10)
        RETURNING id, trace_parent
    ), priced AS (
        UPDATE order_lines SET name = priced_line.name, unit_price_minor = priced_line.price
        FROM changed, UNNEST($12::uuid[], $13::text[], $14::bigint[]) AS priced_line (product_id, name, price)
        WHERE order_id = changed.id AND order_lines.product_id = priced_line.product_id
    ), history AS (
        INSERT INTO order_history (order_id, version, from_status, to_status, reason, actor, at)
        SELECT id, $2, $15, $3, $4, $16, $6 FROM changed
    ), event AS (
        INSERT INTO outbox (event_id, order_id, version, kind, payload, trace_parent, created_at)
        SELECT $17, id, $2, $18, $19, trace_parent, $6 FROM changed
    ), response AS (
        UPDATE idempotency_keys SET answer = $22
        FROM changed WHERE subject = $20 AND key = $21 AND order_id = changed.id AND answer IS NULL
    )
    SELECT count(*) FROM changed";

/// Writes the change. Returns whether the order was updated.
pub(super) async fn write(db: &mut PgConnection, change: &Change, response: Option<&StoredResponse>) -> Result<bool, Error> {
    let order = &change.order;
    let snapshots = order.lines.iter().filter(|_| change.sets_prices).filter_map(|line| Some((line.product_id, line.snapshot.as_ref()?)));
    let (product_ids, (names, prices)): (Vec<Uuid>, (Vec<&str>, Vec<i64>)) =
        snapshots.map(|(product_id, snapshot)| (product_id, (snapshot.name.as_str(), snapshot.unit_price_minor))).unzip();
    let changed: i64 = sqlx::query_scalar(CHANGE)
        .bind(order.id.as_uuid())
        .bind(order.version)
        .bind(order.status.as_str())
        .bind(order.failure_reason.map(FailureReason::as_str))
        .bind(order.total_minor)
        .bind(order.updated_at)
        .bind(change.release)
        .bind(change.keeps_lease)
        .bind(change.due_at)
        .bind(change.fence)
        .bind(change.attempts)
        .bind(product_ids)
        .bind(names)
        .bind(prices)
        .bind(change.from.as_str())
        .bind(change.by.as_str())
        .bind(change.event.event_id)
        .bind(&change.event.kind)
        .bind(&change.event.payload)
        .bind(response.map(|response| response.key.subject.as_str()))
        .bind(response.map(|response| &response.key.key))
        .bind(response.map(|response| &response.bytes))
        .fetch_one(db)
        .await?;
    Ok(changed == 1)
}
