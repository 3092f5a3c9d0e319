//! Sampler of spans that are not server spans; server spans are decided by
//! [`Sampling`](palisade_resilience::trace::sampling::Sampling) before they are created.

use std::sync::Arc;

use opentelemetry::{
    Context, KeyValue, TraceId,
    trace::{Link, SpanContext, SpanKind, TraceContextExt, TraceState},
};
use opentelemetry_sdk::trace::{ParentBasedSampler, Sampler, SamplingDecision, SamplingResult, ShouldSample};
use palisade_resilience::trace::sampling::{self, LocalTraces, Sampling};

/// Returns the sampler. Server spans were decided before; other root spans follow their link, or
/// are sampled by the ratio of `sampling`. Local traces are recorded, but not sampled.
pub(super) fn sampler(sampling: &Sampling) -> impl ShouldSample + 'static {
    let Sampling { exported, local, ratio, .. } = sampling.clone();
    let ratio = if exported { ratio } else { 0.0 };
    LinkAwareSampler { by_ratio: Sampler::parent_based(Sampler::TraceIdRatioBased(ratio)), exported, local }
}

#[derive(Debug, Clone)]
struct LinkAwareSampler {
    by_ratio: ParentBasedSampler,
    exported: bool,
    local: Option<Arc<LocalTraces>>,
}

impl LinkAwareSampler {
    /// Returns whether a span is recorded for this process alone. Adds the trace of a root span.
    fn is_local(&self, parent: Option<&Context>, trace_id: TraceId, link: Option<&SpanContext>) -> bool {
        let Some(local) = &self.local else { return false };
        // Decided before, whatever the flag of an external caller.
        let begins = parent.is_some_and(sampling::is_local);
        let is_exported = self.exported && parent.is_some_and(|parent| parent.span().span_context().is_sampled());
        let follows = !is_exported && link.is_some_and(|link| local.contains(link.trace_id()));
        if begins || follows {
            local.insert(trace_id);
        }
        begins || follows || (!is_exported && local.contains(trace_id))
    }
}

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
        let link = links.first().filter(|_| is_root).map(|link| &link.span_context);
        let decision = match link {
            Some(link) if self.exported && link.is_sampled() => SamplingDecision::RecordAndSample,
            _ if parent.is_some_and(sampling::is_sampled) => SamplingDecision::RecordAndSample,
            _ if self.is_local(parent, trace_id, link) => SamplingDecision::RecordOnly,
            Some(_) => SamplingDecision::Drop,
            None if *kind == SpanKind::Server => SamplingDecision::RecordAndSample,
            None => return self.by_ratio.should_sample(parent, trace_id, name, kind, attributes, links),
        };
        let trace_state = parent.map_or_else(TraceState::default, |parent| parent.span().span_context().trace_state().clone());
        SamplingResult { decision, attributes: Vec::new(), trace_state }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::{SpanId, trace::TraceFlags};
    use palisade_resilience::trace::TrustBoundary;

    use super::*;

    fn policy(ratio: f64) -> Sampling {
        Sampling { exported: true, boundary: TrustBoundary::Public, ratio, local: None, tail: None }
    }

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
                sampler(&policy(ratio)).should_sample(parent, TraceId::from(1_u128), "", &SpanKind::Internal, &[], links).decision
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

    #[tokio::test]
    async fn local_traces_are_recorded_but_not_sampled() {
        let local = Arc::new(LocalTraces::new(1));
        let sampler = sampler(&Sampling { local: Some(local.clone()), ..policy(0.0) });
        let decision = |parent: &Context, id: u128, links: &[Link]| {
            sampler.should_sample(Some(parent), TraceId::from(id), "", &SpanKind::Internal, &[], links).decision
        };
        assert_eq!(decision(&caller(false), 7, &[]), SamplingDecision::Drop);
        local.insert(TraceId::from(7_u128));
        assert_eq!(decision(&caller(false), 7, &[]), SamplingDecision::RecordOnly);
        assert_eq!(decision(&caller(true), 7, &[]), SamplingDecision::RecordAndSample, "an exported trace is complete");
        // Deferred work follows its link, and its own trace is then known.
        let link = Link::new(caller(false).span().span_context().clone(), Vec::new(), 0);
        assert_eq!(decision(&Context::new(), 8, &[link]), SamplingDecision::RecordOnly);
        assert!(local.contains(TraceId::from(8_u128)));
    }
}
