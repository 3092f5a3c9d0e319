//! Status changes and removal in SQLite.

use sqlx::{Connection, SqliteConnection};
use time::OffsetDateTime;

use super::{create, read, timestamp::to_ms};
use crate::{
    order::{Actor, FailureReason, OrderId, Status},
    saga::{self, StatusChange, Transition},
    store::{Claimed, Error, RemoveResult, SetStatusResult, StoredResponse, TransitionResult, change::Change},
};

pub(super) async fn transition(
    db: &mut SqliteConnection,
    claimed: &Claimed,
    transition: &Transition,
    response: Option<&StoredResponse>,
    now: OffsetDateTime,
) -> Result<TransitionResult, Error> {
    let (change, after) = Change::by_saga(claimed, transition, now)?;
    let id = change.order.id;
    let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
    if !write(&mut transaction, &change).await? {
        let order = read::find_including_removed(&mut transaction, id).await?;
        return order.map(TransitionResult::Fenced).ok_or_else(|| Error::Corrupt(format!("order {id} does not exist")));
    }
    if let Some(response) = response {
        create::store_response(&mut transaction, id, response).await?;
    }
    transaction.commit().await?;
    Ok(TransitionResult::Applied(after))
}

pub(super) async fn set_status(
    db: &mut SqliteConnection,
    id: OrderId,
    to: Status,
    by: Actor,
    now: OffsetDateTime,
) -> Result<SetStatusResult, Error> {
    let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
    let Some(order) = read::find(&mut transaction, id).await? else { return Ok(SetStatusResult::NotFound) };
    match saga::request_status_change(order.status, to, by) {
        StatusChange::Unchanged => Ok(SetStatusResult::Unchanged(order)),
        StatusChange::Illegal(allowed) => Ok(SetStatusResult::Illegal { order, allowed }),
        StatusChange::Allowed(wanted) => {
            let change = Change::by_user(order, &wanted, by, now)?;
            if !write(&mut transaction, &change).await? {
                return Err(Error::Corrupt(format!("order {id} changed within the write transaction")));
            }
            transaction.commit().await?;
            Ok(SetStatusResult::Changed { from: change.from, order: change.order })
        }
    }
}

pub(super) async fn remove(db: &mut SqliteConnection, id: OrderId, now: OffsetDateTime) -> Result<RemoveResult, Error> {
    let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
    match read::find(&mut transaction, id).await? {
        None => return Ok(RemoveResult::NotFound),
        Some(order) if !order.status.is_terminal() => return Ok(RemoveResult::InProgress(order.status)),
        Some(_) => {}
    }
    sqlx::query("UPDATE orders SET deleted_at = $2 WHERE id = $1").bind(id.as_uuid()).bind(to_ms(now)).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(RemoveResult::Removed)
}

/// Compare-and-set on version and fence. Returns `false` and writes nothing if the order has
/// changed or the lease is lost.
async fn write(connection: &mut SqliteConnection, change: &Change) -> Result<bool, Error> {
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
            .bind(line.snapshot.as_ref().map(|copied| &copied.name))
            .bind(line.snapshot.as_ref().map(|copied| copied.unit_price_minor))
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
