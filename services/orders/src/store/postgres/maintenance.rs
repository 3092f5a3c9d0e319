//! Migration, invariant audit and statistics in PostgreSQL.

use std::time::Duration;

use async_trait::async_trait;
use palisade_middleware::clock;
use palisade_store::migration;
use sqlx::{
    Connection, PgConnection, Row,
    migrate::{Migrate, Migrator},
    postgres::PgRow,
};
use time::OffsetDateTime;
use tokio::time::timeout;
use uuid::Uuid;

use super::{PostgresStore, row::Timestamp};
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

/// Maximum wait for the connection of a migration.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

#[async_trait]
impl Maintenance for PostgresStore {
    async fn migrate(&self) -> Result<(), Error> {
        // A separate connection: a migration takes as long as it needs, whatever limits the role or
        // the database has. The server aborts it when this process disappears.
        let options = self.options.clone().options([
            ("statement_timeout", "0"),
            ("lock_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
            ("client_connection_check_interval", "1s"),
        ]);
        let connect = timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&options));
        let mut connection = connect.await.map_err(|_elapsed| Error::Timeout)??;
        let result = async {
            // Waits while another process migrates.
            connection.lock().await?;
            // A statement must not wait long for a lock: all later statements would queue behind
            // it.
            sqlx::query("SET lock_timeout = '2s'").execute(&mut connection).await?;
            migration::apply_pending(&mut connection, &MIGRATIONS).await?;
            connection.unlock().await
        };
        let result = result.await;
        // The lock ends with the connection.
        let _ = connection.close().await;
        Ok(result?)
    }

    /// Other replicas may use the database.
    async fn take_over(&self, _: OffsetDateTime) -> Result<u64, Error> {
        Ok(0)
    }

    async fn ping(&self) -> Result<Option<OffsetDateTime>, Error> {
        let mut db = self.pool.acquire().await?;
        let (statement, writes) = if self.write_probe.is_due() {
            (
                "INSERT INTO write_probe (only_one, at) VALUES (TRUE, clock_timestamp())
                 ON CONFLICT (only_one) DO UPDATE SET at = excluded.at RETURNING at",
                true,
            )
        } else {
            ("SELECT clock_timestamp()", false)
        };
        let Timestamp(now) = sqlx::query_scalar(statement).fetch_one(&mut *db).await?;
        if writes {
            self.write_probe.succeeded();
        }
        Ok(Some(now))
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
        let overdue = sqlx::query_scalar(OVERDUE)
            .bind(clock::before(now, overdue_after))
            .bind(Audit::MAX_FINDINGS)
            .fetch_all(&mut *transaction)
            .await?;
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
        Ok(maintenance::saga_statuses(select.fetch_all(&mut *self.pool.acquire().await?).await?))
    }

    async fn confirmed_orders(&self, after: Uuid, until: Option<Uuid>, limit: u32) -> Result<Vec<ConfirmedOrder>, Error> {
        let select = sqlx::query_as(CONFIRMED_ORDERS).bind(after).bind(until.unwrap_or(Uuid::max())).bind(i64::from(limit));
        Ok(maintenance::confirmed_orders(&select.fetch_all(&mut *self.pool.acquire().await?).await?))
    }

    async fn stats(&self, now: OffsetDateTime) -> Result<Stats, Error> {
        let rows = sqlx::query(STATS).fetch_all(&mut *self.pool.acquire().await?).await?;
        let row = |row: &PgRow| {
            // An unreadable time has no age.
            let oldest = row.try_get::<Option<Timestamp>, _>(2).unwrap_or_default();
            Ok((row.try_get(0)?, row.try_get(1)?, oldest.map(|Timestamp(at)| at)))
        };
        Stats::from_rows(rows.iter().map(row).collect::<Result<_, Error>>()?, now)
    }

    async fn overdue(&self, now: OffsetDateTime, past: PastRetention) -> Result<Overdue, Error> {
        let count = sqlx::query_as(OVERDUE_ROWS).bind(now).bind(past.events).bind(past.failed).bind(past.ended);
        let (keys, events, orders): (i64, i64, i64) = count.fetch_one(&mut *self.pool.acquire().await?).await?;
        Ok(Overdue { keys: keys.unsigned_abs(), events: events.unsigned_abs(), orders: orders.unsigned_abs() })
    }
}
