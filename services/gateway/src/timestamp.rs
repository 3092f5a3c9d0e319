//! Timestamps as RFC 3339: in UTC with milliseconds in responses, of any offset in requests.

use palisade_middleware::rejection::Rejection;
use serde::{Deserialize, Deserializer, de};
use time::{
    OffsetDateTime,
    format_description::{BorrowedFormatItem, well_known::Rfc3339},
    macros::format_description,
};

const FORMAT: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Formats a timestamp of a service. A missing or out-of-range timestamp is an internal error.
pub(crate) fn to_rfc3339(timestamp: Option<prost_types::Timestamp>) -> Result<String, Rejection> {
    let prost_types::Timestamp { seconds, nanos } = timestamp.ok_or_else(|| Rejection::internal("a timestamp is missing"))?;
    let moment = OffsetDateTime::from_unix_timestamp(seconds).map_err(Rejection::internal)?;
    let moment =
        moment.checked_add(time::Duration::nanoseconds(nanos.into())).ok_or_else(|| Rejection::internal("a timestamp is out of range"))?;
    moment.format(FORMAT).map_err(Rejection::internal)
}

/// Timestamp of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timestamp(OffsetDateTime);

impl Timestamp {
    /// Converts the timestamp for a service.
    pub(crate) fn into_proto(self) -> prost_types::Timestamp {
        // Nanoseconds of a second fit in 32 bits.
        let nanos = i32::try_from(self.0.nanosecond()).unwrap_or_default();
        prost_types::Timestamp { seconds: self.0.unix_timestamp(), nanos }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = |_| de::Error::invalid_value(de::Unexpected::Other("text"), &"a date and time such as 2026-01-31T12:00:00Z");
        OffsetDateTime::parse(&String::deserialize(deserializer)?, &Rfc3339).map(Self).map_err(expected)
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;
    use serde::de::{
        IntoDeserializer,
        value::{Error, StrDeserializer},
    };

    use super::*;

    fn parse(text: &str) -> Result<Timestamp, Error> {
        let deserializer: StrDeserializer<'_, Error> = text.into_deserializer();
        super::Timestamp::deserialize(deserializer).map(super::Timestamp::into_proto)
    }

    #[test]
    fn milliseconds_are_always_present() {
        assert_eq!(to_rfc3339(Some(Timestamp { seconds: 0, nanos: 0 })).unwrap(), "1970-01-01T00:00:00.000Z");
        assert_eq!(to_rfc3339(Some(Timestamp { seconds: 1_700_000_000, nanos: 120_000_000 })).unwrap(), "2023-11-14T22:13:20.120Z");
    }

    #[test]
    fn requests_may_use_any_offset_and_precision() {
        assert_eq!(parse("1970-01-01T01:00:00+01:00"), Ok(Timestamp { seconds: 0, nanos: 0 }));
        assert_eq!(parse("1969-12-31T23:59:59.5Z"), Ok(Timestamp { seconds: -1, nanos: 500_000_000 }));
        for text in
            ["", "now", "2026-01-31", "2026-01-31T12:00:00", "2026-02-30T12:00:00Z", "2026-01-31T25:00:00Z", "0", "+12026-01-31T12:00:00Z"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn invalid_timestamp_is_rejected() {
        assert!(to_rfc3339(None).is_err());
        assert!(to_rfc3339(Some(Timestamp { seconds: i64::MAX, nanos: 0 })).is_err());
    }
}
