use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::{
    InstrumentationScope,
    trace::{Event, SpanContext, TraceFlags, TraceState},
};
use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};

use super::*;

const ROOT: u64 = 1;
const FAST: Duration = Duration::from_millis(2);

fn limits() -> Limits {
    Limits { traces: [3, 2, 2], bytes: usize::MAX, spans: 3, records: 2 }
}

fn data(trace: u128, span: u64, duration: Duration) -> SpanData {
    let started = UNIX_EPOCH + Duration::from_secs(u64::try_from(trace).unwrap());
    SpanData {
        span_context: SpanContext::new(TraceId::from(trace), SpanId::from(span), TraceFlags::default(), false, TraceState::default()),
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Server,
        name: "GET /products".into(),
        start_time: started,
        end_time: started + duration,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::default(),
    }
}

fn finished(data: SpanData) -> FinishedSpan {
    FinishedSpan::new(data, Some("gateway"))
}

fn record() -> LogRecord {
    LogRecord { at_ms: 0.0, level: "WARN", service: None, target: "test", message: "call failed".to_owned(), fields: String::new() }
}

/// Begins and ends a trace of one span.
fn request(store: &mut Store, trace: u128, duration: Duration) {
    store.begin(TraceId::from(trace), SpanId::from(ROOT));
    store.add_span(finished(data(trace, ROOT, duration)));
}

/// Seconds at which the listed traces began, which are their ids.
fn listed(store: &Store) -> Vec<u64> {
    let seconds = |summary: TraceSummary| Duration::from_secs_f64(summary.started_ms / 1_000.0).as_secs();
    store.list().into_iter().map(seconds).collect()
}

#[test]
fn failed_and_slow_traces_are_kept_longest() {
    let mut store = Store::new(limits());
    request(&mut store, 1, SLOW);
    store.begin(TraceId::from(2), SpanId::from(ROOT));
    // The failure is in a hop; a retry hides it from the caller.
    store.add_span(finished(SpanData { status: Status::error(""), ..data(2, 9, FAST) }));
    store.add_span(finished(data(2, ROOT, FAST)));
    (3..=20).for_each(|trace| request(&mut store, trace, FAST));
    assert_eq!(listed(&store), [20, 19, 18, 2, 1]);
    let failed: Vec<_> = store.list().iter().map(|summary| (summary.notable, summary.failed)).collect();
    assert_eq!(failed[2..], [(false, false), (true, true), (true, false)]);
    request(&mut store, 21, SLOW);
    assert_eq!(listed(&store), [21, 20, 19, 18, 2], "the oldest notable trace leaves for a newer one");
}

#[test]
fn refusal_seen_by_a_client_is_no_failure() {
    let mut store = Store::new(limits());
    store.begin(TraceId::from(1), SpanId::from(ROOT));
    let not_found = SpanData { status: Status::error(""), span_kind: SpanKind::Client, ..data(1, 2, FAST) };
    store.add_span(finished(not_found));
    store.add_span(finished(data(1, ROOT, FAST)));
    assert!(!store.list()[0].notable);
}

#[test]
fn retried_call_makes_a_trace_notable() {
    let mut store = Store::new(limits());
    store.begin(TraceId::from(1), SpanId::from(ROOT));
    let mut call = data(1, 2, FAST);
    call.events.events.push(Event::new("retry", SystemTime::UNIX_EPOCH, Vec::new(), 0));
    store.add_span(finished(call));
    store.add_span(finished(data(1, ROOT, FAST)));
    assert_eq!(store.list().iter().map(|summary| (summary.notable, summary.retries)).collect::<Vec<_>>(), [(true, 1)]);
}

#[test]
fn open_traces_are_bounded_and_not_listed() {
    let mut store = Store::new(limits());
    (1..=50).for_each(|trace| store.begin(TraceId::from(trace), SpanId::from(ROOT)));
    assert_eq!((store.traces.len(), listed(&store)), (2, Vec::new()));
    // The spans of evicted traces are left out.
    (1..=50).for_each(|trace| store.add_span(finished(data(trace, ROOT, FAST))));
    assert_eq!(listed(&store), [50, 49]);
}

#[test]
fn evicted_trace_does_not_return_in_part() {
    let mut store = Store::new(limits());
    (1..=3).for_each(|trace| store.begin(TraceId::from(trace), SpanId::from(ROOT)));
    // A hop of the first request, which was evicted while it ran.
    let hop = 9;
    store.begin(TraceId::from(1), SpanId::from(hop));
    store.add_span(finished(data(1, hop, FAST)));
    store.add_span(finished(data(2, ROOT, FAST)));
    assert_eq!(listed(&store), [2]);
    // A finished trace that was evicted may begin again: its client continues it.
    (4..=10).for_each(|trace| request(&mut store, trace, FAST));
    request(&mut store, 2, FAST);
    assert_eq!(listed(&store), [10, 9, 2]);
    // The memory of them is bounded.
    (100..5_000).for_each(|trace| store.begin(TraceId::from(trace), SpanId::from(ROOT)));
    assert_eq!(store.abandoned.len(), MAX_ABANDONED);
}

#[test]
fn long_stream_is_not_notable() {
    let mut store = Store::new(limits());
    for (trace, attributes) in [(1, vec![KeyValue::new(STREAM, true)]), (2, Vec::new())] {
        store.begin(TraceId::from(trace), SpanId::from(ROOT));
        store.add_span(finished(SpanData { attributes, ..data(trace, ROOT, SLOW) }));
    }
    assert_eq!(store.list().iter().map(|summary| summary.notable).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn spans_and_records_of_a_trace_are_bounded() {
    let mut store = Store::new(limits());
    let id = TraceId::from(1);
    store.begin(id, SpanId::from(ROOT));
    (2..=20).for_each(|span| store.add_span(finished(data(1, span, FAST))));
    (0..20).for_each(|_| store.add_record(id, record()));
    store.add_span(finished(data(1, ROOT, FAST)));
    let (spans, records) = store.find(id).unwrap();
    assert_eq!((spans.len(), records.len()), (4, 2), "the root span always fits");
    assert!(!store.accepts_record(id) && !store.accepts_record(TraceId::from(2)));
}

#[test]
fn bytes_are_bounded() {
    let mut store = Store::new(Limits { traces: [1_000; 3], bytes: 64 * 1024, ..limits() });
    for trace in 1..=200 {
        let text = KeyValue::new("url.path", "x".repeat(1_000));
        store.begin(TraceId::from(trace), SpanId::from(ROOT));
        store.add_span(finished(SpanData { attributes: vec![text], ..data(trace, ROOT, if trace == 1 { SLOW } else { FAST }) }));
        assert!(store.bytes <= 64 * 1024);
    }
    let listed = listed(&store);
    assert!((20..60).contains(&listed.len()), "{listed:?}");
    assert_eq!((listed[0], *listed.last().unwrap()), (200, 1), "the slow trace is kept longest");
    let bytes: usize = store.traces.values().map(|trace| trace.bytes).sum();
    assert_eq!(bytes, store.bytes);
}

#[test]
fn version_changes_with_the_list() {
    let mut store = Store::new(limits());
    store.begin(TraceId::from(1), SpanId::from(ROOT));
    let before = store.version();
    store.add_span(finished(data(1, ROOT, FAST)));
    assert_ne!(store.version(), before);
}
