//! Reading, marking and pruning the outbox.

use sqlx::{Connection, Row, SqliteConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{moment::to_ms, row};
use crate::store::{Error, Event};

pub(super) async fn unpublished(db: &mut SqliteConnection, limit: u32) -> Result<Vec<Event>, Error> {
    let rows = sqlx::query(
        "SELECT event_id, order_id, kind, payload, trace_parent, created_at FROM outbox WHERE published_at IS NULL ORDER BY position LIMIT $1",
    )
    .bind(limit)
    .fetch_all(db)
    .await?;
    let events = rows.iter().map(|row| {
        Ok(Event {
            id: row.try_get("event_id")?,
            order_id: row.try_get::<Uuid, _>("order_id")?.into(),
            kind: row.try_get("kind")?,
            payload: row.try_get("payload")?,
            trace_parent: row.try_get("trace_parent")?,
            created_at: row::time(row, "created_at")?,
        })
    });
    events.collect()
}

pub(super) async fn mark_published(db: &mut SqliteConnection, events: &[Uuid], now: OffsetDateTime) -> Result<(), Error> {
    let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
    for event in events {
        sqlx::query("UPDATE outbox SET published_at = $2 WHERE event_id = $1 AND published_at IS NULL")
            .bind(event)
            .bind(to_ms(now))
            .execute(&mut *transaction)
            .await?;
    }
    Ok(transaction.commit().await?)
}

/// The horizon moves with the deletion: the audit must not miss what was pruned.
pub(super) async fn prune_published(db: &mut SqliteConnection, before: OffsetDateTime) -> Result<u64, Error> {
    let before = to_ms(before);
    let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query(
        "INSERT INTO outbox_horizon (only_one, pruned_before) VALUES (1, $1)
         ON CONFLICT (only_one) DO UPDATE SET pruned_before = max(pruned_before, excluded.pruned_before)",
    )
    .bind(before)
    .execute(&mut *transaction)
    .await?;
    let pruned =
        sqlx::query("DELETE FROM outbox WHERE published_at < $1 AND created_at < $1").bind(before).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(pruned.rows_affected())
}
