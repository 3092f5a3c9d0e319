//! Fulfilment queue in SQLite.

use std::time::Duration;

use async_trait::async_trait;
use palisade_middleware::clock;
use time::OffsetDateTime;

use super::{SqliteStore, row::to_ms, saga_queue::quarantine};
use crate::{
    order::OrderId,
    store::{
        database::Error,
        fulfilment_queue::{ClaimedRow, DueFulfilment, FulfilmentQueue},
    },
};

#[async_trait]
impl FulfilmentQueue for SqliteStore {
    async fn claim_fulfilments(&self, now: OffsetDateTime, lease: Duration, limit: u32) -> Result<Vec<DueFulfilment>, Error> {
        let claim = sqlx::query_as(
            "UPDATE fulfilments SET due_at = $2, attempts = MIN(attempts, 4294967294) + 1
             WHERE order_id IN (
                 SELECT order_id FROM fulfilments
                 WHERE due_at <= $1 AND order_id NOT IN (SELECT order_id FROM quarantined_orders)
                 ORDER BY due_at LIMIT $3
             )
             RETURNING order_id, (SELECT user_id FROM orders WHERE id = order_id), attempts",
        );
        let claim = claim.bind(to_ms(now)).bind(to_ms(clock::after(now, lease))).bind(limit);
        let mut db = self.writer.acquire().await?;
        let rows: Vec<ClaimedRow> = claim.fetch_all(&mut *db).await?;
        let mut due = Vec::with_capacity(rows.len());
        for row in rows {
            let id = row.0;
            match DueFulfilment::decode(row) {
                Ok(fulfilment) => due.push(fulfilment),
                Err(error) => quarantine(&mut db, id, &error, now).await?,
            }
        }
        Ok(due)
    }

    async fn fulfilment_done(&self, id: OrderId) -> Result<(), Error> {
        let done = sqlx::query("DELETE FROM fulfilments WHERE order_id = $1").bind(id.as_uuid());
        done.execute(&mut *self.writer.acquire().await?).await?;
        Ok(())
    }

    async fn postpone_fulfilment(&self, id: OrderId, due_at: OffsetDateTime, last_error: String) -> Result<(), Error> {
        let postpone = sqlx::query("UPDATE fulfilments SET due_at = $2, last_error = $3 WHERE order_id = $1");
        postpone.bind(id.as_uuid()).bind(to_ms(due_at)).bind(last_error).execute(&mut *self.writer.acquire().await?).await?;
        Ok(())
    }
}
