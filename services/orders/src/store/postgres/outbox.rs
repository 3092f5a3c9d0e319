//! Transactional outbox in PostgreSQL: lease, publication marks, dead letters and pruning.

use async_trait::async_trait;
use palisade_events::{Destination, Lease};
use sqlx::{Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{PostgresStore, row};
use crate::store::{
    database::{Error, readable},
    outbox::{DeadEvent, Event, OutboxStore, REDRIVE, Redriven, owned, unreadable},
};

/// Advances the horizon together with the deletion, so that the audit does not report pruned events
/// as missing.
const PRUNE: &str = "
    WITH horizon AS (
        INSERT INTO outbox_horizon (only_one, pruned_before) VALUES (TRUE, $1)
        ON CONFLICT (only_one) DO UPDATE SET pruned_before = greatest(outbox_horizon.pruned_before, excluded.pruned_before)
    )
    DELETE FROM outbox WHERE position IN (
        SELECT position FROM outbox WHERE published_at < $1 AND created_at < $1 ORDER BY published_at LIMIT $2)";

#[async_trait]
impl OutboxStore for PostgresStore {
    async fn lease_outbox(
        &self,
        relay: Uuid,
        destination: Destination,
        now: OffsetDateTime,
        until: OffsetDateTime,
    ) -> Result<Lease, Error> {
        let mut db = self.pool.acquire().await?;
        let leased = sqlx::query(
            "INSERT INTO outbox_relay (only_one, relay, leased_until, destination) VALUES (TRUE, $1, $3, $4)
             ON CONFLICT (only_one) DO UPDATE
                 SET relay = excluded.relay, leased_until = excluded.leased_until, destination = excluded.destination
             WHERE (excluded.destination = 'broker' OR outbox_relay.destination <> 'broker')
                 AND (outbox_relay.relay = excluded.relay OR outbox_relay.leased_until <= $2
                     OR (excluded.destination = 'broker' AND outbox_relay.destination <> 'broker'))",
        )
        .bind(relay)
        .bind(now)
        .bind(until)
        .bind(destination.as_str())
        .execute(&mut *db)
        .await?;
        if leased.rows_affected() == 1 {
            return Ok(Lease::Held);
        }
        let owner: Option<String> = sqlx::query_scalar("SELECT destination FROM outbox_relay").fetch_optional(&mut *db).await?;
        Ok(Lease::denied(destination, owner.as_deref()))
    }

    async fn reset_relay(&self) -> Result<(), Error> {
        sqlx::query("DELETE FROM outbox_relay").execute(&mut *self.pool.acquire().await?).await?;
        Ok(())
    }

    async fn unpublished(&self, limit: u32) -> Result<Vec<Event>, Error> {
        let rows = sqlx::query(
            "SELECT position, event_id, order_id, version, kind, payload, trace_parent, created_at FROM outbox
             WHERE published_at IS NULL AND dead_at IS NULL ORDER BY position LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(&mut *self.pool.acquire().await?)
        .await?;
        let mut events = Vec::with_capacity(rows.len());
        for row in rows {
            match event(&row) {
                Ok(event) => events.push(event),
                Err(error) => self.dead_letter(&row, &error).await?,
            }
        }
        Ok(events)
    }

    async fn mark_published(&self, events: Vec<Uuid>, destination: Destination, now: OffsetDateTime) -> Result<(), Error> {
        self.with_retries(|| async {
            sqlx::query(concat!("UPDATE outbox SET published_at = $2 WHERE event_id = ANY($1) AND published_at IS NULL", owned!()))
                .bind(&events)
                .bind(now)
                .bind(destination.as_str())
                .execute(&mut *self.pool.acquire().await?)
                .await?;
            Ok(())
        })
        .await
    }

    async fn mark_rejected(&self, events: Vec<(Uuid, String)>, max_attempts: u32, now: OffsetDateTime) -> Result<u64, Error> {
        // PostgreSQL text cannot contain NUL.
        let events = events.into_iter().map(|(id, reason)| (id, reason.replace('\0', "\u{fffd}")));
        let (ids, reasons): (Vec<Uuid>, Vec<String>) = events.unzip();
        let dead: i64 = sqlx::query_scalar(
            "WITH rejected AS (
                 UPDATE outbox SET refusals = refusals + 1, last_error = r.reason, dead_at = CASE WHEN refusals + 1 >= $3 THEN $4 END
                 FROM UNNEST($1::uuid[], $2::text[]) AS r (id, reason)
                 WHERE event_id = r.id AND published_at IS NULL AND dead_at IS NULL RETURNING dead_at
             ) SELECT count(dead_at) FROM rejected",
        )
        .bind(ids)
        .bind(reasons)
        .bind(i64::from(max_attempts))
        .bind(now)
        .fetch_one(&mut *self.pool.acquire().await?)
        .await?;
        Ok(dead.unsigned_abs())
    }

    async fn dead_events(&self, limit: u32) -> Result<Vec<DeadEvent>, Error> {
        let rows = sqlx::query(
            "SELECT event_id, order_id, version, kind, payload, trace_parent, created_at, last_error, dead_at FROM outbox
             WHERE dead_at IS NOT NULL ORDER BY position LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(&mut *self.pool.acquire().await?)
        .await?;
        let dead = rows.iter().map(|row| {
            let reason: Option<String> = row.try_get("last_error")?;
            let created_at = row::time(row, "created_at").unwrap_or(OffsetDateTime::UNIX_EPOCH);
            let event = event_created_at(row, created_at)?;
            Ok(DeadEvent { event, reason: reason.unwrap_or_default(), dead_lettered_at: row::time(row, "dead_at")? })
        });
        Ok(dead.filter_map(|row| readable("outbox", row)).collect())
    }

    async fn redrive(&self, after: i64, limit: u32) -> Result<Redriven, Error> {
        let redrive = sqlx::query_scalar(REDRIVE).bind(after).bind(i64::from(limit));
        Ok(Redriven::of(&redrive.fetch_all(&mut *self.pool.acquire().await?).await?))
    }

    async fn prune_published(&self, before: OffsetDateTime, limit: u32) -> Result<u64, Error> {
        self.with_retries(|| async {
            let prune = sqlx::query(PRUNE).bind(before).bind(i64::from(limit));
            Ok(prune.execute(&mut *self.pool.acquire().await?).await?.rows_affected())
        })
        .await
    }
}

impl PostgresStore {
    /// Dead-letters an event that cannot be read, because it would block all later ones.
    async fn dead_letter(&self, row: &PgRow, error: &Error) -> Result<(), Error> {
        sqlx::query("UPDATE outbox SET dead_at = now(), last_error = $2 WHERE position = $1 AND published_at IS NULL")
            .bind(row.try_get::<i64, _>("position")?)
            .bind(unreadable(error))
            .execute(&mut *self.pool.acquire().await?)
            .await?;
        Ok(())
    }
}

fn event(row: &PgRow) -> Result<Event, Error> {
    event_created_at(row, row::time(row, "created_at")?)
}

fn event_created_at(row: &PgRow, created_at: OffsetDateTime) -> Result<Event, Error> {
    Ok(Event {
        id: row.try_get("event_id")?,
        order_id: row.try_get::<Uuid, _>("order_id")?.into(),
        version: row.try_get("version")?,
        kind: row.try_get("kind")?,
        payload: row.try_get("payload")?,
        trace_parent: row.try_get("trace_parent")?,
        created_at,
    })
}
