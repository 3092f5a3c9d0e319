//! Leases on due orders in PostgreSQL: claim, postpone, release.

use std::time::Duration;

use sqlx::{PgConnection, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::row::{self, columns, lines, saga_columns};
use crate::{
    order::OrderId,
    store::{Claimed, Error, FIRST_FENCE, StuckOrder, sqlx_error::corrupt},
};

/// SKIP LOCKED: replicas that claim concurrently skip each other's rows instead of waiting for
/// them.
const CLAIM: &str = concat!(
    "WITH due AS MATERIALIZED (SELECT id FROM orders WHERE due_at <= $1 ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED), \
     o AS (UPDATE orders SET due_at = $2, fence = fence + 1, attempts = attempts + 1 FROM due WHERE orders.id = due.id RETURNING orders.*) SELECT ",
    columns!(),
    saga_columns!(),
    " FROM o",
    lines!(),
);

pub(super) async fn claim_due(db: &mut PgConnection, now: OffsetDateTime, lease: Duration, limit: u32) -> Result<Vec<Claimed>, Error> {
    let rows = sqlx::query(CLAIM).bind(now).bind(now + lease).bind(i64::from(limit)).fetch_all(db).await?;
    rows.iter().map(row::claimed).collect()
}

pub(super) async fn postpone(
    db: &mut PgConnection,
    id: OrderId,
    fence: i64,
    due_at: OffsetDateTime,
    last_error: &str,
) -> Result<bool, Error> {
    let postponed = sqlx::query("UPDATE orders SET due_at = $3, last_error = $4 WHERE id = $1 AND fence = $2 AND due_at IS NOT NULL")
        .bind(id.as_uuid())
        .bind(fence)
        .bind(due_at)
        // PostgreSQL text cannot contain NUL.
        .bind(last_error.replace('\0', "\u{fffd}"))
        .execute(db)
        .await?;
    Ok(postponed.rows_affected() == 1)
}

pub(super) async fn release_done(db: &mut PgConnection, id: OrderId, fence: i64) -> Result<bool, Error> {
    let done = sqlx::query(
        "UPDATE orders SET release_pending = FALSE, due_at = NULL, last_error = NULL WHERE id = $1 AND fence = $2 AND release_pending",
    )
    .bind(id.as_uuid())
    .bind(fence)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn retry_now(db: &mut PgConnection, id: OrderId, now: OffsetDateTime) -> Result<bool, Error> {
    let due = sqlx::query("UPDATE orders SET due_at = $2, attempts = 0 WHERE id = $1 AND due_at IS NOT NULL")
        .bind(id.as_uuid())
        .bind(now)
        .execute(db)
        .await?;
    Ok(due.rows_affected() == 1)
}

pub(super) async fn expire_creator_lease(db: &mut PgConnection, id: OrderId, now: OffsetDateTime) -> Result<bool, Error> {
    let due = sqlx::query("UPDATE orders SET due_at = $2 WHERE id = $1 AND due_at IS NOT NULL AND fence = $3")
        .bind(id.as_uuid())
        .bind(now)
        .bind(FIRST_FENCE)
        .execute(db)
        .await?;
    Ok(due.rows_affected() == 1)
}

pub(super) async fn stuck(
    db: &mut PgConnection,
    unchanged_since: OffsetDateTime,
    attempts: u32,
    limit: u32,
) -> Result<Vec<StuckOrder>, Error> {
    let rows = sqlx::query(
        "SELECT id, status, release_pending, attempts, last_error, updated_at, due_at FROM orders
         WHERE due_at IS NOT NULL AND (updated_at <= $1 OR attempts >= $2) ORDER BY updated_at, id LIMIT $3",
    )
    .bind(unchanged_since)
    .bind(i64::from(attempts))
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    let stuck = rows.iter().map(|row| {
        Ok(StuckOrder {
            order_id: row.try_get::<Uuid, _>("id")?.into(),
            status: row.try_get::<&str, _>("status")?.parse().map_err(corrupt)?,
            release_pending: row.try_get("release_pending")?,
            attempts: row.try_get::<i64, _>("attempts")?.try_into().map_err(corrupt)?,
            last_error: row.try_get("last_error")?,
            updated_at: row.try_get("updated_at")?,
            due_at: row.try_get("due_at")?,
        })
    });
    stuck.collect()
}
