//! Common to both databases: errors and the connection pool.

use std::{borrow::Borrow, sync::Arc};

use palisade_middleware::{
    group_commit::BatchError,
    store_instrumentation::{CheckedOut, CheckoutCounter, note_status_code},
};
use palisade_store::UnreadableRows;
use sqlx::{
    Database,
    error::{DatabaseError, ErrorKind},
    migrate::MigrateError,
    pool::PoolConnection,
};

/// Queue of the batches of new orders.
pub(crate) const CREATES: &str = "order_creates";
/// Queue of the batches of status changes.
pub(crate) const CHANGES: &str = "order_changes";

/// Collections whose rows are read one by one.
pub(crate) const UNREADABLE: UnreadableRows = UnreadableRows(&["orders", "outbox", "quarantined_orders"]);

/// Returns a readable row. Counts an unreadable one, and logs it.
pub(super) fn readable<T>(collection: &'static str, row: Result<T, Error>) -> Option<T> {
    row.inspect_err(|error| UNREADABLE.record(collection, error)).ok()
}

/// Store error. A missing order is not an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database is unreachable or rejects work. A write may or may not have happened.
    #[error("the order store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The call timed out. A write may or may not have happened.
    #[error("the order store timed out")]
    Timeout,
    /// Too many writes wait. Nothing was written.
    #[error("the order store has too many waiting writes")]
    Overloaded,
    /// Stored or written data violates the schema or the domain rules.
    #[error("the order store is corrupt: {0}")]
    Corrupt(String),
}

/// Failure of a batch of writes.
#[derive(Debug)]
pub(super) struct BatchFailure {
    error: Error,
    /// Whether the database rejected the statement because of its content, so that the writes may
    /// be repeated one by one.
    rolled_back: bool,
}

/// `sqlx` pool that counts its checkouts.
#[derive(Debug)]
pub(super) struct Pool<DB: Database> {
    inner: sqlx::Pool<DB>,
    checkouts: Arc<CheckoutCounter>,
}

impl<DB: Database> Pool<DB> {
    /// Wraps `inner`. Several pools may share `checkouts`.
    pub(super) fn new(inner: sqlx::Pool<DB>, checkouts: Arc<CheckoutCounter>) -> Self {
        Self { inner, checkouts }
    }

    /// Waits for a connection.
    pub(super) async fn acquire(&self) -> Result<CheckedOut<PoolConnection<DB>>, Error> {
        Ok(self.checkouts.acquire(self.inner.acquire(), |error| matches!(error, sqlx::Error::PoolTimedOut)).await?)
    }

    /// Waits for a connection that is closed after use, so that no later caller inherits its state.
    pub(super) async fn acquire_and_close(&self) -> Result<CheckedOut<PoolConnection<DB>>, Error> {
        let acquire = async {
            let mut connection = self.inner.acquire().await?;
            connection.close_on_drop();
            Ok(connection)
        };
        Ok(self.checkouts.acquire(acquire, |error| matches!(error, sqlx::Error::PoolTimedOut)).await?)
    }
}

impl Error {
    /// Whether the connection that reported the error is broken although it is open: the server has
    /// become read-only (`read_only_sql_transaction` of PostgreSQL, e.g. after a failover), or the
    /// file cannot be written (`SQLITE_READONLY`, `SQLITE_IOERR`, `SQLITE_FULL`).
    pub(super) fn breaks_connections(&self) -> bool {
        let Self::Unavailable(source) = self else { return false };
        let database_error = source.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
        let Some(code) = database_error.and_then(DatabaseError::code) else { return false };
        // An extended result code of SQLite has the primary one in its lowest byte. SQLSTATE has
        // five characters.
        code == "25006" || (code.len() < 5 && code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 8 | 10 | 13)))
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if let Some(code) = error.as_database_error().and_then(DatabaseError::code) {
            note_status_code(&code);
        }
        match &error {
            sqlx::Error::Database(database_error) if is_constraint_violation(database_error.as_ref()) => Self::Corrupt(error.to_string()),
            sqlx::Error::Database(database_error) if is_timeout(database_error.as_ref()) => Self::Timeout,
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::Encode(_) | sqlx::Error::ColumnNotFound(_) => {
                Self::Corrupt(error.to_string())
            }
            _ => Self::Unavailable(error.into()),
        }
    }
}

impl BatchFailure {
    /// Failure of a batch that has certainly written nothing.
    pub(super) fn rolled_back(error: Error) -> Self {
        Self { error, rolled_back: true }
    }

    /// Failure of a batch that may or may not have been written, or whose repetition would fail the
    /// same way.
    pub(super) fn unknown(error: Error) -> Self {
        Self { error, rolled_back: false }
    }

    /// Failure of a statement of the batch. The database has rolled the batch back if a constraint
    /// or trigger rejected it, or by class in PostgreSQL: a repeated row (21), data (22), a
    /// conflict with another transaction (40), or a lock (55).
    pub(super) fn from_statement(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(DatabaseError::code);
        let rolled_back = error.as_database_error().is_some_and(is_constraint_violation)
            || code.is_some_and(|code| matches!(code.get(..2), Some("21" | "22" | "40" | "55")));
        Self { error: error.into(), rolled_back }
    }
}

impl BatchError for BatchFailure {
    fn is_rolled_back(&self) -> bool {
        self.rolled_back
    }

    fn copy(&self) -> Self {
        let error = match &self.error {
            Error::Unavailable(source) => Error::Unavailable(source.to_string().into()),
            Error::Timeout => Error::Timeout,
            Error::Overloaded => Error::Overloaded,
            Error::Corrupt(reason) => Error::Corrupt(reason.clone()),
        };
        Self { error, rolled_back: self.rolled_back }
    }

    fn queue_full() -> Self {
        Self::rolled_back(Error::Overloaded)
    }

    fn interrupted() -> Self {
        Self::unknown(Error::Unavailable("the batch of this write ended without a result".into()))
    }
}

impl Borrow<Error> for BatchFailure {
    fn borrow(&self) -> &Error {
        &self.error
    }
}

impl From<BatchFailure> for Error {
    fn from(failure: BatchFailure) -> Self {
        failure.error
    }
}

impl From<MigrateError> for Error {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
            other => Self::Unavailable(other.into()),
        }
    }
}

/// Whether a constraint or trigger rejected the statement. Statements of this service never trigger
/// one unless there is a bug.
fn is_constraint_violation(error: &dyn DatabaseError) -> bool {
    /// Extended result code `SQLITE_CONSTRAINT_TRIGGER`.
    const SQLITE_TRIGGER: &str = "1811";
    !matches!(error.kind(), ErrorKind::Other) || error.code().as_deref() == Some(SQLITE_TRIGGER)
}

/// Codes `query_canceled` and `lock_not_available` of PostgreSQL, and `SQLITE_BUSY`.
fn is_timeout(error: &dyn DatabaseError) -> bool {
    matches!(error.code().as_deref(), Some("57014" | "55P03" | "5"))
}

/// Error for a stored value that cannot be parsed.
pub(super) fn corrupt(error: impl std::fmt::Display) -> Error {
    Error::Corrupt(error.to_string())
}
