//! Bounded store of traces. Pure: the caller locks it.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use opentelemetry::{
    KeyValue, SpanId, TraceId, Value,
    trace::{Event, Link, SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::SpanData;
use palisade_resilience::trace::{STREAM, tail_sampling::SLOW};

use super::view::{LogRecord, TraceSummary};

/// Bytes of a span beside its attributes and events.
const SPAN_BYTES: usize = 512;
/// Ids of traces evicted before their end that are remembered.
const MAX_ABANDONED: usize = 1_024;

/// Bounds of the store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Maximum number of traces by [`Class`].
    pub(super) traces: [usize; 3],
    /// Maximum estimated size, bytes.
    pub(super) bytes: usize,
    /// Maximum spans of a trace. More are left out.
    pub(super) spans: usize,
    /// Maximum log records of a trace. More are left out.
    pub(super) records: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { traces: [200, 1_500, 200], bytes: 16 * 1024 * 1024, spans: 256, records: 64 }
    }
}

/// Class of a trace, the first to be evicted first when there are too many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// The response is complete, in time and without a failure.
    Ordinary,
    /// The root span has not ended.
    Open,
    /// A service failed, a call was retried, or the response was slow. A stream is not slow: it
    /// lasts as long as its reader.
    Notable,
}

const CLASSES: [Class; 3] = [Class::Ordinary, Class::Open, Class::Notable];

/// Finished span with the service that ended it.
#[derive(Debug)]
pub(super) struct FinishedSpan {
    pub(super) data: SpanData,
    pub(super) service: Option<&'static str>,
    bytes: usize,
}

impl FinishedSpan {
    pub(super) fn new(mut data: SpanData, service: Option<&'static str>) -> Self {
        // The trace state is text of the caller, up to the size of its headers, and not shown.
        data.span_context = without_state(&data.span_context);
        for link in &mut data.links.links {
            link.span_context = without_state(&link.span_context);
        }
        let attributes = data.attributes.iter().chain(data.events.iter().flat_map(|event| &event.attributes));
        let attributes = attributes.chain(data.links.iter().flat_map(|link| &link.attributes));
        let parts = size_of::<Event>() * data.events.len() + size_of::<Link>() * data.links.len();
        let status = if let Status::Error { description } = &data.status { description.len() } else { 0 };
        let bytes = SPAN_BYTES + parts + status + attributes.map(size).sum::<usize>();
        Self { data, service, bytes }
    }

    fn is_failure(&self) -> bool {
        // A client also counts refusals as errors, such as a product that does not exist.
        self.data.span_kind != SpanKind::Client && matches!(self.data.status, Status::Error { .. })
    }

    fn is_slow(&self) -> bool {
        let is_stream = self.data.attributes.iter().any(|attribute| attribute.key.as_str() == STREAM);
        !is_stream && self.data.end_time.duration_since(self.data.start_time).is_ok_and(|duration| duration >= SLOW)
    }
}

fn without_state(context: &SpanContext) -> SpanContext {
    SpanContext::new(context.trace_id(), context.span_id(), context.trace_flags(), context.is_remote(), TraceState::default())
}

fn size(attribute: &KeyValue) -> usize {
    let value = if let Value::String(text) = &attribute.value { text.as_str().len() } else { 0 };
    attribute.key.as_str().len() + value + size_of::<KeyValue>()
}

/// Spans and log records of one trace.
#[derive(Debug)]
struct Trace {
    root: SpanId,
    /// Position in the queue of its class.
    sequence: u64,
    class: Class,
    bytes: usize,
    spans: Vec<Arc<FinishedSpan>>,
    records: Vec<LogRecord>,
}

impl Trace {
    fn root(&self) -> Option<&FinishedSpan> {
        self.spans.iter().map(AsRef::as_ref).find(|span| span.data.span_context.span_id() == self.root)
    }

    /// Number of attempts that were followed by another one.
    fn retries(&self) -> usize {
        self.spans.iter().flat_map(|span| span.data.events.iter()).filter(|event| event.name == "retry").count()
    }

    fn classify(&self) -> Class {
        let Some(root) = self.root() else { return Class::Open };
        let is_notable = root.is_slow() || self.spans.iter().any(|span| span.is_failure()) || self.retries() > 0;
        if is_notable { Class::Notable } else { Class::Ordinary }
    }
}

/// Traces by id, and a queue for each class, oldest first.
#[derive(Debug)]
pub(super) struct Store {
    limits: Limits,
    traces: HashMap<TraceId, Trace>,
    queues: [BTreeMap<u64, TraceId>; 3],
    /// Traces evicted before their end, oldest first. A later span would begin them again, with
    /// another root and without their first spans.
    abandoned: VecDeque<TraceId>,
    bytes: usize,
    next: u64,
    version: u64,
}

