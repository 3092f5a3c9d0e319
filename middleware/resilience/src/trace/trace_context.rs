//! W3C trace context injection. Hand-written, because it runs for every call and formatting by the
//! SDK costs ten times as much.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::SpanContext;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

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
        Context, SpanId, TraceFlags, TraceId,
        propagation::{Injector, TextMapPropagator},
        trace::{TraceContextExt, TraceState},
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
