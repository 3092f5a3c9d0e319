//! Saga queue in SQLite.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use palisade_middleware::clock;
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    SqliteStore,
    row::{self, columns, saga_columns, to_ms},
};
use crate::{
    order::OrderId,
    saga::{RevisionEnd, Transition},
    store::{
        batches,
        database::{Error, corrupt, readable},
        orders::{Claimed, StoredResponse},
        saga_queue::{QuarantinedOrder, SagaQueue, StuckOrder, TransitionResult},
    },
};

/// Selects the orders of this claim by `$1`, a JSON array of row ids.
const SELECT_CLAIMED: &str = concat!(
    "SELECT ",
    columns!(),
    saga_columns!(),
    " FROM orders o JOIN order_lines l ON l.order_id = o.id WHERE o.rowid IN (SELECT value FROM json_each($1)) ORDER BY o.id, l.position"
);

#[async_trait]
impl SagaQueue for SqliteStore {
    async fn claim_due(&self, now: OffsetDateTime, lease: Duration, limit: u32) -> Result<Vec<Claimed>, Error> {
        let mut db = self.writer.acquire().await?;
        let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
        let due: Vec<(i64, Uuid)> = sqlx::query_as(
            "SELECT rowid, id FROM orders WHERE due_at <= $1 AND id NOT IN (SELECT order_id FROM quarantined_orders)
             ORDER BY due_at LIMIT $2",
        )
        .bind(to_ms(now))
        .bind(limit)
        .fetch_all(&mut *transaction)
        .await?;
        let row_ids: Vec<i64> = due.iter().map(|(row_id, _)| *row_id).collect();
        let rows = sqlx::query(SELECT_CLAIMED).bind(serde_json::json!(row_ids).to_string()).fetch_all(&mut *transaction).await?;
        let mut readable: HashMap<Uuid, _> = row::claimed(&rows)?.into_iter().collect();
        let mut claimed = Vec::with_capacity(due.len());
        for (row_id, id) in due {
            let order = readable.remove(&id).unwrap_or_else(|| Err(Error::Corrupt("the order has no lines".to_owned())));
            match claim(&mut transaction, row_id, order, clock::after(now, lease)).await {
                Ok(order) => claimed.push(order),
                // One row at a time: a violated constraint undoes its own statement only.
                Err(error @ Error::Corrupt(_)) => quarantine(&mut transaction, id, &error, now).await?,
                Err(error) => return Err(error),
            }
        }
        transaction.commit().await?;
        Ok(claimed)
    }

    async fn extend_lease(&self, id: OrderId, fence: i64, until: OffsetDateTime) -> Result<bool, Error> {
        let extend = sqlx::query("UPDATE orders SET due_at = $3 WHERE id = $1 AND fence = $2 AND due_at IS NOT NULL");
        let extend = extend.bind(id.as_uuid()).bind(fence).bind(to_ms(until));
        Ok(extend.execute(&mut *self.writer.acquire().await?).await?.rows_affected() == 1)
    }

    async fn transition(
        &self,
        claimed: Claimed,
        transitions: Vec<Transition>,
        response: Option<StoredResponse>,
        now: OffsetDateTime,
    ) -> Result<TransitionResult, Error> {
        batches::transition(self, &self.changes, &claimed, &transitions, response, now).await
    }

    async fn end_revision(&self, claimed: Claimed, end: RevisionEnd, now: OffsetDateTime) -> Result<TransitionResult, Error> {
        self.end(&claimed, &end, now).await
    }

    async fn postpone(&self, id: OrderId, fence: i64, due_at: OffsetDateTime, last_error: String) -> Result<bool, Error> {
        let postpone = sqlx::query("UPDATE orders SET due_at = $3, last_error = $4 WHERE id = $1 AND fence = $2 AND due_at IS NOT NULL");
        let postpone = postpone.bind(id.as_uuid()).bind(fence).bind(to_ms(due_at)).bind(last_error);
        Ok(postpone.execute(&mut *self.writer.acquire().await?).await?.rows_affected() == 1)
    }

