//! Saga queue in PostgreSQL.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    PostgresStore, change,
    row::{self, columns, lines, saga_columns},
};
use crate::{
    order::OrderId,
    saga::Transition,
    store::{
        change::Change,
        database::{Error, corrupt},
        orders::{Claimed, StoredResponse},
        saga_queue::{SagaQueue, StuckOrder, TransitionResult},
    },
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

#[async_trait]
impl SagaQueue for PostgresStore {
    async fn claim_due(&self, now: OffsetDateTime, lease: Duration, limit: u32) -> Result<Vec<Claimed>, Error> {
        self.with_retries(|| async {
            let claim = sqlx::query(CLAIM).bind(now).bind(now + lease).bind(i64::from(limit));
            claim.fetch_all(&mut *self.pool.acquire().await?).await?.iter().map(row::claimed).collect()
        })
        .await
    }

    async fn transition(
        &self,
        claimed: Claimed,
        transition: Transition,
        response: Option<StoredResponse>,
        now: OffsetDateTime,
    ) -> Result<TransitionResult, Error> {
        self.with_retries(|| async {
            let (change, after) = Change::by_saga(&claimed, &transition, now)?;
            let mut db = self.pool.acquire().await?;
            if change::write(&mut db, &change, response.as_ref()).await? {
                return Ok(TransitionResult::Applied(after));
            }
            let order = row::find_including_removed(&mut db, change.order.id).await?;
            order.map(TransitionResult::Fenced).ok_or_else(|| Error::Corrupt(format!("order {} does not exist", change.order.id)))
        })
        .await
    }

    async fn postpone(&self, id: OrderId, fence: i64, due_at: OffsetDateTime, last_error: String) -> Result<bool, Error> {
        // PostgreSQL text cannot contain NUL.
        let last_error = last_error.replace('\0', "\u{fffd}");
        self.with_retries(|| async {
            let postpone =
                sqlx::query("UPDATE orders SET due_at = $3, last_error = $4 WHERE id = $1 AND fence = $2 AND due_at IS NOT NULL");
            let postpone = postpone.bind(id.as_uuid()).bind(fence).bind(due_at).bind(&last_error);
            Ok(postpone.execute(&mut *self.pool.acquire().await?).await?.rows_affected() == 1)
        })
        .await
    }

    async fn release_done(&self, id: OrderId, fence: i64) -> Result<bool, Error> {
        self.with_retries(|| async {
            let done = sqlx::query(
                "UPDATE orders SET release_pending = FALSE, due_at = NULL, last_error = NULL
                 WHERE id = $1 AND fence = $2 AND release_pending",
            );
            let done = done.bind(id.as_uuid()).bind(fence).execute(&mut *self.pool.acquire().await?).await?;
            Ok(done.rows_affected() == 1)
        })
        .await
    }

    async fn stuck(&self, unchanged_since: OffsetDateTime, attempts: u32, limit: u32) -> Result<Vec<StuckOrder>, Error> {
        let rows = sqlx::query(
            "SELECT id, status, release_pending, attempts, last_error, updated_at, due_at FROM orders
             WHERE due_at IS NOT NULL AND (updated_at <= $1 OR attempts >= $2)
             UNION ALL
             SELECT id, status, FALSE, f.attempts, f.last_error, updated_at, f.due_at FROM fulfilments f JOIN orders ON id = order_id
             WHERE updated_at <= $1 OR f.attempts >= $2
             ORDER BY updated_at, id LIMIT $3",
        )
        .bind(unchanged_since)
        .bind(i64::from(attempts))
        .bind(i64::from(limit))
        .fetch_all(&mut *self.pool.acquire().await?)
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

    async fn retry_now(&self, id: OrderId, now: OffsetDateTime) -> Result<bool, Error> {
        self.with_retries(|| async {
            let mut db = self.pool.acquire().await?;
            let due = sqlx::query("UPDATE orders SET due_at = $2, attempts = 0 WHERE id = $1 AND due_at IS NOT NULL");
            let due = due.bind(id.as_uuid()).bind(now).execute(&mut *db).await?;
            let fulfilment = sqlx::query("UPDATE fulfilments SET due_at = $2, attempts = 0 WHERE order_id = $1");
            let fulfilment = fulfilment.bind(id.as_uuid()).bind(now).execute(&mut *db).await?;
            Ok(due.rows_affected() + fulfilment.rows_affected() > 0)
        })
        .await
    }
}
