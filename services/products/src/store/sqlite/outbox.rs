//! Transactional outbox in `SQLite`: triggers record each change in its transaction.

use sqlx::{Connection, SqliteConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::{
    Error, PendingChange,
    timestamp::{from_millis, to_millis},
};

pub(super) async fn lease(db: &mut SqliteConnection, relay: Uuid, now: OffsetDateTime, until: OffsetDateTime) -> Result<bool, Error> {
    let leased = sqlx::query(
        "INSERT INTO relay (only_one, relay, leased_until) VALUES (1, $1, $3)
         ON CONFLICT (only_one) DO UPDATE SET relay = excluded.relay, leased_until = excluded.leased_until
         WHERE relay.relay = excluded.relay OR relay.leased_until <= $2",
    )
    .bind(relay)
    .bind(to_millis(now))
    .bind(to_millis(until))
    .execute(db)
    .await?;
    Ok(leased.rows_affected() == 1)
}

pub(super) async fn unpublished(db: &mut SqliteConnection, limit: u32) -> Result<Vec<PendingChange>, Error> {
    let rows: Vec<(Uuid, i64, i64)> =
        sqlx::query_as("SELECT product_id, version, since FROM news ORDER BY since LIMIT $1").bind(limit).fetch_all(db).await?;
    rows.into_iter().map(|(product_id, version, since)| Ok(PendingChange { product_id, version, since: from_millis(since)? })).collect()
}

/// A product that has changed again stays in the outbox.
pub(super) async fn mark_published(db: &mut SqliteConnection, news: &[PendingChange]) -> Result<(), Error> {
    let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
    for news in news {
        sqlx::query("DELETE FROM news WHERE product_id = $1 AND version = $2")
            .bind(news.product_id)
            .bind(news.version)
            .execute(&mut *transaction)
            .await?;
    }
    Ok(transaction.commit().await?)
}
