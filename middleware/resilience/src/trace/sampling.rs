//! Trace sampling, decided before a span exists: an unrecorded span costs more than most layers.
//!
//! An untraced request still has a trace id in its response, log records and outbound calls. It
//! runs under an OpenTelemetry context with that id instead of a span, and [`is_recorded`] prevents
//! spans below it.
//!
//! Deferred work that runs in its own trace, linked to the originating one, is recorded exactly if
//! the originating trace was. No link is dangling, and a sampled request can be followed to its
//! end.
//!
//! A process may also record traces for itself ([`LocalTraces`]): their spans exist, but their
//! sampled flag is not set, so that no process exports them. With [`TailSampling`] the spans of
//! other unsampled requests are held until their outcome is known.

use std::sync::{Arc, OnceLock};

use http::HeaderMap;
use opentelemetry::{
    Context, SpanId, TraceId,
    trace::{SpanContext, TraceContextExt, TraceFlags, TraceState},
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

use super::tail_sampling::HeldTrace;

pub use super::tail_sampling::TailSampling;

pub use super::local_traces::LocalTraces;

static SAMPLING: OnceLock<Sampling> = OnceLock::new();

/// Recognizes calling services, before authentication.
pub trait InternalCallers: std::fmt::Debug + Send + Sync {
    /// Returns whether a request with these headers is from an internal service. Called for each
    /// gRPC request, so it must be cheap, for invalid credentials too.
    fn is_internal(&self, headers: &HeaderMap) -> bool;
}

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
#[derive(Debug, Clone)]
pub struct Sampling {
    /// Whether spans are exported. If not, only those of local traces are started.
    pub exported: bool,
    /// Trust boundary of HTTP callers. [`InternalCallers`] distinguishes those of gRPC.
    pub boundary: TrustBoundary,
    /// Sampling ratio of new traces, 0 to 1.
    pub ratio: f64,
    /// Traces recorded for this process alone, beside the exported ones.
    pub local: Option<Arc<LocalTraces>>,
    /// Holder of the spans of unsampled traces.
    pub tail: Option<Arc<TailSampling>>,
}

/// Marks the context of a local trace, whose root span gets its id later.
#[derive(Debug)]
struct Local;

/// Marks the context of a local trace that this process began.
#[derive(Debug)]
struct LocalRoot;

/// Marks the context of a root span that is sampled.
#[derive(Debug)]
struct Sampled;

/// Sampling decision for a request.
#[derive(Debug)]
pub(super) enum Decision {
    /// Start a span under this parent, which may be empty.
    Traced(Context),
    /// No span: the request runs under this context.
    NotRecorded(Context),
    /// The span with this id is held. The parent may be empty.
    Held(Arc<HeldTrace>, SpanId, Context),
}

/// Sampling decision for the root span of a new trace.
#[derive(Debug)]
pub(super) enum RootDecision {
    /// Start a span under this context.
    Traced(Context),
    /// No span: the work runs under this context.
    NotRecorded(Context),
    /// The span is held. It is exported at its end if the trace is sampled.
    Held {
        /// Trace of the span.
        trace: Arc<HeldTrace>,
        /// Whether the trace is sampled.
        sampled: bool,
    },
}

impl Sampling {
    /// Installs the policy of the process. Only the first call has an effect.
    pub fn install(self) {
        let _ = SAMPLING.set(self);
    }

    /// `draw` returns a random trace id.
    fn decide(&self, boundary: TrustBoundary, parent: Context, draw: fn() -> TraceId) -> Decision {
        let caller = parent.span().span_context().clone();
        let trace_id = if caller.is_valid() { caller.trace_id() } else { draw() };
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
        if let Some(local) = &self.local {
            let is_continued = boundary == TrustBoundary::Internal && caller.is_valid();
            let is_recorded = if is_continued { local.contains(trace_id) } else { local.admit() };
            if is_recorded {
                let parent = parent.with_value(Local);
                return Decision::Traced(if is_continued { parent } else { parent.with_value(LocalRoot) });
            }
            if !is_continued {
                local.remove(trace_id);
            }
        }
        let span_id = RandomIdGenerator::default().new_span_id();
        if let Some(tail) = self.tail.as_ref().filter(|_| self.exported) {
            let is_continued = boundary == TrustBoundary::Internal && caller.is_valid();
            let trace = if is_continued { tail.join(trace_id, caller.span_id()) } else { tail.begin(trace_id) };
            return Decision::Held(trace, span_id, parent);
        }
        let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let ids = SpanContext::new(trace_id, span_id, flags, false, caller.trace_state().clone());
        Decision::NotRecorded(parent.with_remote_span_context(ids))
    }

    /// Decides for a new trace, linked to the work that caused it. `may_be_idle` holds a sampled
    /// trace too, because it may turn out to be empty. `draw` returns a random trace id.
    fn decide_root(&self, link: Option<&SpanContext>, may_be_idle: bool, draw: fn() -> TraceId) -> RootDecision {
        let by_ratio = || is_sampled_by_ratio(draw(), self.ratio);
        let sampled = self.exported && link.map_or_else(by_ratio, SpanContext::is_sampled);
        let is_local = self.local.as_ref().is_some_and(|local| link.is_some_and(|link| local.contains(link.trace_id())));
        if is_local && !sampled {
            return RootDecision::Traced(Context::new());
        }
        match self.tail.as_ref().filter(|_| self.exported) {
            Some(tail) if may_be_idle || !sampled => RootDecision::Held { trace: tail.begin(draw()), sampled },
            _ if sampled => RootDecision::Traced(Context::new().with_value(Sampled)),
            _ => {
                let (id, span_id, flags) = (draw(), RandomIdGenerator::default().new_span_id(), TraceFlags::default());
                let ids = SpanContext::new(id, span_id, flags, false, TraceState::default());
                RootDecision::NotRecorded(Context::new().with_remote_span_context(ids))
            }
        }
    }

    /// Returns whether a span below `context` is recorded. A span without a parent may be linked to
    /// a recorded one, so the sampler decides.
    fn records_below(&self, context: &Context) -> bool {
        if !self.exported && self.local.is_none() {
            return false;
        }
        let span = context.span();
        let span = span.span_context();
        if !span.is_valid() {
            return true;
        }
        (self.exported && span.is_sampled()) || self.local.as_ref().is_some_and(|local| local.contains(span.trace_id()))
    }
}

/// Decides for a request with this parent. `boundary` is that of a gRPC caller. Without an
/// installed policy the application's subscriber decides.
pub(super) fn decide(boundary: Option<TrustBoundary>, parent: Context) -> Decision {
    match SAMPLING.get() {
        Some(sampling) => {
            let boundary = boundary.unwrap_or(sampling.boundary);
            sampling.decide(boundary, parent, || RandomIdGenerator::default().new_trace_id())
        }
        None => Decision::Traced(parent),
    }
}

/// Decides for a new trace, linked to the work that caused it. Without an installed policy the
/// application's subscriber decides.
pub(super) fn decide_root(link: Option<&SpanContext>, may_be_idle: bool) -> RootDecision {
    match SAMPLING.get() {
        Some(sampling) => sampling.decide_root(link, may_be_idle, || RandomIdGenerator::default().new_trace_id()),
        None => RootDecision::Traced(Context::new()),
    }
}

/// Returns whether the process exports sampled traces.
pub(super) fn is_exporting() -> bool {
    SAMPLING.get().is_some_and(|sampling| sampling.exported)
}

/// Returns the holder of the process.
pub(super) fn tail() -> Option<&'static Arc<TailSampling>> {
    SAMPLING.get()?.tail.as_ref()
}

