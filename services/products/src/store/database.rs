//! Common to both databases: errors and timestamps.

use time::OffsetDateTime;

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

/// Converts to milliseconds since 1970, rounded down.
pub(super) fn to_millis(at: OffsetDateTime) -> i64 {
    at.unix_timestamp() * 1_000 + i64::from(at.millisecond())
}

/// Converts stored milliseconds since 1970.
pub(super) fn from_millis(millis: i64) -> Result<OffsetDateTime, Error> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
        .map_err(|_| Error::Corrupt(format!("{millis} is not a valid timestamp")))
}
