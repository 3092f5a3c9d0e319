//! W3C trace context of requests. Hand-written: formatting by the SDK costs ten times as much, and
//! its parser accepts malformed values.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    SpanId, TraceFlags, TraceId,
    trace::{SpanContext, TraceState},
};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Length of `traceparent` in version 00.
const LENGTH: usize = 55;

/// Writes `traceparent`, and `tracestate` if not empty. Writes nothing if the ids are invalid.
pub(super) fn write(span: &SpanContext, headers: &mut HeaderMap) {
    if !span.is_valid() {
        return;
    }
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    text[3..35].copy_from_slice(&hex::<16, 32>(span.trace_id().to_bytes()));
    text[36..52].copy_from_slice(&hex::<8, 16>(span.span_id().to_bytes()));
    text[53..].copy_from_slice(&hex::<1, 2>([span.trace_flags().to_u8()]));
    if let Ok(value) = HeaderValue::from_bytes(&text) {
        headers.insert(TRACEPARENT, value);
    }
    let state = span.trace_state().header();
    if !state.is_empty()
        && let Ok(value) = HeaderValue::try_from(state)
    {
        headers.insert(TRACESTATE, value);
    }
}

/// Reads the trace context of a request (W3C Trace Context §3.2 and §3.3). A malformed or repeated
/// `traceparent` counts as absent; a malformed `tracestate` is left out.
pub(super) fn read(headers: &HeaderMap) -> Option<SpanContext> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (trace_id, span_id, flags) = parse(value.as_bytes())?;
    Some(SpanContext::new(trace_id, span_id, flags, true, read_state(headers).unwrap_or_default()))
}

/// Parses `version-traceid-parentid-flags`. A later version may append fields.
fn parse(text: &[u8]) -> Option<(TraceId, SpanId, TraceFlags)> {
    let (fields, rest) = text.split_at_checked(LENGTH)?;
    let [version] = digits::<1>(&fields[..2])?;
    let has_valid_end = rest.is_empty() || (version > 0 && rest[0] == b'-');
    let has_hyphens = [2, 35, 52].into_iter().all(|at| fields[at] == b'-');
    if version == 0xff || !has_valid_end || !has_hyphens {
        return None;
    }
    let trace_id = TraceId::from_bytes(digits(&fields[3..35])?);
    let span_id = SpanId::from_bytes(digits(&fields[36..52])?);
    let [flags] = digits::<1>(&fields[53..])?;
    let valid = trace_id != TraceId::INVALID && span_id != SpanId::INVALID;
    // Other flags are not defined.
    valid.then(|| (trace_id, span_id, TraceFlags::new(flags) & TraceFlags::SAMPLED))
}

/// Decodes lower-case hex, the only allowed form.
fn digits<const BYTES: usize>(text: &[u8]) -> Option<[u8; BYTES]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Joins the `tracestate` headers.
fn read_state(headers: &HeaderMap) -> Option<TraceState> {
    let mut joined = String::new();
    for value in headers.get_all(TRACESTATE) {
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(value.to_str().ok()?);
    }
    joined.parse().ok()
}

