//! Leases on due orders in SQLite: claim, postpone, release.

use std::time::Duration;

use sqlx::{Connection, Row, SqliteConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    row::{self, columns, saga_columns},
    timestamp::to_ms,
};
use crate::{
    order::OrderId,
    store::{Claimed, Error, FIRST_FENCE, StuckOrder, sqlx_error::corrupt},
};

/// Selects the orders of this claim by `$1`, a JSON array of row ids.
const SELECT_CLAIMED: &str = concat!(
    "SELECT ",
    columns!(),
    saga_columns!(),
    " FROM orders o JOIN order_lines l ON l.order_id = o.id WHERE o.rowid IN (SELECT value FROM json_each($1)) ORDER BY o.id, l.position"
);

pub(super) async fn claim_due(db: &mut SqliteConnection, now: OffsetDateTime, lease: Duration, limit: u32) -> Result<Vec<Claimed>, Error> {
    let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
    let rows: Vec<i64> = sqlx::query_scalar(
        "UPDATE orders SET due_at = $2, fence = fence + 1, attempts = attempts + 1
         WHERE rowid IN (SELECT rowid FROM orders WHERE due_at <= $1 ORDER BY due_at LIMIT $3) RETURNING rowid",
    )
    .bind(to_ms(now))
    .bind(to_ms(now + lease))
    .bind(limit)
    .fetch_all(&mut *transaction)
    .await?;
    let rows = sqlx::query(SELECT_CLAIMED).bind(serde_json::json!(rows).to_string()).fetch_all(&mut *transaction).await?;
    let claimed = row::claimed(&rows)?;
    transaction.commit().await?;
    Ok(claimed)
}

pub(super) async fn postpone(
    db: &mut SqliteConnection,
    id: OrderId,
    fence: i64,
    due_at: OffsetDateTime,
    last_error: &str,
) -> Result<bool, Error> {
    let postponed = sqlx::query("UPDATE orders SET due_at = $3, last_error = $4 WHERE id = $1 AND fence = $2 AND due_at IS NOT NULL")
        .bind(id.as_uuid())
        .bind(fence)
        .bind(to_ms(due_at))
        .bind(last_error)
        .execute(db)
        .await?;
    Ok(postponed.rows_affected() == 1)
}

pub(super) async fn release_done(db: &mut SqliteConnection, id: OrderId, fence: i64) -> Result<bool, Error> {
    let done = sqlx::query(
        "UPDATE orders SET release_pending = FALSE, due_at = NULL, last_error = NULL WHERE id = $1 AND fence = $2 AND release_pending",
    )
    .bind(id.as_uuid())
    .bind(fence)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn retry_now(db: &mut SqliteConnection, id: OrderId, now: OffsetDateTime) -> Result<bool, Error> {
    let due = sqlx::query("UPDATE orders SET due_at = $2, attempts = 0 WHERE id = $1 AND due_at IS NOT NULL")
        .bind(id.as_uuid())
        .bind(to_ms(now))
        .execute(db)
        .await?;
    Ok(due.rows_affected() == 1)
}

pub(super) async fn expire_creator_lease(db: &mut SqliteConnection, id: OrderId, now: OffsetDateTime) -> Result<bool, Error> {
    let due = sqlx::query("UPDATE orders SET due_at = $2 WHERE id = $1 AND due_at IS NOT NULL AND fence = $3")
        .bind(id.as_uuid())
        .bind(to_ms(now))
        .bind(FIRST_FENCE)
        .execute(db)
        .await?;
    Ok(due.rows_affected() == 1)
}

pub(super) async fn stuck(
    db: &mut SqliteConnection,
    unchanged_since: OffsetDateTime,
    attempts: u32,
    limit: u32,
) -> Result<Vec<StuckOrder>, Error> {
    let rows = sqlx::query(
        "SELECT id, status, release_pending, attempts, last_error, updated_at, due_at FROM orders
         WHERE due_at IS NOT NULL AND (updated_at <= $1 OR attempts >= $2) ORDER BY updated_at, id LIMIT $3",
    )
    .bind(to_ms(unchanged_since))
    .bind(attempts)
    .bind(limit)
    .fetch_all(db)
    .await?;
    let stuck = rows.iter().map(|row| {
        Ok(StuckOrder {
            order_id: row.try_get::<Uuid, _>("id")?.into(),
            status: row.try_get::<&str, _>("status")?.parse().map_err(corrupt)?,
            release_pending: row.try_get("release_pending")?,
            attempts: row.try_get::<i64, _>("attempts")?.try_into().map_err(corrupt)?,
            last_error: row.try_get("last_error")?,
            updated_at: row::time(row, "updated_at")?,
            due_at: row::time(row, "due_at")?,
        })
    });
    stuck.collect()
}
