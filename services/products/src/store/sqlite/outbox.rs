//! Transactional outbox in SQLite: triggers record each change in its transaction.

use async_trait::async_trait;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{SqliteStore, begin};
use crate::store::{
    database::{Error, from_millis, to_millis},
    roles::{OutboxStore, PendingChange},
};

#[async_trait]
impl OutboxStore for SqliteStore {
    async fn lease_relay(&self, relay: Uuid, now: OffsetDateTime, until: OffsetDateTime) -> Result<bool, Error> {
        let leased = sqlx::query(
            "INSERT INTO relay (only_one, relay, leased_until) VALUES (1, $1, $3)
             ON CONFLICT (only_one) DO UPDATE SET relay = excluded.relay, leased_until = excluded.leased_until
             WHERE relay.relay = excluded.relay OR relay.leased_until <= $2",
        )
        .bind(relay)
        .bind(to_millis(now))
        .bind(to_millis(until))
        .execute(&mut *self.writer.acquire().await?)
        .await?;
        Ok(leased.rows_affected() == 1)
    }

    async fn unpublished_changes(&self, limit: u32) -> Result<Vec<PendingChange>, Error> {
        let select = sqlx::query_as("SELECT product_id, version, since FROM news ORDER BY since LIMIT $1").bind(limit);
        let rows: Vec<(Uuid, i64, i64)> = select.fetch_all(&mut *self.readers.acquire().await?).await?;
        let change = |(product_id, version, since)| Ok(PendingChange { product_id, version, since: from_millis(since)? });
        rows.into_iter().map(change).collect()
    }

    async fn mark_published(&self, changes: Vec<PendingChange>) -> Result<(), Error> {
        let mut db = self.writer.acquire().await?;
        let mut transaction = begin(&mut db).await?;
        for change in changes {
            let delete = sqlx::query("DELETE FROM news WHERE product_id = $1 AND version = $2");
            delete.bind(change.product_id).bind(change.version).execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }
}
