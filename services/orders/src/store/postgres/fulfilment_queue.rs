//! Fulfilment queue in PostgreSQL.

use std::time::Duration;

use async_trait::async_trait;
use palisade_middleware::clock;
use time::OffsetDateTime;

use super::PostgresStore;
use crate::{
    order::OrderId,
    store::{
        database::Error,
        fulfilment_queue::{ClaimedRow, DueFulfilment, FulfilmentQueue},
    },
};

/// SKIP LOCKED: replicas that claim concurrently skip each other's rows instead of waiting for
/// them.
const CLAIM: &str = "
    WITH due AS MATERIALIZED (
             SELECT order_id FROM fulfilments
             WHERE due_at <= $1 AND NOT EXISTS (SELECT FROM quarantined_orders q WHERE q.order_id = fulfilments.order_id)
             ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED
         ),
         claimed AS (
             UPDATE fulfilments SET due_at = $2, attempts = LEAST(attempts, 4294967294) + 1 FROM due
             WHERE fulfilments.order_id = due.order_id
             RETURNING fulfilments.order_id, attempts
         )
    SELECT order_id, user_id, claimed.attempts FROM claimed JOIN orders ON orders.id = order_id";

#[async_trait]
impl FulfilmentQueue for PostgresStore {
    async fn claim_fulfilments(&self, now: OffsetDateTime, lease: Duration, limit: u32) -> Result<Vec<DueFulfilment>, Error> {
        let claim = || async {
            let claim = sqlx::query_as(CLAIM).bind(now).bind(clock::after(now, lease)).bind(i64::from(limit));
            Ok(claim.fetch_all(&mut *self.pool.acquire().await?).await?)
        };
        let rows: Vec<ClaimedRow> = self.with_retries(claim).await?;
        let mut due = Vec::with_capacity(rows.len());
        for row in rows {
            let id = row.0;
            match DueFulfilment::decode(row) {
                Ok(fulfilment) => due.push(fulfilment),
                Err(error) => self.quarantine(id, &error, now).await?,
            }
        }
        Ok(due)
    }

    async fn fulfilment_done(&self, id: OrderId) -> Result<(), Error> {
        self.with_retries(|| async {
            let done = sqlx::query("DELETE FROM fulfilments WHERE order_id = $1").bind(id.as_uuid());
            done.execute(&mut *self.pool.acquire().await?).await?;
            Ok(())
        })
        .await
    }

    async fn postpone_fulfilment(&self, id: OrderId, due_at: OffsetDateTime, last_error: String) -> Result<(), Error> {
        self.with_retries(|| async {
            let postpone = sqlx::query("UPDATE fulfilments SET due_at = $2, last_error = $3 WHERE order_id = $1");
            postpone.bind(id.as_uuid()).bind(due_at).bind(&last_error).execute(&mut *self.pool.acquire().await?).await?;
            Ok(())
        })
        .await
    }
}
