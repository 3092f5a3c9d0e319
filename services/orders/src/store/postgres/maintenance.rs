//! Migration, invariant audit and statistics in PostgreSQL.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Connection, migrate::Migrator, postgres::PgPoolOptions};
use time::OffsetDateTime;
use uuid::Uuid;

use super::PostgresStore;
use crate::{
    order::OrderId,
    store::{
        database::Error,
        maintenance::{self, Audit, CHECKS, COUNTS, Finding, Invariant, Maintenance, OVERDUE, STATS, SagaStatus, Stats},
    },
};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

#[async_trait]
impl Maintenance for PostgresStore {
    async fn migrate(&self) -> Result<(), Error> {
        // A separate connection: a migration may take longer than a request's statement, but must
        // not wait long for a lock.
        let options = self.options.clone().options([("lock_timeout", "2s")]);
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(1)).connect_with(options).await?;
        let outcome = MIGRATIONS.run(&pool).await;
        pool.close().await;
        Ok(outcome?)
    }

    async fn ping(&self) -> Result<(), Error> {
        sqlx::query("SELECT 1").execute(&mut *self.pool.acquire().await?).await?;
        Ok(())
    }

    async fn audit(&self, now: OffsetDateTime, overdue_after: Duration, since: Option<OffsetDateTime>) -> Result<Audit, Error> {
        let first_id = maintenance::first_id(since);
        // The only transaction with more than one statement. A cancelled BEGIN may leave the
        // connection within a transaction, where the writes of the next borrower would be lost
        // (sqlx#4393), so the connection is closed after use.
        let mut db = self.pool.acquire_and_close().await?;
        // All checks must see the same snapshot. Otherwise orders that change between two checks
        // would look inconsistent.
        let mut transaction = db.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        // The audit reads everything, and no request waits for it.
        sqlx::query("SET LOCAL statement_timeout = '30s'").execute(&mut *transaction).await?;
        let overdue = sqlx::query_scalar(OVERDUE).bind(now - overdue_after).bind(Audit::MAX_FINDINGS).fetch_all(&mut *transaction).await?;
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
        let ids: Vec<Uuid> = ids.into_iter().map(OrderId::as_uuid).collect();
        let select = sqlx::query_as(
            "SELECT id, status, release_pending, EXISTS (SELECT 1 FROM fulfilments WHERE order_id = id) FROM orders WHERE id = ANY($1)",
        );
        let select = select.bind(ids);
        maintenance::saga_statuses(select.fetch_all(&mut *self.pool.acquire().await?).await?)
    }

    async fn stats(&self, now: OffsetDateTime) -> Result<Stats, Error> {
        Stats::from_rows(sqlx::query_as(STATS).fetch_all(&mut *self.pool.acquire().await?).await?, now)
    }
}
