//! Transactional outbox in PostgreSQL: lease, publication marks, dead letters and pruning.

use sqlx::{PgConnection, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::{DeadEvent, Error, Event};

/// Advances the horizon together with the deletion, so that the audit does not report pruned events
/// as missing.
const PRUNE: &str = "
    WITH horizon AS (
        INSERT INTO outbox_horizon (only_one, pruned_before) VALUES (TRUE, $1)
        ON CONFLICT (only_one) DO UPDATE SET pruned_before = greatest(outbox_horizon.pruned_before, excluded.pruned_before)
    )
    DELETE FROM outbox WHERE published_at < $1 AND created_at < $1";

pub(super) async fn lease(db: &mut PgConnection, relay: Uuid, now: OffsetDateTime, until: OffsetDateTime) -> Result<bool, Error> {
    let leased = sqlx::query(
        "INSERT INTO outbox_relay (only_one, relay, leased_until) VALUES (TRUE, $1, $3)
         ON CONFLICT (only_one) DO UPDATE SET relay = excluded.relay, leased_until = excluded.leased_until
         WHERE outbox_relay.relay = excluded.relay OR outbox_relay.leased_until <= $2",
    )
    .bind(relay)
    .bind(now)
    .bind(until)
    .execute(db)
    .await?;
    Ok(leased.rows_affected() == 1)
}

pub(super) async fn unpublished(db: &mut PgConnection, limit: u32) -> Result<Vec<Event>, Error> {
    let rows = sqlx::query(
        "SELECT event_id, order_id, version, kind, payload, trace_parent, created_at FROM outbox
         WHERE published_at IS NULL AND dead_at IS NULL ORDER BY position LIMIT $1",
    )
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    rows.iter().map(event).collect()
}

fn event(row: &PgRow) -> Result<Event, Error> {
    Ok(Event {
        id: row.try_get("event_id")?,
        order_id: row.try_get::<Uuid, _>("order_id")?.into(),
        version: row.try_get("version")?,
        kind: row.try_get("kind")?,
        payload: row.try_get("payload")?,
        trace_parent: row.try_get("trace_parent")?,
        created_at: row.try_get("created_at")?,
    })
}

pub(super) async fn mark_rejected(
    db: &mut PgConnection,
    events: &[(Uuid, String)],
    max_attempts: u32,
    now: OffsetDateTime,
) -> Result<u64, Error> {
    // PostgreSQL text cannot contain NUL.
    let (ids, reasons): (Vec<Uuid>, Vec<String>) = events.iter().map(|(id, reason)| (*id, reason.replace('\0', "\u{fffd}"))).unzip();
    let dead: i64 = sqlx::query_scalar(
        "WITH refused AS (
             UPDATE outbox SET refusals = refusals + 1, last_error = r.reason, dead_at = CASE WHEN refusals + 1 >= $3 THEN $4 END
             FROM UNNEST($1::uuid[], $2::text[]) AS r (id, reason)
             WHERE event_id = r.id AND published_at IS NULL AND dead_at IS NULL RETURNING dead_at
         ) SELECT count(dead_at) FROM refused",
    )
    .bind(ids)
    .bind(reasons)
    .bind(i64::from(max_attempts))
    .bind(now)
    .fetch_one(db)
    .await?;
    Ok(dead.unsigned_abs())
}

pub(super) async fn dead_events(db: &mut PgConnection, limit: u32) -> Result<Vec<DeadEvent>, Error> {
    let rows = sqlx::query(
        "SELECT event_id, order_id, version, kind, payload, trace_parent, created_at, last_error, dead_at FROM outbox
         WHERE dead_at IS NOT NULL ORDER BY position LIMIT $1",
    )
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    let dead = rows.iter().map(|row| {
        let reason: Option<String> = row.try_get("last_error")?;
        Ok(DeadEvent { event: event(row)?, reason: reason.unwrap_or_default(), dead_lettered_at: row.try_get("dead_at")? })
    });
    dead.collect()
}

pub(super) async fn redrive(db: &mut PgConnection) -> Result<u64, Error> {
    let redriven = sqlx::query("UPDATE outbox SET dead_at = NULL, refusals = 0 WHERE dead_at IS NOT NULL").execute(db).await?;
    Ok(redriven.rows_affected())
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
