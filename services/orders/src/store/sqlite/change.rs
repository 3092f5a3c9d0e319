//! Changing an order's status, and hiding it.

use sqlx::{Connection, SqliteConnection};
use time::OffsetDateTime;

use super::{create, moment::to_ms, read};
use crate::{
    order::{Actor, FailureReason, OrderId, Status},
    saga::{self, Transition, Wish},
    store::{Answer, Claimed, Error, Removal, StatusSet, Transitioned, change::Change},
};

pub(super) async fn transition(
    db: &mut SqliteConnection,
    claimed: &Claimed,
    transition: &Transition,
    answer: Option<&Answer>,
    now: OffsetDateTime,
) -> Result<Transitioned, Error> {
    let (change, after) = Change::of_saga(claimed, transition, now)?;
    let id = change.order.id;
    let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
    if !write(&mut transaction, &change).await? {
        let order = read::find_even_removed(&mut transaction, id).await?;
        return order.map(Transitioned::Fenced).ok_or_else(|| Error::Corrupt(format!("order {id} is gone")));
    }
    if let Some(answer) = answer {
        create::store_answer(&mut transaction, id, answer).await?;
    }
    transaction.commit().await?;
    Ok(Transitioned::Applied(after))
}

pub(super) async fn set_status(
    db: &mut SqliteConnection,
    id: OrderId,
    to: Status,
    by: Actor,
    now: OffsetDateTime,
) -> Result<StatusSet, Error> {
    let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
    let Some(order) = read::find(&mut transaction, id).await? else { return Ok(StatusSet::NotFound) };
    match saga::wish(order.status, to, by) {
        Wish::Same => Ok(StatusSet::Same(order)),
        Wish::Illegal(allowed) => Ok(StatusSet::Illegal { order, allowed }),
        Wish::Granted(wanted) => {
            let change = Change::of_person(order, &wanted, by, now)?;
            if !write(&mut transaction, &change).await? {
                return Err(Error::Corrupt(format!("order {id} changed under a lock")));
            }
            transaction.commit().await?;
            Ok(StatusSet::Changed { from: change.from, order: change.order })
        }
    }
}

pub(super) async fn remove(db: &mut SqliteConnection, id: OrderId, now: OffsetDateTime) -> Result<Removal, Error> {
    let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
    match read::find(&mut transaction, id).await? {
        None => return Ok(Removal::NotFound),
        Some(order) if !order.status.is_terminal() => return Ok(Removal::InProgress(order.status)),
        Some(_) => {}
    }
    sqlx::query("UPDATE orders SET deleted_at = $2 WHERE id = $1").bind(id.as_uuid()).bind(to_ms(now)).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(Removal::Removed)
}

/// Whether the order was as the change expects it; if not, nothing is written.
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
    for line in order.lines.iter().filter(|_| change.prices) {
        sqlx::query("UPDATE order_lines SET name = $3, unit_price_minor = $4 WHERE order_id = $1 AND product_id = $2")
            .bind(id)
            .bind(line.product_id)
            .bind(line.copied.as_ref().map(|copied| &copied.name))
            .bind(line.copied.as_ref().map(|copied| copied.unit_price_minor))
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
    .bind(change.news.event_id)
    .bind(&change.news.kind)
    .bind(&change.news.payload)
    .bind(at)
    .bind(id)
    .execute(connection)
    .await?;
    Ok(true)
}