    async fn release_done(&self, id: OrderId, fence: i64) -> Result<bool, Error> {
        let done = sqlx::query(
            "UPDATE orders SET release_pending = FALSE, due_at = NULL, last_error = NULL
             WHERE id = $1 AND fence = $2 AND release_pending",
        );
        let done = done.bind(id.as_uuid()).bind(fence).execute(&mut *self.writer.acquire().await?).await?;
        Ok(done.rows_affected() == 1)
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
        .bind(to_ms(unchanged_since))
        .bind(attempts)
        .bind(limit)
        .fetch_all(&mut *self.readers.acquire().await?)
        .await?;
        let stuck = |row: &SqliteRow| {
            Ok(StuckOrder {
                order_id: row.try_get::<Uuid, _>("id")?.into(),
                status: row.try_get::<&str, _>("status")?.parse().map_err(corrupt)?,
                release_pending: row.try_get("release_pending")?,
                attempts: row.try_get::<i64, _>("attempts")?.try_into().map_err(corrupt)?,
                last_error: row.try_get("last_error")?,
                updated_at: row::time(row, "updated_at")?,
                due_at: row::time(row, "due_at")?,
            })
        };
        // An unreadable order is listed in the quarantine.
        Ok(rows.iter().map(stuck).filter_map(Result::<_, Error>::ok).collect())
    }

    async fn quarantined(&self, limit: u32) -> Result<Vec<QuarantinedOrder>, Error> {
        let select = sqlx::query("SELECT order_id, reason, since FROM quarantined_orders ORDER BY since, order_id LIMIT $1");
        let rows = select.bind(limit).fetch_all(&mut *self.readers.acquire().await?).await?;
        let quarantined = rows.iter().map(|row| {
            let order_id = row.try_get::<Uuid, _>("order_id")?.into();
            Ok(QuarantinedOrder { order_id, reason: row.try_get("reason")?, since: row::time(row, "since")? })
        });
        Ok(quarantined.filter_map(|row| readable("quarantined_orders", row)).collect())
    }

    async fn retry_now(&self, id: OrderId, now: OffsetDateTime) -> Result<bool, Error> {
        let mut db = self.writer.acquire().await?;
        let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("DELETE FROM quarantined_orders WHERE order_id = $1").bind(id.as_uuid()).execute(&mut *transaction).await?;
        let due = sqlx::query("UPDATE orders SET due_at = $2, attempts = 0 WHERE id = $1 AND due_at IS NOT NULL");
        let due = due.bind(id.as_uuid()).bind(to_ms(now)).execute(&mut *transaction).await?;
        let fulfilment = sqlx::query("UPDATE fulfilments SET due_at = $2, attempts = 0 WHERE order_id = $1");
        let fulfilment = fulfilment.bind(id.as_uuid()).bind(to_ms(now)).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(due.rows_affected() + fulfilment.rows_affected() > 0)
    }
}

/// Leases an order that was read before, within the same transaction.
async fn claim(
    db: &mut SqliteConnection,
    row_id: i64,
    order: Result<Claimed, Error>,
    leased_until: OffsetDateTime,
) -> Result<Claimed, Error> {
    let mut claimed = order?;
    let (fence, attempts) = sqlx::query_as::<_, (i64, i64)>(
        "UPDATE orders SET due_at = $2, fence = fence + 1, attempts = attempts + 1 WHERE rowid = $1 RETURNING fence, attempts",
    )
    .bind(row_id)
    .bind(to_ms(leased_until))
    .fetch_one(db)
    .await?;
    claimed.fence = fence;
    claimed.saga.attempts = attempts.try_into().map_err(corrupt)?;
    Ok(claimed)
}

pub(super) async fn quarantine(db: &mut SqliteConnection, id: Uuid, error: &Error, now: OffsetDateTime) -> Result<(), Error> {
    tracing::error!(order_id = %id, error = error as &dyn std::error::Error, "unreadable order put into quarantine");
    sqlx::query("INSERT OR IGNORE INTO quarantined_orders (order_id, reason, since) VALUES ($1, $2, $3)")
        .bind(id)
        .bind(error.to_string())
        .bind(to_ms(now))
        .execute(db)
        .await?;
    Ok(())
}
