//! Embedded store: one SQLite file. Every change is one transaction; a single writer serializes
//! them.

use std::{str::FromStr, sync::Arc, time::Duration};

use palisade_middleware::store_instrumentation::{self, CheckedOut, CheckoutCounter, Database};
use sqlx::{
    Connection, Sqlite, SqliteConnection, SqlitePool, Transaction,
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::database::Error;

mod audit;
mod outbox;
mod products;
mod reservations;
mod search;

/// Number of read connections. Readers see a snapshot and never wait for the writer (WAL).
const READERS: u32 = 4;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Product store in a SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Pool,
    readers: Pool,
    file: Arc<str>,
}

/// Connection pool that counts its checkouts.
#[derive(Debug)]
struct Pool {
    inner: SqlitePool,
    checkouts: Arc<CheckoutCounter>,
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
        let writer = Pool { inner: writer, checkouts: checkouts.clone() };
        Ok(Self { writer, readers: Pool { inner: readers, checkouts }, file })
    }

    /// Returns the database attributes of the semantic conventions.
    pub fn database(&self) -> Database {
        Database { system: "sqlite", namespace: self.file.clone(), server: None }
    }
}

impl Pool {
    /// Waits for a connection.
    async fn acquire(&self) -> Result<CheckedOut<PoolConnection<Sqlite>>, Error> {
        Ok(self.checkouts.acquire(self.inner.acquire(), |error| matches!(error, sqlx::Error::PoolTimedOut)).await?)
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
