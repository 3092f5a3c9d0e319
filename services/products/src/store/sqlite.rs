//! Embedded store: one SQLite file. Every change is one transaction; a single writer serializes
//! them.

use std::{str::FromStr, sync::Arc, time::Duration};

use palisade_middleware::{
    group_commit::{GroupCommit, Limits},
    private_file,
    store_instrumentation::{self, CheckedOut, CheckoutCounter, Database, note_status_code},
};
use palisade_store::{OwnerLock, Reconnect, WriteProbe};
use sqlx::{
    Connection, Sqlite, SqliteConnection, SqlitePool, Transaction,
    error::DatabaseError,
    migrate::MigrateError,
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use self::reserve_batch::ReserveWriter;
use super::{
    database::{Error, RESERVES},
    roles::Maintenance,
};

mod audit;
mod erasure;
mod history;
mod ledger;
mod outbox;
mod products;
mod reservations;
mod reserve_batch;
mod revision;
mod search;

/// There is one writer, so one batch at a time.
const BATCHES: Limits = Limits { max_concurrent: 1, ..Limits::DEFAULT };
/// Number of read connections. Readers see a snapshot and never wait for the writer (WAL).
const READERS: u32 = 4;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Product store in a SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Arc<Pool>,
    /// Batches of new reservations.
    reserves: GroupCommit<ReserveWriter>,
    readers: Pool,
    file: Arc<str>,
    owner: OwnerLock,
    reconnect: Reconnect,
    write_probe: WriteProbe,
}

/// Connection pool that counts its checkouts.
#[derive(Debug)]
struct Pool {
    inner: SqlitePool,
    checkouts: Arc<CheckoutCounter>,
}

impl SqliteStore {
    /// As [`Self::new`], and migrates the schema.
    pub async fn open(url: &str) -> Result<Self, Error> {
        let store = Self::new(url)?;
        store.migrate().await?;
        Ok(store)
    }

    /// Creates a store for the file of a `sqlite://` URL, which is created on first use. Must be
    /// called within a Tokio runtime.
    pub fn new(url: &str) -> Result<Self, Error> {
        let options = SqliteConnectOptions::from_str(url)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // An acknowledged write survives a power failure.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(ACQUIRE_TIMEOUT);
        let path = options.get_filename().to_owned();
        private_file::prepare_database(&path);
        let file = path.file_name().unwrap_or_default().to_string_lossy().into();
        let reconnect = Reconnect::default();
        let writer = pool(1, &reconnect).connect_lazy_with(options.clone());
        // Not opened read-only: a reader may be the first to open the file.
        let readers = pool(READERS, &reconnect).connect_lazy_with(options.pragma("query_only", "ON"));
        let pools = (writer.clone(), readers.clone());
        let checkouts = CheckoutCounter::new(store_instrumentation::PoolMetrics::new("products-sqlite", 1 + READERS), move || {
            pools.0.size() + pools.1.size()
        });
        let writer = Arc::new(Pool { inner: writer, checkouts: checkouts.clone() });
        let readers = Pool { inner: readers, checkouts };
        let reserves = GroupCommit::new(RESERVES, ReserveWriter { pool: writer.clone() }, BATCHES);
        Ok(Self { writer, reserves, readers, file, owner: OwnerLock::new(path), reconnect, write_probe: WriteProbe::default() })
    }

    /// Returns the control of the pooled connections.
    pub fn reconnect(&self) -> Reconnect {
        self.reconnect.clone()
    }

    /// Returns the database attributes of the file at `url`, or `None` if the URL is invalid.
    pub(super) fn database_of(url: &str) -> Option<Database> {
        let options = SqliteConnectOptions::from_str(url).ok()?;
        let file = options.get_filename().file_name().unwrap_or_default().to_string_lossy();
        Some(Database { system: "sqlite", namespace: file.into(), server: None })
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

fn pool(size: u32, reconnect: &Reconnect) -> SqlitePoolOptions {
    let reconnect = reconnect.clone();
    SqlitePoolOptions::new()
        .max_connections(size)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        // A file does not disconnect, so a test before each use is useless.
        .test_before_acquire(false)
        // A cancelled call can leave a transaction open (sqlx#4393), and the next borrower must not
        // write into it. The ping waits for a queued rollback.
        .after_release(move |connection, about| {
            // A connection that was opened while the file could not be written never writes.
            let is_current = reconnect.is_current(&about);
            Box::pin(async move {
                connection.ping().await?;
                Ok(is_current && !connection.is_in_transaction())
            })
        })
}

fn is_constraint_violation(error: &dyn DatabaseError) -> bool {
    /// Primary result code `SQLITE_CONSTRAINT`, in the lowest byte of an extended one.
    const CONSTRAINT: u32 = 19;
    error.code().and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xff == CONSTRAINT)
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if let Some(code) = error.as_database_error().and_then(DatabaseError::code) {
            note_status_code(&code);
        }
        match error {
            sqlx::Error::PoolTimedOut => Self::Timeout,
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Corrupt(error.to_string()),
            // This service never violates a constraint: a row was changed by something else.
            sqlx::Error::Database(ref database_error) if is_constraint_violation(database_error.as_ref()) => {
                Self::Corrupt(error.to_string())
            }
            other => Self::Unavailable(Box::new(other)),
        }
    }
}

impl From<MigrateError> for Error {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
            other => Self::Unavailable(Box::new(other)),
        }
    }
}

#[cfg(test)]
mod tests;
