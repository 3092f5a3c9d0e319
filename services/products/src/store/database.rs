//! Common to both databases: errors, timestamps and readable rows.

use palisade_middleware::group_commit::BatchError;
use palisade_store::UnreadableRows;
use sqlx::error::DatabaseError;
use time::OffsetDateTime;

/// Queue of the batches of new reservations.
pub(crate) const RESERVES: &str = "reserves";

/// Collections whose rows are read one by one.
pub(crate) const UNREADABLE: UnreadableRows =
    UnreadableRows(&["products", "product_changes", "stock_adjustments", "reservations", "news", "removed_products"]);

/// Failure of a store call. Its effect is unknown: repeat the call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store is unreachable or reported an error.
    #[error("the store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The call timed out.
    #[error("the store timed out")]
    Timeout,
    /// Too many writes wait. Nothing was written.
    #[error("the store has too many waiting writes")]
    Overloaded,
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

impl BatchError for Error {
    /// After a record that cannot be read, each reservation is made alone: a repeated step does
    /// nothing.
    fn is_rolled_back(&self) -> bool {
        matches!(self, Self::Corrupt(_))
    }

    fn copy(&self) -> Self {
        match self {
            Self::Unavailable(source) => Self::Unavailable(source.to_string().into()),
            Self::Timeout => Self::Timeout,
            Self::Overloaded => Self::Overloaded,
            Self::Corrupt(reason) => Self::Corrupt(reason.clone()),
        }
    }

    fn queue_full() -> Self {
        Self::Overloaded
    }

    fn interrupted() -> Self {
        Self::Unavailable("the batch of this write ended without a result".into())
    }
}

/// Returns the value of a row of `collection`, or `None` if it cannot be read, which is recorded.
pub(super) fn readable<T>(collection: &'static str, row: Result<T, Error>) -> Option<T> {
    row.inspect_err(|error| UNREADABLE.record(collection, error)).ok()
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
