//! Fulfilment queue in SQLite.

use std::time::Duration;

use async_trait::async_trait;
use palisade_middleware::{auth::Subject, clock};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{SqliteStore, row::to_ms};
use crate::{
    order::OrderId,
    store::{
        database::{Error, corrupt},
        fulfilment_queue::{DueFulfilment, FulfilmentQueue},
    },
};

#[async_trait]
impl FulfilmentQueue for SqliteStore {
    async fn claim_fulfilments(&self, now: OffsetDateTime, lease: Duration, limit: u32) -> Result<Vec<DueFulfilment>, Error> {
        let claim = sqlx::query_as(
            "UPDATE fulfilments SET due_at = $2, attempts = attempts + 1
             WHERE order_id IN (SELECT order_id FROM fulfilments WHERE due_at <= $1 ORDER BY due_at LIMIT $3)
             RETURNING order_id, (SELECT user_id FROM orders WHERE id = order_id), attempts",
        );
        let claim = claim.bind(to_ms(now)).bind(to_ms(clock::after(now, lease))).bind(limit);
        let rows: Vec<(Uuid, String, i64)> = claim.fetch_all(&mut *self.writer.acquire().await?).await?;
        let due = |(id, user_id, attempts): (Uuid, String, i64)| {
            let user_id = Subject::parse(&user_id).map_err(corrupt)?;
            Ok(DueFulfilment { order_id: id.into(), user_id, attempts: attempts.try_into().map_err(corrupt)? })
        };
        rows.into_iter().map(due).collect()
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
