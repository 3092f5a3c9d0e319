//! Reading, marking and pruning the outbox.

use sqlx::{PgConnection, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::{Error, Event};

/// The horizon moves with the deletion: the audit must not miss what was pruned.
const PRUNE: &str = "
    WITH horizon AS (
        INSERT INTO outbox_horizon (only_one, pruned_before) VALUES (TRUE, $1)
        ON CONFLICT (only_one) DO UPDATE SET pruned_before = greatest(outbox_horizon.pruned_before, excluded.pruned_before)
    )
    DELETE FROM outbox WHERE published_at < $1 AND created_at < $1";

pub(super) async fn unpublished(db: &mut PgConnection, limit: u32) -> Result<Vec<Event>, Error> {
    let rows = sqlx::query(
        "SELECT event_id, order_id, kind, payload, trace_parent, created_at FROM outbox WHERE published_at IS NULL ORDER BY position LIMIT $1",
    )
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    let events = rows.iter().map(|row| {
        Ok(Event {
            id: row.try_get("event_id")?,
            order_id: row.try_get::<Uuid, _>("order_id")?.into(),
            kind: row.try_get("kind")?,
            payload: row.try_get("payload")?,
            trace_parent: row.try_get("trace_parent")?,
            created_at: row.try_get("created_at")?,
        })
    });
    events.collect()
}

pub(super) async fn mark_published(db: &mut PgConnection, events: &[Uuid], now: OffsetDateTime) -> Result<(), Error> {
    sqlx::query("UPDATE outbox SET published_at = $2 WHERE event_id = ANY($1) AND published_at IS NULL")
        .bind(events)
        .bind(now)
        .execute(db)
        .await?;
    Ok(())
}

pub(super) async fn prune_published(db: &mut PgConnection, before: OffsetDateTime) -> Result<u64, Error> {
    Ok(sqlx::query(PRUNE).bind(before).execute(db).await?.rows_affected())
}
