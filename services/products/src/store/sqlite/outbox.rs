//! Transactional outbox in SQLite: triggers record each change in its transaction.

use async_trait::async_trait;
use palisade_events::{Destination, Lease};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{SqliteStore, begin};
use crate::store::{
    database::{Error, from_millis, readable, to_millis},
    roles::{OutboxStore, PendingChange},
};

#[async_trait]
impl OutboxStore for SqliteStore {
    async fn lease_relay(&self, relay: Uuid, destination: Destination, now: OffsetDateTime, until: OffsetDateTime) -> Result<Lease, Error> {
        let mut db = self.writer.acquire().await?;
        let leased = sqlx::query(
            "INSERT INTO relay (only_one, relay, leased_until, destination) VALUES (1, $1, $3, $4)
             ON CONFLICT (only_one) DO UPDATE
                 SET relay = excluded.relay, leased_until = excluded.leased_until, destination = excluded.destination
             WHERE (excluded.destination = 'broker' OR relay.destination <> 'broker')
                 AND (relay.relay = excluded.relay OR relay.leased_until <= $2
                     OR (excluded.destination = 'broker' AND relay.destination <> 'broker'))",
        )
        .bind(relay)
        .bind(to_millis(now))
        .bind(to_millis(until))
        .bind(destination.as_str())
        .execute(&mut *db)
        .await?;
        if leased.rows_affected() == 1 {
            return Ok(Lease::Held);
        }
        let owner: Option<String> = sqlx::query_scalar("SELECT destination FROM relay").fetch_optional(&mut *db).await?;
        Ok(Lease::denied(destination, owner.as_deref()))
    }

    async fn reset_relay(&self) -> Result<(), Error> {
        sqlx::query("DELETE FROM relay").execute(&mut *self.writer.acquire().await?).await?;
        Ok(())
    }

    async fn unpublished_changes(&self, limit: u32) -> Result<Vec<PendingChange>, Error> {
        let select = sqlx::query_as("SELECT product_id, version, since FROM news ORDER BY since LIMIT $1").bind(limit);
        let rows: Vec<(Uuid, i64, i64)> = select.fetch_all(&mut *self.readers.acquire().await?).await?;
        // The time only tells the age: a change with an unreadable one is published all the same.
        let change = |(product_id, version, since)| {
            let since = readable("news", from_millis(since)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
            PendingChange { product_id, version, since }
        };
        Ok(rows.into_iter().map(change).collect())
    }

    async fn mark_published(&self, changes: Vec<PendingChange>, destination: Destination) -> Result<(), Error> {
        let mut db = self.writer.acquire().await?;
        let mut transaction = begin(&mut db).await?;
        for change in changes {
            let delete = sqlx::query(
                "DELETE FROM news WHERE product_id = $1 AND version = $2
                     AND NOT EXISTS (SELECT 1 FROM relay WHERE destination = 'broker' AND destination <> $3)",
            );
            delete.bind(change.product_id).bind(change.version).bind(destination.as_str()).execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }
}