/// Encodes bytes as lower-case hex. `DIGITS` must be twice `BYTES`.
pub(super) fn hex<const BYTES: usize, const DIGITS: usize>(bytes: [u8; BYTES]) -> [u8; DIGITS] {
    const { assert!(DIGITS == 2 * BYTES) };
    let mut digits = [0; DIGITS];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    digits
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use opentelemetry::{
        Context,
        propagation::{Injector, TextMapPropagator},
        trace::TraceContextExt,
    };
    use opentelemetry_sdk::propagation::TraceContextPropagator;

    use super::*;

    struct HeaderInjector(HeaderMap);

    impl Injector for HeaderInjector {
        fn set(&mut self, key: &str, value: String) {
            // The SDK also writes an empty state; ours omits the header.
            if !value.is_empty() {
                self.0.insert(HeaderName::from_str(key).unwrap(), value.parse().unwrap());
            }
        }
    }

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn read_one(traceparent: &str) -> Option<SpanContext> {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_bytes(traceparent.as_bytes()).unwrap());
        read(&headers)
    }

    #[test]
    fn valid_traceparent_is_read() {
        for (text, sampled) in [
            (format!("00-{ID}-{SPAN}-01"), true),
            (format!("00-{ID}-{SPAN}-00"), false),
            (format!("00-{ID}-{SPAN}-ff"), true),
            (format!("00-{ID}-{SPAN}-fe"), false),
            (format!("01-{ID}-{SPAN}-01"), true),
            (format!("cc-{ID}-{SPAN}-01-what-the-future-holds"), true),
            (format!("cc-{ID}-{SPAN}-01-"), true),
        ] {
            let caller = read_one(&text).unwrap_or_else(|| panic!("{text} was not read"));
            assert_eq!((caller.trace_id().to_string(), caller.span_id().to_string()), (ID.to_owned(), SPAN.to_owned()));
            assert_eq!(caller.is_sampled(), sampled, "{text}");
        }
    }

    #[test]
    fn malformed_traceparent_is_ignored() {
        let (upper_id, zero_id) = (ID.to_uppercase(), "0".repeat(32));
        let (short_id, long_id, short_span, long_span) = (&ID[1..], format!("{ID}0"), &SPAN[1..], format!("{SPAN}0"));
        for text in [
            String::new(),
            "00-1-1-01".to_owned(),
            format!("ff-{ID}-{SPAN}-01"),
            format!("FF-{ID}-{SPAN}-01"),
            format!("0-{ID}-{SPAN}-01"),
            format!("000-{ID}-{SPAN}-01"),
            format!("0x-{ID}-{SPAN}-01"),
            format!("+0-{ID}-{SPAN}-01"),
            format!("CC-{ID}-{SPAN}-01"),
            format!("00-{upper_id}-{SPAN}-01"),
            format!("00-{ID}-{}-01", SPAN.to_uppercase()),
            format!("00-{ID}-{SPAN}-0A"),
            format!("00-{zero_id}-{SPAN}-01"),
            format!("00-{ID}-0000000000000000-01"),
            format!("00-{short_id}-{SPAN}-01"),
            format!("00-{long_id}-{SPAN}-01"),
            format!("00-{ID}-{short_span}-01"),
            format!("00-{ID}-{long_span}-01"),
            format!("00-{short_id}-{long_span}-01"),
            format!("00-+{short_id}-{SPAN}-01"),
            format!("00-{ID}-+{short_span}-01"),
            format!("00-{ID}-{SPAN}-1"),
            format!("00-{ID}-{SPAN}-"),
            format!("00-{ID}-{SPAN}"),
            format!("00-{ID}-{SPAN}-+1"),
            format!("00-{ID}-{SPAN}-011"),
            format!("00-{ID}-{SPAN}-0g"),
            format!("00-{ID}-{SPAN}-01-more"),
            format!("00-{ID}-{SPAN}-01 "),
            format!(" 00-{ID}-{SPAN}-01"),
            format!("cc-{ID}-{SPAN}-01.more"),
            format!("00_{ID}_{SPAN}_01"),
            format!("00-{ID}-{SPAN}-01,00-{ID}-{SPAN}-01"),
            format!("00-{short_id}é-{SPAN}-01"),
        ] {
            assert_eq!(read_one(&text), None, "{text:?}");
        }
    }

    #[test]
    fn repeated_traceparent_is_ignored_and_states_are_joined() {
        let value = HeaderValue::from_str(&format!("00-{ID}-{SPAN}-01")).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, value.clone());
        headers.append(TRACESTATE, HeaderValue::from_static("a=1"));
        headers.append(TRACESTATE, HeaderValue::from_static("b=2"));
        assert_eq!(read(&headers).unwrap().trace_state().header(), "a=1,b=2");
        headers.append(TRACESTATE, HeaderValue::from_static("no pair"));
        assert_eq!(read(&headers).unwrap().trace_state().header(), "");
        headers.append(TRACEPARENT, value);
        assert_eq!(read(&headers), None);
    }

    #[test]
    fn injected_headers_match_sdk() {
        let ids =
            [(1_u128, 1_u64), (u128::MAX, u64::MAX), (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7), (0, 1), (1, 0)];
        let states = [TraceState::default(), TraceState::from_str("congo=t61rcWkgMzE,rojo=00f067aa0ba902b7").unwrap()];
        let flags = [TraceFlags::default(), TraceFlags::SAMPLED];
        for (((trace_id, span_id), flags), state) in
            ids.into_iter().flat_map(|ids| flags.map(|flags| (ids, flags))).flat_map(|of| states.clone().map(|state| (of, state)))
        {
            let span = SpanContext::new(TraceId::from(trace_id), SpanId::from(span_id), flags, true, state);
            let mut expected = HeaderInjector(HeaderMap::new());
            TraceContextPropagator::new().inject_context(&Context::new().with_remote_span_context(span.clone()), &mut expected);
            let mut written = HeaderMap::new();
            write(&span, &mut written);
            assert_eq!(written, expected.0);
        }
    }
}
