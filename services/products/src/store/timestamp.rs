//! Moments as both stores keep them: whole milliseconds since 1970.

use time::OffsetDateTime;

use super::Error;

/// Rounds down to what can be kept.
pub(super) fn to_millis(at: OffsetDateTime) -> i64 {
    at.unix_timestamp() * 1_000 + i64::from(at.millisecond())
}

/// The moment of a stored value.
pub(super) fn from_millis(millis: i64) -> Result<OffsetDateTime, Error> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).map_err(|_| Error::Corrupt(format!("{millis} is no time")))
}
