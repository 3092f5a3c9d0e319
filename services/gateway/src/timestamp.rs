//! Timestamps as RFC 3339 in UTC with milliseconds.

use palisade_middleware::rejection::Rejection;
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

const FORMAT: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Formats a timestamp of a service. A missing or out-of-range timestamp is an internal error.
pub(crate) fn to_rfc3339(timestamp: Option<prost_types::Timestamp>) -> Result<String, Rejection> {
    let prost_types::Timestamp { seconds, nanos } = timestamp.ok_or_else(|| Rejection::internal("a timestamp is missing"))?;
    let moment = OffsetDateTime::from_unix_timestamp(seconds).map_err(Rejection::internal)?;
    let moment =
        moment.checked_add(time::Duration::nanoseconds(nanos.into())).ok_or_else(|| Rejection::internal("a timestamp is out of range"))?;
    moment.format(FORMAT).map_err(Rejection::internal)
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;

    #[test]
    fn milliseconds_are_always_present() {
        assert_eq!(to_rfc3339(Some(Timestamp { seconds: 0, nanos: 0 })).unwrap(), "1970-01-01T00:00:00.000Z");
        assert_eq!(to_rfc3339(Some(Timestamp { seconds: 1_700_000_000, nanos: 120_000_000 })).unwrap(), "2023-11-14T22:13:20.120Z");
    }

    #[test]
    fn invalid_timestamp_is_rejected() {
        assert!(to_rfc3339(None).is_err());
        assert!(to_rfc3339(Some(Timestamp { seconds: i64::MAX, nanos: 0 })).is_err());
    }
}
