//! Whether a request is traced, decided before there is a span: one that nobody will see costs more than most layers do.
//!
//! A request that is not traced still has a trace id, in its answer, its log lines and its calls. It runs under an OpenTelemetry context
//! with that id instead of under a span, and [`is_recorded`] keeps everything below it from opening one.
//!
//! Work that goes on later in a trace of its own, linked to the one that it began in, is recorded exactly if that was: so no link leads
//! nowhere, and whoever is to be found in the first trace is to be found to its end.

use std::sync::OnceLock;

use opentelemetry::{
    Context, KeyValue, TraceId,
    trace::{Link, SpanContext, SpanKind, TraceContextExt, TraceFlags, TraceState},
};
use opentelemetry_sdk::trace::{
    IdGenerator, ParentBasedSampler, RandomIdGenerator, Sampler, SamplingDecision, SamplingResult, ShouldSample,
};

use crate::{respond::Protocol, telemetry::TrustBoundary};

static SAMPLING: OnceLock<Sampling> = OnceLock::new();

/// The policy of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sampling {
    /// Whether spans leave the process. If not, none is opened.
    pub(crate) exported: bool,
    /// Who calls by HTTP; by gRPC only services do.
    pub(crate) boundary: TrustBoundary,
    /// Share of new traces, 0 to 1.
    pub(crate) ratio: f64,
}

/// What is decided for one request.
#[derive(Debug)]
pub(super) enum Decision {
    /// A span is opened under this parent, which may be nobody.
    Traced(Context),
    /// No span: the request runs under this context.
    NotRecorded(Context),
}

impl Sampling {
    /// Makes this the policy of the process; the first one stays.
    pub(crate) fn install(self) {
        let _ = SAMPLING.set(self);
    }

