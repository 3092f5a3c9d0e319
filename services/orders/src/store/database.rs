//! Common to both databases: errors and the connection pool.

use std::sync::Arc;

use palisade_middleware::store_instrumentation::{CheckedOut, CheckoutCounter};
use palisade_store::UnreadableRows;
use sqlx::{
    Database,
    error::{DatabaseError, ErrorKind},
    migrate::MigrateError,
    pool::PoolConnection,
};

/// Collections whose rows are read one by one.
pub(crate) const UNREADABLE: UnreadableRows = UnreadableRows(&["orders", "outbox"]);

/// Store error. A missing order is not an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database is unreachable or rejects work. A write may or may not have happened.
    #[error("the order store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The call timed out. A write may or may not have happened.
    #[error("the order store timed out")]
    Timeout,
    /// Stored or written data violates the schema or the domain rules.
    #[error("the order store is corrupt: {0}")]
    Corrupt(String),
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