impl Store {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, traces: HashMap::new(), queues: Default::default(), abandoned: VecDeque::new(), bytes: 0, next: 0, version: 0 }
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Begins a trace with its root span, unless it is known or was evicted before its end.
    pub(super) fn begin(&mut self, id: TraceId, root: SpanId) {
        if self.traces.contains_key(&id) || self.abandoned.contains(&id) {
            return;
        }
        let sequence = self.enqueue(id, Class::Open);
        let trace = Trace { root, sequence, class: Class::Open, bytes: SPAN_BYTES, spans: Vec::new(), records: Vec::new() };
        self.bytes += trace.bytes;
        self.traces.insert(id, trace);
        self.evict();
    }

    /// Adds a span to a known trace.
    pub(super) fn add_span(&mut self, span: FinishedSpan) {
        let id = span.data.span_context.trace_id();
        let Some(trace) = self.traces.get_mut(&id) else { return };
        // The root span always fits: without it the trace would stay open.
        if trace.spans.len() >= self.limits.spans && span.data.span_context.span_id() != trace.root {
            return;
        }
        trace.bytes += span.bytes;
        self.bytes += span.bytes;
        trace.spans.push(Arc::new(span));
        let (old, class, sequence) = (trace.class, trace.classify(), trace.sequence);
        if class != old {
            self.queues[old as usize].remove(&sequence);
            let sequence = self.enqueue(id, class);
            if let Some(trace) = self.traces.get_mut(&id) {
                (trace.class, trace.sequence) = (class, sequence);
            }
        }
        if class != Class::Open {
            self.version += 1;
        }
        self.evict();
    }

    /// Returns whether the trace is known and has room for a log record.
    pub(super) fn accepts_record(&self, id: TraceId) -> bool {
        self.traces.get(&id).is_some_and(|trace| trace.records.len() < self.limits.records)
    }

    /// Adds a log record to a trace that accepts it.
    pub(super) fn add_record(&mut self, id: TraceId, record: LogRecord) {
        if !self.accepts_record(id) {
            return;
        }
        let Some(trace) = self.traces.get_mut(&id) else { return };
        trace.bytes += record.size();
        self.bytes += record.size();
        trace.records.push(record);
        if trace.class != Class::Open {
            self.version += 1;
        }
        self.evict();
    }

    /// Returns the finished traces, newest first.
    pub(super) fn list(&self) -> Vec<TraceSummary> {
        let finished = self.traces.iter().filter_map(|(id, trace)| {
            let root = trace.root()?;
            let mut summary = TraceSummary::of_root(*id, &root.data, root.service);
            summary.notable = trace.class == Class::Notable;
            summary.failed = trace.spans.iter().any(|span| span.is_failure());
            (summary.spans, summary.records, summary.retries) = (trace.spans.len(), trace.records.len(), trace.retries());
            Some(summary)
        });
        let mut finished: Vec<_> = finished.collect();
        finished.sort_by(|a, b| b.started_ms.total_cmp(&a.started_ms));
        finished
    }

    /// Returns the spans and log records of a trace.
    pub(super) fn find(&self, id: TraceId) -> Option<(Vec<Arc<FinishedSpan>>, Vec<LogRecord>)> {
        self.traces.get(&id).map(|trace| (trace.spans.clone(), trace.records.clone()))
    }

    fn enqueue(&mut self, id: TraceId, class: Class) -> u64 {
        self.next += 1;
        self.queues[class as usize].insert(self.next, id);
        self.next
    }

    /// Removes the oldest traces of each class that has too many, and while there are too many
    /// bytes, the oldest of the first class that has any.
    fn evict(&mut self) {
        for class in CLASSES {
            while self.queues[class as usize].len() > self.limits.traces[class as usize] {
                self.remove_oldest(class);
            }
        }
        while self.bytes > self.limits.bytes {
            let Some(class) = CLASSES.into_iter().find(|class| !self.queues[*class as usize].is_empty()) else { return };
            self.remove_oldest(class);
        }
    }

    fn remove_oldest(&mut self, class: Class) {
        let Some((_, id)) = self.queues[class as usize].pop_first() else { return };
        if let Some(trace) = self.traces.remove(&id) {
            self.bytes -= trace.bytes;
            self.version += 1;
        }
        if class == Class::Open {
            self.abandoned.push_back(id);
            if self.abandoned.len() > MAX_ABANDONED {
                self.abandoned.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests;
