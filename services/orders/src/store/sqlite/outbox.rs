//! Transactional outbox in SQLite: lease, publication marks, dead letters and pruning.

use async_trait::async_trait;
use palisade_events::{Destination, Lease};
use sqlx::{Connection, Row, sqlite::SqliteRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    SqliteStore,
    row::{self, to_ms},
};
use crate::store::{
    database::{Error, readable},
    outbox::{DeadEvent, Event, OutboxStore, REDRIVE, Redriven, owned, unreadable},
};

#[async_trait]
impl OutboxStore for SqliteStore {
    async fn lease_outbox(
        &self,
        relay: Uuid,
        destination: Destination,
        now: OffsetDateTime,
        until: OffsetDateTime,
    ) -> Result<Lease, Error> {
        let mut db = self.writer.acquire().await?;
        let leased = sqlx::query(
            "INSERT INTO outbox_relay (only_one, relay, leased_until, destination) VALUES (1, $1, $3, $4)
             ON CONFLICT (only_one) DO UPDATE
                 SET relay = excluded.relay, leased_until = excluded.leased_until, destination = excluded.destination
             WHERE (excluded.destination = 'broker' OR outbox_relay.destination <> 'broker')
                 AND (outbox_relay.relay = excluded.relay OR outbox_relay.leased_until <= $2
                     OR (excluded.destination = 'broker' AND outbox_relay.destination <> 'broker'))",
        )
        .bind(relay)
        .bind(to_ms(now))
        .bind(to_ms(until))
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
        sqlx::query("DELETE FROM outbox_relay").execute(&mut *self.writer.acquire().await?).await?;
        Ok(())
    }

    async fn unpublished(&self, limit: u32) -> Result<Vec<Event>, Error> {
        let rows = sqlx::query(
            "SELECT position, event_id, order_id, version, kind, payload, trace_parent, created_at FROM outbox
             WHERE published_at IS NULL AND dead_at IS NULL ORDER BY position LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&mut *self.readers.acquire().await?)
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
        let mut db = self.writer.acquire().await?;
        let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
        for event in events {
            sqlx::query(concat!("UPDATE outbox SET published_at = $2 WHERE event_id = $1 AND published_at IS NULL", owned!()))
                .bind(event)
                .bind(to_ms(now))
                .bind(destination.as_str())
                .execute(&mut *transaction)
                .await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn mark_rejected(&self, events: Vec<(Uuid, String)>, max_attempts: u32, now: OffsetDateTime) -> Result<u64, Error> {
        let mut db = self.writer.acquire().await?;
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

    async fn dead_events(&self, limit: u32) -> Result<Vec<DeadEvent>, Error> {
        let rows = sqlx::query(
            "SELECT event_id, order_id, version, kind, payload, trace_parent, created_at, last_error, dead_at FROM outbox
             WHERE dead_at IS NOT NULL ORDER BY position LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&mut *self.readers.acquire().await?)
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
        let redrive = sqlx::query_scalar(REDRIVE).bind(after).bind(limit);
        Ok(Redriven::of(&redrive.fetch_all(&mut *self.writer.acquire().await?).await?))
    }

    /// Advances the horizon together with the deletion, so that the audit does not report pruned
    /// events as missing.
    async fn prune_published(&self, before: OffsetDateTime, limit: u32) -> Result<u64, Error> {
        let before = to_ms(before);
        let mut db = self.writer.acquire().await?;
        let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query(
            "INSERT INTO outbox_horizon (only_one, pruned_before) VALUES (1, $1)
             ON CONFLICT (only_one) DO UPDATE SET pruned_before = max(pruned_before, excluded.pruned_before)",
        )
        .bind(before)
        .execute(&mut *transaction)
        .await?;
        let prune = sqlx::query(
            "DELETE FROM outbox WHERE position IN
                 (SELECT position FROM outbox WHERE published_at < $1 AND created_at < $1 ORDER BY published_at LIMIT $2)",
        );
        let prune = prune.bind(before).bind(limit);
        let pruned = prune.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(pruned.rows_affected())
    }
}

impl SqliteStore {
    /// Dead-letters an event that cannot be read, because it would block all later ones.
    async fn dead_letter(&self, row: &SqliteRow, error: &Error) -> Result<(), Error> {
        sqlx::query("UPDATE outbox SET dead_at = unixepoch() * 1000, last_error = $2 WHERE position = $1 AND published_at IS NULL")
            .bind(row.try_get::<i64, _>("position")?)
            .bind(unreadable(error))
            .execute(&mut *self.writer.acquire().await?)
            .await?;
        Ok(())
    }
}

fn event(row: &SqliteRow) -> Result<Event, Error> {
    event_created_at(row, row::time(row, "created_at")?)
}

fn event_created_at(row: &SqliteRow, created_at: OffsetDateTime) -> Result<Event, Error> {
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