/// Returns whether spans started now are recorded, for export or locally. Without an installed
/// policy the subscriber decides.
pub fn is_recorded() -> bool {
    SAMPLING.get().is_none_or(|sampling| Context::map_current(|context| sampling.records_below(context)))
}

/// Returns whether `context` begins or continues a local trace.
pub fn is_local(context: &Context) -> bool {
    context.get::<Local>().is_some()
}

/// Returns whether `context` begins a local trace whose outcome decides about its export.
pub(super) fn decides_about_local(context: &Context) -> bool {
    tail().is_some() && context.get::<LocalRoot>().is_some()
}

/// Has a local trace exported, if the budget of `reason` allows it.
pub(super) fn keep_local(id: TraceId, reason: &'static str) {
    let local = SAMPLING.get().and_then(|sampling| sampling.local.as_ref());
    if let (Some(local), Some(tail)) = (local, tail())
        && tail.admit(reason)
    {
        local.keep(id);
    }
}

/// Returns whether `context` begins a sampled trace.
pub fn is_sampled(context: &Context) -> bool {
    context.get::<Sampled>().is_some()
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

    fn policy(boundary: TrustBoundary, ratio: f64) -> Sampling {
        Sampling { exported: true, boundary, ratio, local: None, tail: None }
    }

    fn is_traced(boundary: TrustBoundary, ratio: f64, parent: Context) -> bool {
        matches!(policy(boundary, ratio).decide(boundary, parent, || LOW), Decision::Traced(_))
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
        let sampling = policy(TrustBoundary::Public, 0.1);
        for id in [1, u128::MAX, 1 << 63] {
            for sampled in [false, true] {
                let is_traced = |draw| matches!(sampling.decide(TrustBoundary::Public, caller(id, sampled), draw), Decision::Traced(_));
                assert_eq!((is_traced(|| LOW), is_traced(|| HIGH)), (true, false), "{id:x} {sampled}");
            }
        }
    }

    #[test]
    fn untraced_request_keeps_trace_id_and_flag() {
        let Decision::NotRecorded(context) =
            (Sampling { exported: false, ..policy(TrustBoundary::Public, 0.0) }).decide(TrustBoundary::Internal, caller(true), || LOW)
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
        let sampling = policy(TrustBoundary::Public, 0.1);
        let records_below = |context: &Context| sampling.records_below(context);
        assert!(records_below(&Context::new()) && records_below(&caller(true)) && !records_below(&caller(false)));
        let silent = Sampling { exported: false, ..policy(TrustBoundary::Public, 1.0) };
        assert!([Context::new(), caller(true)].iter().all(|context| !silent.records_below(context)));
    }

    #[tokio::test(start_paused = true)]
    async fn local_traces_are_recorded_at_any_ratio() {
        let local = Arc::new(LocalTraces::new(2));
        let sampling = Sampling { exported: false, local: Some(local.clone()), ..policy(TrustBoundary::Public, 0.0) };
        let decide = |boundary, parent| sampling.decide(boundary, parent, || HIGH);
        let is_begun = |decision| matches!(decision, Decision::Traced(parent) if is_local(&parent));
        assert!(is_begun(decide(TrustBoundary::Public, Context::new())) && is_begun(decide(TrustBoundary::Public, caller(false))));
        // The sampler adds the id of the root span; hops between services follow it.
        assert!(!is_begun(decide(TrustBoundary::Internal, caller(false))));
        local.insert(TraceId::from(7_u128));
        assert!(is_begun(decide(TrustBoundary::Internal, caller(false))) && sampling.records_below(&caller(false)));
        // At the maximum, the caller's id does not help.
        assert!(!is_begun(decide(TrustBoundary::Public, caller(true))) && !sampling.records_below(&caller(true)));
    }
}
