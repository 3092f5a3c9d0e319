//! Migration, invariant audit and statistics in SQLite.

use std::time::Duration;

use async_trait::async_trait;
use palisade_middleware::clock;
use palisade_store::migration;
use sqlx::{Connection, migrate::Migrator};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    SqliteStore,
    row::{from_ms, to_ms},
};
use crate::{
    order::OrderId,
    store::{
        database::Error,
        maintenance::{
            self, Audit, CHECKS, CONFIRMED_ORDERS, COUNTS, ConfirmedOrder, Finding, Invariant, Maintenance, OVERDUE, OVERDUE_ROWS, Overdue,
            PastRetention, STATS, SagaStatus, Stats,
        },
    },
};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

#[async_trait]
impl Maintenance for SqliteStore {
    async fn migrate(&self) -> Result<(), Error> {
        // SQLite itself lets one process write at a time.
        Ok(migration::apply_pending(&mut *self.writer.acquire().await?, &MIGRATIONS).await?)
    }

    async fn take_over(&self, now: OffsetDateTime) -> Result<u64, Error> {
        if !self.owner.is_only_owner() {
            return Ok(0);
        }
        let mut db = self.writer.acquire().await?;
        let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
        let due = sqlx::query("UPDATE orders SET due_at = $1 WHERE due_at > $1").bind(to_ms(now)).execute(&mut *transaction).await?;
        sqlx::query("UPDATE fulfilments SET due_at = $1 WHERE due_at > $1").bind(to_ms(now)).execute(&mut *transaction).await?;
        sqlx::query("UPDATE outbox_relay SET leased_until = 0").execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(due.rows_affected())
    }

    /// The file has no clock of its own.
    async fn ping(&self) -> Result<Option<OffsetDateTime>, Error> {
        if self.write_probe.is_due() {
            sqlx::query("INSERT OR REPLACE INTO write_probe (only_one, at) VALUES (1, unixepoch() * 1000)")
                .execute(&mut *self.writer.acquire().await?)
                .await?;
            self.write_probe.succeeded();
        } else {
            sqlx::query("SELECT 1").execute(&mut *self.readers.acquire().await?).await?;
        }
        Ok(None)
    }

    async fn audit(&self, now: OffsetDateTime, overdue_after: Duration, since: Option<OffsetDateTime>) -> Result<Audit, Error> {
        let first_id = maintenance::first_id(since);
        let mut db = self.readers.acquire().await?;
        // All checks must see the same snapshot. Otherwise orders that change between two checks
        // would look inconsistent.
        let mut transaction = db.begin().await?;
        let overdue = sqlx::query_scalar(OVERDUE).bind(to_ms(clock::before(now, overdue_after))).bind(Audit::MAX_FINDINGS);
        let overdue = overdue.fetch_all(&mut *transaction).await?;
        let mut findings: Vec<Finding> = maintenance::findings(Invariant::NotOverdue, overdue).collect();
        for (invariant, check) in CHECKS {
            let violating = sqlx::query_scalar(check).bind(Audit::MAX_FINDINGS).bind(first_id).fetch_all(&mut *transaction).await?;
            findings.extend(maintenance::findings(invariant, violating));
        }
        let counts = maintenance::counts(sqlx::query_as(COUNTS).bind(first_id).fetch_all(&mut *transaction).await?)?;
        transaction.commit().await?;
        Ok(Audit { counts, findings })
    }

    async fn saga_statuses(&self, ids: Vec<OrderId>) -> Result<Vec<SagaStatus>, Error> {
        let mut db = self.readers.acquire().await?;
        let mut rows = Vec::with_capacity(ids.len());
        for id in ids {
            let select = sqlx::query_as(
                "SELECT id, status, release_pending, EXISTS (SELECT 1 FROM fulfilments WHERE order_id = id) FROM orders WHERE id = $1",
            );
            let row: Option<(Uuid, String, bool, bool)> = select.bind(id.as_uuid()).fetch_optional(&mut *db).await?;
            rows.extend(row);
        }
        Ok(maintenance::saga_statuses(rows))
    }

    async fn confirmed_orders(&self, after: Uuid, until: Option<Uuid>, limit: u32) -> Result<Vec<ConfirmedOrder>, Error> {
        let select = sqlx::query_as(CONFIRMED_ORDERS).bind(after).bind(until.unwrap_or(Uuid::max())).bind(limit);
        Ok(maintenance::confirmed_orders(&select.fetch_all(&mut *self.readers.acquire().await?).await?))
    }

    async fn stats(&self, now: OffsetDateTime) -> Result<Stats, Error> {
        let rows: Vec<(Option<String>, i64, Option<i64>)> = sqlx::query_as(STATS).fetch_all(&mut *self.readers.acquire().await?).await?;
        // An unreadable time has no age.
        let rows = rows.into_iter().map(|(status, rows, oldest)| (status, rows, oldest.and_then(|oldest| from_ms(oldest).ok())));
        Stats::from_rows(rows.collect(), now)
    }

    async fn overdue(&self, now: OffsetDateTime, past: PastRetention) -> Result<Overdue, Error> {
        let count = sqlx::query_as(OVERDUE_ROWS).bind(to_ms(now)).bind(to_ms(past.events)).bind(to_ms(past.failed)).bind(to_ms(past.ended));
        let (keys, events, orders): (i64, i64, i64) = count.fetch_one(&mut *self.readers.acquire().await?).await?;
        Ok(Overdue { keys: keys.unsigned_abs(), events: events.unsigned_abs(), orders: orders.unsigned_abs() })
    }
}
