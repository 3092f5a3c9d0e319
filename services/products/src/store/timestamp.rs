//! Timestamps of both stores: whole milliseconds since 1970.

use time::OffsetDateTime;

use super::Error;

/// Rounds down to milliseconds.
pub(super) fn to_millis(at: OffsetDateTime) -> i64 {
    at.unix_timestamp() * 1_000 + i64::from(at.millisecond())
}

/// Converts a stored value.
pub(super) fn from_millis(millis: i64) -> Result<OffsetDateTime, Error> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
        .map_err(|_| Error::Corrupt(format!("{millis} is not a valid timestamp")))
}