    /// The sampler for spans: those of requests were decided before; the roots of our own follow what they are linked to, or are drawn.
    pub(crate) fn sampler(self) -> impl ShouldSample + 'static {
        LinkAwareSampler(Sampler::parent_based(Sampler::TraceIdRatioBased(self.ratio)))
    }

    fn decide(self, protocol: Protocol, parent: Context) -> Decision {
        let caller = parent.span().span_context().clone();
        let trace_id = if caller.is_valid() { caller.trace_id() } else { RandomIdGenerator::default().new_trace_id() };
        let boundary = if protocol == Protocol::Grpc { TrustBoundary::Internal } else { self.boundary };
        let sampled = match boundary {
            TrustBoundary::Internal if caller.is_valid() => caller.is_sampled(),
            // An outside caller can have its trace left out, not put in.
            TrustBoundary::Public if caller.is_valid() && !caller.is_sampled() => false,
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

/// The decision for a request with this parent. Without a policy of ours whoever installed a subscriber decides.
pub(super) fn decide(protocol: Protocol, parent: Context) -> Decision {
    match SAMPLING.get() {
        Some(sampling) => sampling.decide(protocol, parent),
        None => Decision::Traced(parent),
    }
}

/// Whether spans leave the process, and those of the running code's trace do. Without a policy of ours the subscriber decides.
pub(crate) fn is_recorded() -> bool {
    SAMPLING.get().is_none_or(|sampling| sampling.exported && !is_suppressed())
}

/// Whether the running code belongs to a trace that is not recorded.
fn is_suppressed() -> bool {
    Context::map_current(|context| {
        let span = context.span();
        let span = span.span_context();
        span.is_valid() && !span.is_sampled()
    })
}

/// As the SDK's `TraceIdRatioBased`, so that every hop that draws comes to the same result.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of 2^63")]
fn is_sampled_by_ratio(trace_id: TraceId, ratio: f64) -> bool {
    let low = u128::from_be_bytes(trace_id.to_bytes()) as u64;
    ratio >= 1.0 || low >> 1 < (ratio.max(0.0) * (1_u64 << 63) as f64) as u64
}

#[derive(Debug, Clone)]
struct LinkAwareSampler(ParentBasedSampler);

impl ShouldSample for LinkAwareSampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let is_root = !parent.is_some_and(Context::has_active_span);
        let linked_sampled = links.first().filter(|_| is_root).map(|link| link.span_context.is_sampled());
        let decision = match linked_sampled {
            Some(true) => SamplingDecision::RecordAndSample,
            Some(false) => SamplingDecision::Drop,
            None if *kind == SpanKind::Server => SamplingDecision::RecordAndSample,
            None => return self.0.should_sample(parent, trace_id, name, kind, attributes, links),
        };
        let trace_state = parent.map_or_else(TraceState::default, |parent| parent.span().span_context().trace_state().clone());
        SamplingResult { decision, attributes: Vec::new(), trace_state }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::SpanId;

    use super::*;

    fn caller(sampled: bool) -> Context {
        let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let ids = SpanContext::new(TraceId::from(7_u128), SpanId::from(7_u64), flags, true, TraceState::default());
        Context::new().with_remote_span_context(ids)
    }

    fn is_traced(boundary: TrustBoundary, ratio: f64, parent: Context) -> bool {
        matches!((Sampling { exported: true, boundary, ratio }).decide(Protocol::Http, parent), Decision::Traced(_))
    }

    #[test]
    fn a_services_decision_is_followed_and_an_outside_callers_wish_is_drawn() {
        for ratio in [0.0, 1.0] {
            assert!(is_traced(TrustBoundary::Internal, ratio, caller(true)));
            assert!(!is_traced(TrustBoundary::Internal, ratio, caller(false)));
            assert!(!is_traced(TrustBoundary::Public, ratio, caller(false)));
            assert_eq!(is_traced(TrustBoundary::Public, ratio, caller(true)), ratio > 0.0);
            assert_eq!(is_traced(TrustBoundary::Public, ratio, Context::new()), ratio > 0.0);
        }
    }

    #[test]
    fn what_is_not_traced_keeps_the_callers_trace_id_and_its_flag() {
        let Decision::NotRecorded(context) =
            (Sampling { exported: false, boundary: TrustBoundary::Public, ratio: 0.0 }).decide(Protocol::Grpc, caller(true))
        else {
            panic!("nothing is exported");
        };
        let span = context.span();
        assert_eq!(span.span_context().trace_id(), TraceId::from(7_u128));
        assert!(span.span_context().is_sampled(), "whoever exports further down goes by it");
        assert_ne!(span.span_context().span_id(), SpanId::from(7_u64));
    }

    #[test]
    fn the_draw_is_the_sdks() {
        for (low, ratio) in [(0_u128, 0.1), (u128::from(u64::MAX), 0.9), (1 << 62, 0.5), (1 << 63, 0.5), (1 << 62, 0.3)] {
            let id = TraceId::from(low);
            let sdk_result = Sampler::TraceIdRatioBased(ratio).should_sample(None, id, "", &SpanKind::Internal, &[], &[]);
            assert_eq!(is_sampled_by_ratio(id, ratio), sdk_result.decision == SamplingDecision::RecordAndSample, "{low} {ratio}");
        }
    }

    #[test]
    fn what_goes_on_later_is_recorded_exactly_if_its_beginning_was() {
        let sampler = |ratio| (Sampling { exported: true, boundary: TrustBoundary::Internal, ratio }).sampler();
        for (ratio, linked_sampled) in [(0.0, true), (1.0, false)] {
            let link = Link::new(caller(linked_sampled).span().span_context().clone(), Vec::new(), 0);
            let decision = |parent: Option<&Context>| {
                let links = std::slice::from_ref(&link);
                sampler(ratio).should_sample(parent, TraceId::from(1_u128), "", &SpanKind::Internal, &[], links).decision
            };
            assert_eq!(decision(None) == SamplingDecision::RecordAndSample, linked_sampled);
            let parent = caller(!linked_sampled);
            assert_eq!(decision(Some(&parent)) == SamplingDecision::RecordAndSample, !linked_sampled, "a parent counts more than a link");
        }
    }

    #[test]
    fn below_a_request_that_is_not_traced_nothing_is() {
        assert!(!is_suppressed());
        let _attached = caller(false).attach();
        assert!(is_suppressed());
    }
}
