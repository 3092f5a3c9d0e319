//! Transactional outbox in SQLite: lease, publication marks, dead letters and pruning.

use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{row, timestamp::to_ms};
use crate::store::{DeadEvent, Error, Event};

pub(super) async fn lease(db: &mut SqliteConnection, relay: Uuid, now: OffsetDateTime, until: OffsetDateTime) -> Result<bool, Error> {
    let leased = sqlx::query(
        "INSERT INTO outbox_relay (only_one, relay, leased_until) VALUES (1, $1, $3)
         ON CONFLICT (only_one) DO UPDATE SET relay = excluded.relay, leased_until = excluded.leased_until
         WHERE outbox_relay.relay = excluded.relay OR outbox_relay.leased_until <= $2",
    )
    .bind(relay)
    .bind(to_ms(now))
    .bind(to_ms(until))
    .execute(db)
    .await?;
    Ok(leased.rows_affected() == 1)
}

pub(super) async fn unpublished(db: &mut SqliteConnection, limit: u32) -> Result<Vec<Event>, Error> {
    let rows = sqlx::query(
        "SELECT event_id, order_id, version, kind, payload, trace_parent, created_at FROM outbox
         WHERE published_at IS NULL AND dead_at IS NULL ORDER BY position LIMIT $1",
    )
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(event).collect()
}

fn event(row: &SqliteRow) -> Result<Event, Error> {
    Ok(Event {
        id: row.try_get("event_id")?,
        order_id: row.try_get::<Uuid, _>("order_id")?.into(),
        version: row.try_get("version")?,
        kind: row.try_get("kind")?,
        payload: row.try_get("payload")?,
        trace_parent: row.try_get("trace_parent")?,
        created_at: row::time(row, "created_at")?,
    })
}

pub(super) async fn mark_rejected(
    db: &mut SqliteConnection,
    events: &[(Uuid, String)],
    max_attempts: u32,
    now: OffsetDateTime,
) -> Result<u64, Error> {
    let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
    let mut dead = 0;
    for (event, reason) in events {
        let became_dead: Option<bool> = sqlx::query_scalar(
            "UPDATE outbox SET refusals = refusals + 1, last_error = $2, dead_at = CASE WHEN refusals + 1 >= $3 THEN $4 END
             WHERE event_id = $1 AND published_at IS NULL AND dead_at IS NULL RETURNING dead_at IS NOT NULL",
        )
        .bind(event)
        .bind(reason)
        .bind(max_attempts)
        .bind(to_ms(now))
        .fetch_optional(&mut *transaction)
        .await?;
        dead += u64::from(became_dead == Some(true));
    }
    transaction.commit().await?;
    Ok(dead)
}

pub(super) async fn dead_events(db: &mut SqliteConnection, limit: u32) -> Result<Vec<DeadEvent>, Error> {
    let rows = sqlx::query(
        "SELECT event_id, order_id, version, kind, payload, trace_parent, created_at, last_error, dead_at FROM outbox
         WHERE dead_at IS NOT NULL ORDER BY position LIMIT $1",
    )
    .bind(limit)
    .fetch_all(db)
    .await?;
    let dead = rows.iter().map(|row| {
        let reason: Option<String> = row.try_get("last_error")?;
        Ok(DeadEvent { event: event(row)?, reason: reason.unwrap_or_default(), dead_lettered_at: row::time(row, "dead_at")? })
    });
    dead.collect()
}

pub(super) async fn redrive(db: &mut SqliteConnection) -> Result<u64, Error> {
    let redriven = sqlx::query("UPDATE outbox SET dead_at = NULL, refusals = 0 WHERE dead_at IS NOT NULL").execute(db).await?;
    Ok(redriven.rows_affected())
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

/// Advances the horizon together with the deletion, so that the audit does not report pruned events
/// as missing.
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
