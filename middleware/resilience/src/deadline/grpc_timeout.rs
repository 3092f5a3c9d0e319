//! Codec of the `grpc-timeout` header: at most eight digits and a unit.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

/// Timeout of the call (gRPC over HTTP/2, "Timeout").
pub(crate) const HEADER: HeaderName = HeaderName::from_static("grpc-timeout");

/// Largest number of eight digits.
const MAX: u64 = 99_999_999;

/// Parses a header value; `None` if it is malformed.
pub(crate) fn parse(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |number: u64, digit| number * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Formats `timeout` in the finest unit that holds it, rounded down, so that the called service
/// never gets more than the remaining time.
pub(crate) fn format(timeout: Duration) -> HeaderValue {
    let nanos = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    let (mut number, unit) = match nanos {
        _ if nanos <= MAX => (nanos, b'n'),
        _ if nanos / 1_000 <= MAX => (nanos / 1_000, b'u'),
        _ if nanos / 1_000_000 <= MAX => (nanos / 1_000_000, b'm'),
        _ => (timeout.as_secs().min(MAX), b'S'),
    };
    // Written from the end without text formatting: every attempt has this header, and formatting
    // costs more than a layer.
    let (mut text, mut at) = ([0; 9], 8);
    text[at] = unit;
    loop {
        at -= 1;
        text[at] = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        if number == 0 {
            break;
        }
    }
    HeaderValue::from_bytes(&text[at..]).expect("digits and a letter are a valid header value")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &'static str) -> Option<Duration> {
        parse(&HeaderValue::from_static(text))
    }

    #[test]
    fn parse_reads_every_unit() {
        assert_eq!(parsed("2H"), Some(Duration::from_hours(2)));
        assert_eq!(parsed("3M"), Some(Duration::from_mins(3)));
        assert_eq!(parsed("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(parsed("100m"), Some(Duration::from_millis(100)));
        assert_eq!(parsed("7u"), Some(Duration::from_micros(7)));
        assert_eq!(parsed("0n"), Some(Duration::ZERO));
    }

    #[test]
    fn parse_rejects_malformed_values() {
        for text in ["", "S", "10", "-1m", "+1m", "1X", "1 m", "1.5S", "999999999S", "1mm"] {
            assert_eq!(parsed(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn format_round_trips_and_never_rounds_up(nanos in 0..100_000_000_000_000_000_u64, magnitude in 0..57_u32) {
            // Every unit, and both sides of each boundary.
            let timeout = Duration::from_nanos(nanos >> magnitude);
            let read = parse(&format(timeout)).unwrap();
            prop_assert!(read <= timeout);
            prop_assert!(timeout <= read + timeout / 100_000);
        }
    }
}
