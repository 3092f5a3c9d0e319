//! Unix time, the common clock of k6, Prometheus and the tests.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Current Unix time, seconds.
#[expect(clippy::disallowed_methods, reason = "external observers only have the wall clock")]
pub(crate) fn now() -> f64 {
    seconds(OffsetDateTime::now_utc())
}

/// Parses a timestamp of k6 (RFC 3339).
pub(crate) fn parse(text: &str) -> Option<f64> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(seconds)
}

#[expect(clippy::cast_precision_loss, reason = "microseconds since 1970 are below 2^52")]
fn seconds(moment: OffsetDateTime) -> f64 {
    (moment.unix_timestamp_nanos() / 1_000) as f64 / 1e6
}
