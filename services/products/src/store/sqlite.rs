//! Embedded store: one `SQLite` file. Every change is one transaction; a single writer serializes
//! them.

use std::{str::FromStr, sync::Arc, time::Duration};

use async_trait::async_trait;
use palisade_middleware::store_instrumentation::{self, CheckoutCounter, Database};
use sqlx::{
    Connection, Sqlite, SqliteConnection, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use time::OffsetDateTime;
use uuid::Uuid;

use self::pool::Pool;
use super::{Audit, Created, Error, IdempotencyKey, PendingChange, Removed, Store, Updated};
use crate::{
    product::{Page, Product, Query, ValidatedProduct},
    reservation::{Confirmed, Lines, Reservation, ReserveOutcome},
};

mod audit;
mod keys;
mod outbox;
mod pool;
mod products;
mod reservations;

/// Number of read connections. Readers see a snapshot and never wait for the writer (WAL).
const READERS: u32 = 4;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Product store in a `SQLite` file.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Pool,
    readers: Pool,
    file: Arc<str>,
}

impl SqliteStore {
    /// Opens the file of a `sqlite://` URL, creates it if missing, and runs the migrations.
    pub async fn open(url: &str) -> Result<Self, Error> {
        let options = SqliteConnectOptions::from_str(url)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // An acknowledged write survives a power failure.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(ACQUIRE_TIMEOUT);
        let file = options.get_filename().file_name().unwrap_or_default().to_string_lossy().into();
        let writer = pool(1).connect_with(options.clone()).await?;
        sqlx::migrate!("./migrations/sqlite").run(&writer).await.map_err(|error| Error::Unavailable(Box::new(error)))?;
        let readers = pool(READERS).connect_lazy_with(options.read_only(true));
        let pools = (writer.clone(), readers.clone());
        let checkouts = CheckoutCounter::new(store_instrumentation::PoolMetrics::new("products-sqlite", 1 + READERS), move || {
            pools.0.size() + pools.1.size()
        });
        Ok(Self { writer: Pool::new(writer, checkouts.clone()), readers: Pool::new(readers, checkouts), file })
    }

    /// Returns the database attributes of the semantic conventions.
    pub fn database(&self) -> Database {
        Database { system: "sqlite", namespace: self.file.clone(), server: None }
    }
}

/// Starts a transaction with the write lock: one that reads first and writes later could fail at
/// the write.
async fn begin(db: &mut SqliteConnection) -> Result<Transaction<'_, Sqlite>, Error> {
    Ok(db.begin_with("BEGIN IMMEDIATE").await?)
}

fn pool(size: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(size)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        // A file does not disconnect, so a test before each use is useless.
        .test_before_acquire(false)
        // A cancelled call can leave a transaction open (sqlx#4393), and the next borrower must not
        // write into it. The ping waits for a queued rollback.
        .after_release(|connection, _| {
            Box::pin(async move {
                connection.ping().await?;
                Ok(!connection.is_in_transaction())
            })
        })
}

#[async_trait]
impl Store for SqliteStore {
    async fn create(&self, id: Uuid, draft: ValidatedProduct, key: Option<IdempotencyKey>, now: OffsetDateTime) -> Result<Created, Error> {
        let mut db = self.writer.acquire().await?;
        let mut tx = begin(&mut db).await?;
        let created = keys::create(&mut tx, draft.into_product(id, now), key, now).await?;
        tx.commit().await?;
        Ok(created)
    }

    async fn find(&self, id: Uuid) -> Result<Option<Product>, Error> {
        products::find(&mut *self.readers.acquire().await?, id).await
    }

    async fn list(&self, query: Query) -> Result<Page, Error> {
        products::list(&mut *self.readers.acquire().await?, &query).await
    }

    async fn update(
        &self,
        id: Uuid,
        draft: ValidatedProduct,
        expected_version: Option<i64>,
        now: OffsetDateTime,
    ) -> Result<Updated, Error> {
        let mut db = self.writer.acquire().await?;
        let mut tx = begin(&mut db).await?;
        let updated = products::update(&mut tx, id, &draft, expected_version, now).await?;
        tx.commit().await?;
        Ok(updated)
    }

    async fn remove(&self, id: Uuid, expected_version: Option<i64>, _: OffsetDateTime) -> Result<Removed, Error> {
        let mut db = self.writer.acquire().await?;
        let mut tx = begin(&mut db).await?;
        let removed = products::remove(&mut tx, id, expected_version).await?;
        tx.commit().await?;
        Ok(removed)
    }

    async fn reserve(&self, id: Uuid, lines: Lines, now: OffsetDateTime, hold_for: Duration) -> Result<ReserveOutcome, Error> {
        let mut db = self.writer.acquire().await?;
        let mut tx = begin(&mut db).await?;
        let reserved = reservations::reserve(&mut tx, id, &lines, now, hold_for).await?;
        tx.commit().await?;
        Ok(reserved)
    }

    async fn confirm(&self, id: Uuid, now: OffsetDateTime) -> Result<Confirmed, Error> {
        let mut db = self.writer.acquire().await?;
        let mut tx = begin(&mut db).await?;
        let confirmed = reservations::confirm(&mut tx, id, now).await?;
        tx.commit().await?;
        Ok(confirmed)
    }

    async fn release(&self, id: Uuid, now: OffsetDateTime) -> Result<Reservation, Error> {
        let mut db = self.writer.acquire().await?;
        let mut tx = begin(&mut db).await?;
        let released = reservations::release(&mut tx, id, now).await?;
        tx.commit().await?;
        Ok(released)
    }

    async fn expire_due(&self, now: OffsetDateTime, limit: u32) -> Result<u32, Error> {
        let mut db = self.writer.acquire().await?;
        let mut tx = begin(&mut db).await?;
        let expired = reservations::expire_due(&mut tx, now, limit).await?;
        tx.commit().await?;
        Ok(expired)
    }

    async fn delete_expired_keys(&self, now: OffsetDateTime) -> Result<u64, Error> {
        keys::delete_expired(&mut *self.writer.acquire().await?, now).await
    }

    async fn list_reservations(&self, after: Option<Uuid>, limit: u32) -> Result<Vec<Reservation>, Error> {
        // One snapshot for the reservations and their lines.
        let mut db = self.readers.acquire().await?;
        let mut tx = db.begin().await?;
        reservations::list_open(&mut tx, after, limit).await
    }

    async fn lease_relay(&self, relay: Uuid, now: OffsetDateTime, until: OffsetDateTime) -> Result<bool, Error> {
        outbox::lease(&mut *self.writer.acquire().await?, relay, now, until).await
    }

    async fn unpublished_changes(&self, limit: u32) -> Result<Vec<PendingChange>, Error> {
        outbox::unpublished(&mut *self.readers.acquire().await?, limit).await
    }

    async fn mark_published(&self, news: &[PendingChange]) -> Result<(), Error> {
        outbox::mark_published(&mut *self.writer.acquire().await?, news).await
    }

    async fn audit(&self, now: OffsetDateTime) -> Result<Audit, Error> {
        let mut db = self.readers.acquire().await?;
        let mut tx = db.begin().await?;
        audit::audit(&mut tx, now).await
    }

    async fn ping(&self) -> Result<(), Error> {
        sqlx::query("SELECT 1").execute(&mut *self.readers.acquire().await?).await?;
        Ok(())
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolTimedOut => Self::Timeout,
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Corrupt(error.to_string()),
            other => Self::Unavailable(Box::new(other)),
        }
    }
}

#[cfg(test)]
mod tests;
