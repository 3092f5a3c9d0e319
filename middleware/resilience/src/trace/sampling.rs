//! Trace sampling, decided before a span exists: an unrecorded span costs more than most layers.
//!
//! An untraced request still has a trace id in its response, log records and outbound calls. It
//! runs under an OpenTelemetry context with that id instead of a span, and [`is_recorded`] prevents
//! spans below it.
//!
//! Deferred work that runs in its own trace, linked to the originating one, is recorded exactly if
//! the originating trace was. No link is dangling, and a sampled request can be followed to its
//! end.

use std::sync::OnceLock;

use opentelemetry::{
    Context, TraceId,
    trace::{SpanContext, TraceContextExt, TraceFlags},
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

use crate::protocol::Protocol;

static SAMPLING: OnceLock<Sampling> = OnceLock::new();

/// Trust in the trace context of callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustBoundary {
    /// External callers: their trace id is kept for correlation. Sampling is decided at random
    /// here, whatever their flag or id.
    Public,
    /// Internal services only: their sampling decision is followed.
    Internal,
}

/// Sampling policy of the process.
#[derive(Debug, Clone, Copy)]
pub struct Sampling {
    /// Whether spans are exported. If not, none is started.
    pub exported: bool,
    /// Trust boundary of HTTP callers. gRPC callers are always internal services.
    pub boundary: TrustBoundary,
    /// Sampling ratio of new traces, 0 to 1.
    pub ratio: f64,
}

/// Sampling decision for a request.
#[derive(Debug)]
pub(super) enum Decision {
    /// Start a span under this parent, which may be empty.
    Traced(Context),
    /// No span: the request runs under this context.
    NotRecorded(Context),
}

impl Sampling {
    /// Installs the policy of the process. Only the first call has an effect.
    pub fn install(self) {
        let _ = SAMPLING.set(self);
    }

    /// `draw` returns a random trace id.
    fn decide(self, protocol: Protocol, parent: Context, draw: fn() -> TraceId) -> Decision {
        let caller = parent.span().span_context().clone();
        let trace_id = if caller.is_valid() { caller.trace_id() } else { draw() };
        let boundary = if protocol == Protocol::Grpc { TrustBoundary::Internal } else { self.boundary };
        let sampled = match boundary {
            TrustBoundary::Internal if caller.is_valid() => caller.is_sampled(),
            // Neither the flag nor the id of an external caller decides: either could force or
            // avoid sampling.
            TrustBoundary::Public if caller.is_valid() => is_sampled_by_ratio(draw(), self.ratio),
            TrustBoundary::Internal | TrustBoundary::Public => is_sampled_by_ratio(trace_id, self.ratio),
        };
        if sampled && self.exported {
            return Decision::Traced(parent);
        }
        let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let span_id = RandomIdGenerator::default().new_span_id();
        let ids = SpanContext::new(trace_id, span_id, flags, false, caller.trace_state().clone());
        Decision::NotRecorded(parent.with_remote_span_context(ids))
    }
}

/// Decides for a request with this parent. Without an installed policy the application's subscriber
/// decides.
pub(super) fn decide(protocol: Protocol, parent: Context) -> Decision {
    match SAMPLING.get() {
        Some(sampling) => sampling.decide(protocol, parent, || RandomIdGenerator::default().new_trace_id()),
        None => Decision::Traced(parent),
    }
}

/// Returns whether spans are exported and the current trace is recorded. Without an installed
/// policy the subscriber decides.
pub fn is_recorded() -> bool {
    SAMPLING.get().is_none_or(|sampling| sampling.exported && !is_suppressed())
}

/// Returns whether the current trace is not recorded.
fn is_suppressed() -> bool {
    Context::map_current(|context| {
        let span = context.span();
        let span = span.span_context();
        span.is_valid() && !span.is_sampled()
    })
}

