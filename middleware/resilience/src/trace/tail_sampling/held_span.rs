//! Span of an undecided trace: what is needed to make a real span of it later.

use std::{cell::Cell, fmt, sync::Arc, time::SystemTime};

use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, TraceContextExt, TraceState},
};
use opentelemetry_sdk::trace::SpanData;
use parking_lot::Mutex;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{HeldTrace, SendVerdict};
use crate::{
    service_scope::{current_service, in_service},
    trace::FieldValue,
};

/// Starts the span with the attributes known at its start.
pub(in crate::trace) type StartSpan = Box<dyn FnOnce() -> Span + Send>;

/// Running span of an undecided trace.
#[derive(Debug)]
pub(in crate::trace) struct HeldSpan {
    trace: Arc<HeldTrace>,
    id: SpanId,
    /// `None` after the end.
    running: Mutex<Option<FinishedSpan>>,
}

/// Ended span of an undecided trace.
pub(super) struct FinishedSpan {
    id: SpanId,
    parent: SpanId,
    link: Option<SpanContext>,
    start: StartSpan,
    started: SystemTime,
    ended: SystemTime,
    fields: Vec<(&'static str, FieldValue)>,
    events: Vec<(&'static str, SystemTime, Vec<KeyValue>)>,
    service: Option<&'static str>,
}

/// Marks the current span of a context.
struct Current(Arc<HeldSpan>);

/// Returns the held span that this code runs under.
pub(in crate::trace) fn current() -> Option<Arc<HeldSpan>> {
    Context::map_current(|context| of(context).cloned())
}

/// Returns the held span of `context`.
pub(super) fn of(context: &Context) -> Option<&Arc<HeldSpan>> {
    context.get::<Current>().map(|current| &current.0)
}

#[expect(clippy::disallowed_methods, reason = "span timestamps do not affect behaviour")]
fn now() -> SystemTime {
    SystemTime::now()
}

impl HeldSpan {
    /// Begins a span with this id below `parent`, which may be invalid.
    pub(in crate::trace) fn begin(
        trace: Arc<HeldTrace>,
        (id, parent): (SpanId, SpanId),
        link: Option<SpanContext>,
        start: StartSpan,
    ) -> Arc<Self> {
        let started = now();
        let (fields, events) = (Vec::new(), Vec::new());
        let running = FinishedSpan { id, parent, link, start, started, ended: started, fields, events, service: current_service() };
        Arc::new(Self { trace, id, running: Mutex::new(Some(running)) })
    }

    pub(in crate::trace) fn trace(&self) -> &Arc<HeldTrace> {
        &self.trace
    }

    pub(in crate::trace) fn id(&self) -> SpanId {
        self.id
    }

    /// Returns `context` with this span as the current one.
    pub(in crate::trace) fn attach_to(self: &Arc<Self>, context: &Context, state: TraceState) -> Context {
        let ids = SpanContext::new(self.trace.id(), self.id, TraceFlags::default(), false, state);
        context.with_value(Current(self.clone())).with_remote_span_context(ids)
    }

    pub(in crate::trace) fn record(&self, field: &'static str, value: FieldValue) {
        // Only ever recorded as an error.
        if field == "otel.status_code" {
            self.trace.mark_failed();
        }
        if let Some(span) = &mut *self.running.lock() {
            span.fields.push((field, value));
        }
    }

    /// Adds an event of a failed attempt.
    pub(in crate::trace) fn add_event(&self, name: &'static str, attributes: Vec<KeyValue>) {
        self.trace.mark_failed();
        if let Some(span) = &mut *self.running.lock() {
            span.events.push((name, now(), attributes));
        }
    }

    /// Notes that this span calls an endpoint.
    pub(in crate::trace) fn add_call(&self, endpoint: &Arc<dyn SendVerdict>) {
        self.trace.add_call(self.id, endpoint);
    }

    /// Ends the span.
    pub(in crate::trace) fn end(&self) {
        let ended = self.running.lock().take();
        if let Some(span) = ended {
            self.trace.add_span(FinishedSpan { ended: now(), ..span });
        }
    }
}

impl FinishedSpan {
    /// Makes a real span, whose processors apply [`replayed`].
    pub(super) fn replay(self, trace: TraceId) {
        let state = TraceState::default();
        // Sampled because of its parent. A root span loses it again.
        let parent = if self.parent == SpanId::INVALID { self.id } else { self.parent };
        let parent = Context::new().with_remote_span_context(SpanContext::new(trace, parent, TraceFlags::SAMPLED, true, state));
        let replay = Replay { id: self.id, parent: self.parent, started: self.started, ended: self.ended };
        let _guards = (parent.clone().attach(), Replaying::begin(replay));
        in_service(self.service, move || {
            let span = (self.start)();
            // Fails only without an OpenTelemetry subscriber.
            let _ = span.set_parent(parent);
            if let Some(link) = self.link {
                span.add_link(link);
            }
            for (field, value) in self.fields {
                value.record_on(&span, field);
            }
            for (name, at, attributes) in self.events {
                span.add_event_with_timestamp(name, at, attributes);
            }
        });
    }
}

impl fmt::Debug for FinishedSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FinishedSpan").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Ids and times of a held span, which replace those of the real span made of it.
#[derive(Debug, Clone, Copy)]
pub struct Replay {
    id: SpanId,
    parent: SpanId,
    started: SystemTime,
    ended: SystemTime,
}

thread_local! {
    static REPLAYED: Cell<Option<Replay>> = const { Cell::new(None) };
}

/// Returns the replay whose span starts or ends on this thread now.
pub fn replayed() -> Option<Replay> {
    REPLAYED.get()
}

impl Replay {
    /// Replaces ids and times.
    pub fn apply(self, span: &mut SpanData) {
        let ids = &span.span_context;
        span.span_context = SpanContext::new(ids.trace_id(), self.id, ids.trace_flags(), false, ids.trace_state().clone());
        span.parent_span_id = self.parent;
        span.parent_span_is_remote &= self.parent != SpanId::INVALID;
        (span.start_time, span.end_time) = (self.started, self.ended);
    }
}

/// Guard: spans made on this thread are replayed.
struct Replaying;

impl Replaying {
    fn begin(replay: Replay) -> Self {
        REPLAYED.set(Some(replay));
        Self
    }
}

impl Drop for Replaying {
    fn drop(&mut self) {
        REPLAYED.set(None);
    }
}
