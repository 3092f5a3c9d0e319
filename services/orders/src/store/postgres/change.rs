//! Status changes and removal in PostgreSQL.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::read;
use crate::{
    order::{Actor, FailureReason, OrderId, Status},
    saga::{self, StatusChange, Transition},
    store::{Claimed, Error, RemoveResult, SetStatusResult, StoredResponse, TransitionResult, change::Change},
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
    ), copied AS (
        UPDATE order_lines SET name = copied.name, unit_price_minor = copied.price
        FROM changed, UNNEST($12::uuid[], $13::text[], $14::bigint[]) AS copied (product_id, name, price)
        WHERE order_id = changed.id AND order_lines.product_id = copied.product_id
    ), history AS (
        INSERT INTO order_history (order_id, version, from_status, to_status, reason, actor, at)
        SELECT id, $2, $15, $3, $4, $16, $6 FROM changed
    ), news AS (
        INSERT INTO outbox (event_id, order_id, version, kind, payload, trace_parent, created_at)
        SELECT $17, id, $2, $18, $19, trace_parent, $6 FROM changed
    ), answered AS (
        UPDATE idempotency_keys SET answer = $22
        FROM changed WHERE subject = $20 AND key = $21 AND order_id = changed.id AND answer IS NULL
    )
    SELECT count(*) FROM changed";

pub(super) async fn transition(
    db: &mut PgConnection,
    claimed: &Claimed,
    transition: &Transition,
    response: Option<&StoredResponse>,
    now: OffsetDateTime,
) -> Result<TransitionResult, Error> {
    let (change, after) = Change::by_saga(claimed, transition, now)?;
    if write(db, &change, response).await? {
        return Ok(TransitionResult::Applied(after));
    }
    let order = read::find_including_removed(db, change.order.id).await?;
    order.map(TransitionResult::Fenced).ok_or_else(|| Error::Corrupt(format!("order {} does not exist", change.order.id)))
}

pub(super) async fn set_status(
    db: &mut PgConnection,
    id: OrderId,
    to: Status,
    by: Actor,
    now: OffsetDateTime,
) -> Result<SetStatusResult, Error> {
    // Terminates: after each lost race the order has a later status, and the number of statuses is
    // bounded.
    loop {
        let Some(order) = read::find(db, id).await? else { return Ok(SetStatusResult::NotFound) };
        match saga::request_status_change(order.status, to, by) {
            StatusChange::Unchanged => return Ok(SetStatusResult::Unchanged(order)),
            StatusChange::Illegal(allowed) => return Ok(SetStatusResult::Illegal { order, allowed }),
            StatusChange::Allowed(transition) => {
                let change = Change::by_user(order, &transition, by, now)?;
                if write(db, &change, None).await? {
                    return Ok(SetStatusResult::Changed { from: change.from, order: change.order });
                }
            }
        }
    }
}

pub(super) async fn remove(db: &mut PgConnection, id: OrderId, now: OffsetDateTime) -> Result<RemoveResult, Error> {
    match read::find(db, id).await? {
        None => return Ok(RemoveResult::NotFound),
        Some(order) if !order.status.is_terminal() => return Ok(RemoveResult::InProgress(order.status)),
        Some(_) => {}
    }
    let hidden = sqlx::query("UPDATE orders SET deleted_at = $2 WHERE id = $1 AND deleted_at IS NULL")
        .bind(id.as_uuid())
        .bind(now)
        .execute(db)
        .await?;
    Ok(if hidden.rows_affected() == 1 { RemoveResult::Removed } else { RemoveResult::NotFound })
}

/// Writes the change. Returns whether the order was updated.
async fn write(db: &mut PgConnection, change: &Change, response: Option<&StoredResponse>) -> Result<bool, Error> {
    let order = &change.order;
    let snapshots = order.lines.iter().filter(|_| change.sets_prices).filter_map(|line| Some((line.product_id, line.snapshot.as_ref()?)));
    let (product_ids, (names, prices)): (Vec<Uuid>, (Vec<&str>, Vec<i64>)) =
        snapshots.map(|(product_id, snapshots)| (product_id, (snapshots.name.as_str(), snapshots.unit_price_minor))).unzip();
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
        .bind(response.map(|answer| &answer.key.subject))
        .bind(response.map(|answer| &answer.key.key))
        .bind(response.map(|answer| &answer.bytes))
        .fetch_one(db)
        .await?;
    Ok(changed == 1)
}
