//! Migration, invariant audit and statistics in SQLite.

use std::time::Duration;

use async_trait::async_trait;
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
        maintenance::{self, Audit, CHECKS, COUNTS, Finding, Invariant, Maintenance, OVERDUE, STATS, SagaStatus, Stats},
    },
};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

#[async_trait]
impl Maintenance for SqliteStore {
    async fn migrate(&self) -> Result<(), Error> {
        Ok(MIGRATIONS.run(self.writer.uncounted()).await?)
    }

    async fn ping(&self) -> Result<(), Error> {
        sqlx::query("SELECT 1").execute(&mut *self.readers.acquire().await?).await?;
        Ok(())
    }

    async fn audit(&self, now: OffsetDateTime, overdue_after: Duration, since: Option<OffsetDateTime>) -> Result<Audit, Error> {
        let first_id = maintenance::first_id(since);
        let mut db = self.readers.acquire().await?;
        // All checks must see the same snapshot. Otherwise orders that change between two checks
        // would look inconsistent.
        let mut transaction = db.begin().await?;
        let overdue = sqlx::query_scalar(OVERDUE).bind(to_ms(now - overdue_after)).bind(Audit::MAX_FINDINGS);
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
        maintenance::saga_statuses(rows)
    }

    async fn stats(&self, now: OffsetDateTime) -> Result<Stats, Error> {
        let rows: Vec<(Option<String>, i64, Option<i64>)> = sqlx::query_as(STATS).fetch_all(&mut *self.readers.acquire().await?).await?;
        let rows = rows.into_iter().map(|(status, rows, oldest)| Ok((status, rows, oldest.map(from_ms).transpose()?)));
        Stats::from_rows(rows.collect::<Result<_, Error>>()?, now)
    }
}