/// Same algorithm as the SDK's `TraceIdRatioBased`, so that all services sample the same traces.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a fraction of 2^63 fits")]
fn is_sampled_by_ratio(trace_id: TraceId, ratio: f64) -> bool {
    let low = u128::from_be_bytes(trace_id.to_bytes()) as u64;
    ratio >= 1.0 || low >> 1 < (ratio.max(0.0) * (1_u64 << 63) as f64) as u64
}

#[cfg(test)]
mod tests {
    use opentelemetry::{
        SpanId,
        trace::{SpanKind, TraceState},
    };
    use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample};

    use super::*;

    /// Sampled at every ratio above 0, and at none below 1.
    const LOW: TraceId = TraceId::from_bytes([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    const HIGH: TraceId = TraceId::from_bytes([0xff; 16]);

    fn caller(sampled: bool) -> Context {
        let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let ids = SpanContext::new(TraceId::from(7_u128), SpanId::from(7_u64), flags, true, TraceState::default());
        Context::new().with_remote_span_context(ids)
    }

    fn is_traced(boundary: TrustBoundary, ratio: f64, parent: Context) -> bool {
        matches!((Sampling { exported: true, boundary, ratio }).decide(Protocol::Http, parent, || LOW), Decision::Traced(_))
    }

    #[test]
    fn internal_decision_followed_external_sampled() {
        for ratio in [0.0, 1.0] {
            assert!(is_traced(TrustBoundary::Internal, ratio, caller(true)));
            assert!(!is_traced(TrustBoundary::Internal, ratio, caller(false)));
            assert_eq!(is_traced(TrustBoundary::Public, ratio, caller(false)), ratio > 0.0);
            assert_eq!(is_traced(TrustBoundary::Public, ratio, caller(true)), ratio > 0.0);
            assert_eq!(is_traced(TrustBoundary::Public, ratio, Context::new()), ratio > 0.0);
        }
    }

    #[test]
    fn external_caller_cannot_choose_sampling() {
        let caller = |id: u128, sampled: bool| {
            let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
            let ids = SpanContext::new(TraceId::from(id), SpanId::from(7_u64), flags, true, TraceState::default());
            Context::new().with_remote_span_context(ids)
        };
        let sampling = Sampling { exported: true, boundary: TrustBoundary::Public, ratio: 0.1 };
        for id in [1, u128::MAX, 1 << 63] {
            for sampled in [false, true] {
                let is_traced = |draw| matches!(sampling.decide(Protocol::Http, caller(id, sampled), draw), Decision::Traced(_));
                assert_eq!((is_traced(|| LOW), is_traced(|| HIGH)), (true, false), "{id:x} {sampled}");
            }
        }
    }

    #[test]
    fn untraced_request_keeps_trace_id_and_flag() {
        let Decision::NotRecorded(context) =
            (Sampling { exported: false, boundary: TrustBoundary::Public, ratio: 0.0 }).decide(Protocol::Grpc, caller(true), || LOW)
        else {
            panic!("traced although spans are not exported");
        };
        let span = context.span();
        assert_eq!(span.span_context().trace_id(), TraceId::from(7_u128));
        assert!(span.span_context().is_sampled(), "downstream services follow the flag");
        assert_ne!(span.span_context().span_id(), SpanId::from(7_u64));
    }

    #[test]
    fn sampling_matches_sdk_ratio_sampler() {
        for (low, ratio) in [(0_u128, 0.1), (u128::from(u64::MAX), 0.9), (1 << 62, 0.5), (1 << 63, 0.5), (1 << 62, 0.3)] {
            let id = TraceId::from(low);
            let sdk_result = Sampler::TraceIdRatioBased(ratio).should_sample(None, id, "", &SpanKind::Internal, &[], &[]);
            assert_eq!(is_sampled_by_ratio(id, ratio), sdk_result.decision == SamplingDecision::RecordAndSample, "{low} {ratio}");
        }
    }

    #[test]
    fn untraced_request_suppresses_spans() {
        assert!(!is_suppressed());
        let _attached = caller(false).attach();
        assert!(is_suppressed());
    }
}
