//! Sampler of spans that are not server spans; server spans are decided by
//! [`Sampling`](palisade_resilience::trace::sampling::Sampling) before they are created.

use opentelemetry::{
    Context, KeyValue, TraceId,
    trace::{Link, SpanKind, TraceContextExt, TraceState},
};
use opentelemetry_sdk::trace::{ParentBasedSampler, Sampler, SamplingDecision, SamplingResult, ShouldSample};

/// Returns the sampler. Server spans were decided before; other root spans follow their link, or
/// are sampled by `ratio`.
pub(super) fn sampler(ratio: f64) -> impl ShouldSample + 'static {
    LinkAwareSampler(Sampler::parent_based(Sampler::TraceIdRatioBased(ratio)))
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
    use opentelemetry::{
        SpanId,
        trace::{SpanContext, TraceFlags},
    };

    use super::*;

    fn caller(sampled: bool) -> Context {
        let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let ids = SpanContext::new(TraceId::from(7_u128), SpanId::from(7_u64), flags, true, TraceState::default());
        Context::new().with_remote_span_context(ids)
    }

    #[test]
    fn linked_root_span_follows_linked_trace() {
        for (ratio, linked_sampled) in [(0.0, true), (1.0, false)] {
            let link = Link::new(caller(linked_sampled).span().span_context().clone(), Vec::new(), 0);
            let decision = |parent: Option<&Context>| {
                let links = std::slice::from_ref(&link);
                sampler(ratio).should_sample(parent, TraceId::from(1_u128), "", &SpanKind::Internal, &[], links).decision
            };
            assert_eq!(decision(None) == SamplingDecision::RecordAndSample, linked_sampled);
            let parent = caller(!linked_sampled);
            assert_eq!(
                decision(Some(&parent)) == SamplingDecision::RecordAndSample,
                !linked_sampled,
                "the parent takes precedence over the link"
            );
        }
    }
}
