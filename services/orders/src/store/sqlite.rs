//! SQLite order store: one writer and several concurrent readers. New orders and status changes are
//! written in batches (group commit).

use std::{str::FromStr, sync::Arc, time::Duration};

use palisade_middleware::{
    group_commit::{GroupCommit, Limits},
    private_file,
    store_instrumentation::{self, CheckoutCounter, Database},
};
use palisade_store::{OwnerLock, Reconnect, WriteProbe};
use sqlx::{
    Connection, Sqlite,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use self::{change_batch::ChangeWriter, create_batch::CreateWriter};
use super::database::{CHANGES, CREATES, Error, Pool};

mod batch;
mod change_batch;
mod create_batch;
mod erasure;
mod fulfilment_queue;
mod list;
mod maintenance;
mod orders;
mod outbox;
mod retention;
mod revisions;
mod row;
mod saga_queue;

/// Maximum wait for a connection. Long, because all writes queue for one connection; the timeout of
/// `InstrumentedStore` ends earlier.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// There is one writer, so one batch at a time.
const BATCHES: Limits = Limits { max_concurrent: 1, ..Limits::DEFAULT };
/// Number of read-only connections.
const READERS: u32 = 4;

/// SQLite order store.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Arc<Pool<Sqlite>>,
    creates: GroupCommit<CreateWriter>,
    changes: GroupCommit<ChangeWriter>,
    readers: Pool<Sqlite>,
    file: Arc<str>,
    owner: OwnerLock,
    reconnect: Reconnect,
    write_probe: WriteProbe,
}

impl SqliteStore {
    /// Creates a store for the file at `url` (`sqlite://…`), which is created on first use. Must be
    /// called within a Tokio runtime.
    pub fn new(url: &str) -> Result<Self, Error> {
        let options = SqliteConnectOptions::from_str(url)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // An acknowledged write survives a power failure, not only a process crash.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(ACQUIRE_TIMEOUT);
        let reconnect = Reconnect::default();
        let pool = |connections| {
            let reconnect = reconnect.clone();
            let options = SqlitePoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_TIMEOUT);
            // A file does not disconnect, so a ping before each statement is useless.
            let options = options.test_before_acquire(false);
            // The next borrower must not write into a transaction that a cancelled call left open
            // (sqlx#4393). The ping waits for a rollback that is still queued.
            options.idle_timeout(None).max_lifetime(None).after_release(move |connection, about| {
                // A connection that was opened while the file could not be written never writes.
                let is_current = reconnect.is_current(&about);
                Box::pin(async move {
                    connection.ping().await?;
                    Ok(is_current && !connection.is_in_transaction())
                })
            })
        };
        let path = options.get_filename().to_owned();
        private_file::prepare_database(&path);
        let file = options.get_filename().file_name().unwrap_or_default().to_string_lossy().into();
        let writer = pool(1).connect_lazy_with(options.clone());
        let readers = pool(READERS).connect_lazy_with(options.pragma("query_only", "ON"));
        let pools = (writer.clone(), readers.clone());
        let checkouts = CheckoutCounter::new(store_instrumentation::PoolMetrics::new("orders-sqlite", 1 + READERS), move || {
            pools.0.size() + pools.1.size()
        });
        let (writer, readers) = (Arc::new(Pool::new(writer, checkouts.clone())), Pool::new(readers, checkouts));
        let creates = GroupCommit::new(CREATES, CreateWriter { pool: writer.clone() }, BATCHES);
        let changes = GroupCommit::new(CHANGES, ChangeWriter { pool: writer.clone() }, BATCHES);
        Ok(Self { writer, creates, changes, readers, file, owner: OwnerLock::new(path), reconnect, write_probe: WriteProbe::default() })
    }

    /// Returns the control of the pooled connections.
    pub fn reconnect(&self) -> Reconnect {
        self.reconnect.clone()
    }

    /// Returns the database attributes for telemetry, after OpenTelemetry semantic conventions.
    pub fn database(&self) -> Database {
        Database { system: "sqlite", namespace: self.file.clone(), server: None }
    }
}
