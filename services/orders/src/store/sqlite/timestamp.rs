//! Timestamps in SQLite: milliseconds since the Unix epoch.

use time::OffsetDateTime;

use crate::store::{Error, sqlx_error::corrupt};

pub(super) fn to_ms(at: OffsetDateTime) -> i64 {
    at.unix_timestamp() * 1_000 + i64::from(at.millisecond())
}

pub(super) fn from_ms(ms: i64) -> Result<OffsetDateTime, Error> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).map_err(corrupt)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn timestamp_roundtrip_keeps_milliseconds() {
        for at in [datetime!(2026-11-22 21:34:09.123 UTC), datetime!(1969-12-31 23:59:59.999 UTC), OffsetDateTime::UNIX_EPOCH] {
            assert_eq!(from_ms(to_ms(at)).unwrap(), at);
        }
        assert!(from_ms(i64::MAX).is_err());
    }
}
