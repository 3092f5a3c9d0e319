use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SdkTracerProvider, Span, SpanData, SpanProcessor},
};
use tracing::{dispatcher::DefaultGuard, subscriber::set_default};
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::trace::FieldValue;

/// Processor that keeps the spans, with the ids of the held ones.
#[derive(Debug, Clone, Default)]
struct Exported(Arc<Mutex<Vec<SpanData>>>);

impl SpanProcessor for Exported {
    fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

    fn on_end(&self, mut span: SpanData) {
        replayed().expect("every span is replayed").apply(&mut span);
        self.0.lock().push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Endpoint that keeps the verdicts.
#[derive(Debug, Default)]
struct Endpoint(Mutex<Vec<Verdict>>);

impl SendVerdict for Endpoint {
    fn send(&self, verdict: Verdict) {
        self.0.lock().push(verdict);
    }
}

fn exported() -> (Exported, DefaultGuard) {
    let exported = Exported::default();
    let provider = SdkTracerProvider::builder().with_span_processor(exported.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    (exported, set_default(tracing_subscriber::registry().with(layer)))
}

fn span(trace: &Arc<HeldTrace>, id: u64, parent: u64) -> Arc<HeldSpan> {
    let start = || tracing::info_span!("work", otel.name = "work", error.type = tracing::field::Empty);
    HeldSpan::begin(trace.clone(), (SpanId::from(id), SpanId::from(parent)), None, Box::new(start))
}

fn trace_id(id: u128) -> TraceId {
    TraceId::from(id)
}

fn traces(recorder: &PrometheusRecorder, outcome: &str) -> u64 {
    let series = format!("palisade_tail_sampling_traces{{outcome=\"{outcome}\"}} ");
    recorder.handle().render().lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn held_spans_keep_their_ids_when_exported() {
    let (exported, _guard) = exported();
    let policy = Arc::new(TailSampling::new(8));
    let trace = policy.begin(trace_id(7));
    let (root, child) = (span(&trace, 1, 0), span(&trace, 2, 1));
    child.record("error.type", FieldValue::from("late"));
    child.end();
    child.record("error.type", FieldValue::from("after the end"));
    assert!(exported.0.lock().is_empty(), "undecided");
    trace.keep_for("internal");
    root.end();
    let spans = exported.0.lock();
    let ids: Vec<_> = spans.iter().map(|span| (span.span_context.trace_id(), span.span_context.span_id(), span.parent_span_id)).collect();
    assert_eq!(ids, [(trace_id(7), SpanId::from(2), SpanId::from(1)), (trace_id(7), SpanId::from(1), SpanId::INVALID)]);
    assert!(spans.iter().all(|span| span.span_context.is_sampled() && span.end_time >= span.start_time));
    assert_eq!(spans[0].attributes.iter().find(|pair| pair.key.as_str() == "error.type").unwrap().value.as_str(), "late");
    assert!(replayed().is_none());
}

#[tokio::test(start_paused = true)]
async fn verdict_needs_the_calling_span_and_is_passed_on() {
    let (exported, _guard) = exported();
    let policy = Arc::new(TailSampling::new(8));
    let trace = policy.join(trace_id(7), SpanId::from(3));
    let served = span(&trace, 4, 3);
    let endpoint = Arc::new(Endpoint::default());
    served.add_call(&(endpoint.clone() as Arc<dyn SendVerdict>));
    served.end();
    policy.keep(Verdict { trace: trace_id(7), caller: SpanId::from(9) });
    policy.keep(Verdict { trace: trace_id(8), caller: SpanId::from(3) });
    assert_eq!((exported.0.lock().len(), endpoint.0.lock().len()), (0, 0));
    let verdict = Verdict { trace: trace_id(7), caller: SpanId::from(3) };
    let text = format!("nonsense,{verdict}");
    Verdict::read(&text).for_each(|verdict| policy.keep(verdict));
    assert_eq!(exported.0.lock().len(), 1);
    assert_eq!(*endpoint.0.lock(), [Verdict { trace: trace_id(7), caller: SpanId::from(4) }]);
}

#[test]
fn waiting_traces_are_bounded_and_loss_is_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        let policy = Arc::new(TailSampling::new(2));
        let held: Vec<_> = (1..=3).map(|id| policy.join(trace_id(id), SpanId::from(1))).collect();
        assert_eq!(policy.awaiting.lock().len(), 2);
        assert_eq!(Arc::strong_count(&held[0]), 1, "the oldest is replaced");
        for id in 1..=3 {
            policy.keep(Verdict { trace: trace_id(id), caller: SpanId::from(1) });
        }
        assert_eq!(traces(&recorder, "expired"), 1);
    });
}

#[tokio::test(start_paused = true)]
async fn exported_traces_are_bounded_by_reason() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let policy = Arc::new(TailSampling::new(2));
    let fail = |reason| policy.begin(trace_id(1)).keep_for(reason);
    (0..150).for_each(|_| fail("unauthenticated"));
    assert_eq!((traces(&recorder, "kept"), traces(&recorder, "over_budget")), (100, 50));
    fail("internal");
    assert_eq!(traces(&recorder, "kept"), 101, "another reason has its own budget");
}

#[test]
fn spans_of_a_trace_are_bounded() {
    let (exported, _guard) = exported();
    let policy = Arc::new(TailSampling::new(2));
    let trace = policy.begin(trace_id(1));
    (1..=100).for_each(|id| span(&trace, id, 0).end());
    trace.keep();
    assert_eq!(exported.0.lock().len(), 64);
}
