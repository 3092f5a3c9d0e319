//! Common to both databases: errors, timestamps, broken connections and readable rows.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use sqlx::{error::DatabaseError, pool::PoolConnectionMetadata};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::unreadable_rows;

/// Interval of the writes by which readiness probes that the database can be written.
const WRITE_PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// Failure of a store call. Its effect is unknown: repeat the call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store is unreachable or reported an error.
    #[error("the store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The call timed out.
    #[error("the store timed out")]
    Timeout,
    /// A record that this service never writes.
    #[error("corrupt record: {0}")]
    Corrupt(String),
}

impl Error {
    /// Whether the connection that reported the error is broken although it is open: its file
    /// cannot be written (`SQLITE_READONLY`, `SQLITE_IOERR`, `SQLITE_FULL`).
    pub(super) fn breaks_connections(&self) -> bool {
        let Self::Unavailable(source) = self else { return false };
        let database_error = source.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
        let code = database_error.and_then(DatabaseError::code).and_then(|code| code.parse::<u32>().ok());
        // An extended result code has the primary one in its lowest byte.
        code.is_some_and(|code| matches!(code & 0xff, 8 | 10 | 13))
    }
}

/// Replaces pooled connections after one of them turned out to be broken. Clones share the state.
#[derive(Debug, Clone, Default)]
pub struct Reconnect(Arc<Mutex<Option<Instant>>>);

impl Reconnect {
    /// Closes every connection that is open now after its next use.
    pub fn request(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// Whether a connection was opened after the last request.
    pub(super) fn is_current(&self, connection: &PoolConnectionMetadata) -> bool {
        self.0.lock().is_none_or(|requested_at| connection.age < requested_at.elapsed())
    }
}

/// Decides when readiness writes to the database.
#[derive(Debug, Default)]
pub(super) struct WriteProbe(Mutex<Option<Instant>>);

impl WriteProbe {
    /// Whether the last successful write is too long ago.
    pub(super) fn is_due(&self) -> bool {
        self.0.lock().is_none_or(|written_at| written_at.elapsed() >= WRITE_PROBE_INTERVAL)
    }

    /// Records a successful write.
    pub(super) fn succeeded(&self) {
        *self.0.lock() = Some(Instant::now());
    }
}

/// Returns the value of a row of `collection`, or `None` if it cannot be read, which is recorded.
pub(super) fn readable<T>(collection: &'static str, row: Result<T, Error>) -> Option<T> {
    row.inspect_err(|error| unreadable_rows::record(collection, error)).ok()
}

/// Converts to milliseconds since 1970, rounded down.
pub(super) fn to_millis(at: OffsetDateTime) -> i64 {
    at.unix_timestamp() * 1_000 + i64::from(at.millisecond())
}

/// Converts stored milliseconds since 1970.
pub(super) fn from_millis(millis: i64) -> Result<OffsetDateTime, Error> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
        .map_err(|_| Error::Corrupt(format!("{millis} is not a valid timestamp")))
}
