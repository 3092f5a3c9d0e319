//! Spans of every hop, named and ended as semantic conventions 1.45 have it, and W3C trace context in and out.

mod client;
pub(crate) mod sampling;
mod server;
mod trace_context;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{Context, TraceId, propagation::Extractor, trace::TraceContextExt};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

pub use client::{ClientTrace, ClientTraceLayer};
pub(crate) use server::known_verb;
pub use server::{ServerTrace, ServerTraceLayer};

/// The response header with the trace id.
pub const TRACE_ID_HEADER: HeaderName = HeaderName::from_static("x-trace-id");

/// Whether a span that is opened now will be seen by anybody.
pub fn is_recorded() -> bool {
    sampling::is_recorded()
}

/// Records what is known only now on the span of the running code, if that has such a field and anybody will see it.
pub fn record(field: &'static str, value: impl tracing::Value) {
    if is_recorded() {
        Span::current().record(field, value);
    }
}

/// [`tracing::info_span!`], or no span where nobody will see it. The subscriber's filters, one for each layer, keep none from being made
/// and entered with every poll.
#[macro_export]
macro_rules! recorded_span {
    ($($arguments:tt)*) => {
        if $crate::trace::is_recorded() { ::tracing::info_span!($($arguments)*) } else { ::tracing::Span::none() }
    };
}

/// The trace that the running code belongs to, sampled or not.
pub fn current_trace_id() -> Option<TraceId> {
    let id = context_of(&Span::current()).span().span_context().trace_id();
    (id != TraceId::INVALID).then_some(id)
}

/// The context of `span`; of what is not traced, the ids that it runs under.
fn context_of(span: &Span) -> Context {
    let own = span.context();
    if own.has_active_span() { own } else { Context::current() }
}

/// The present `traceparent` (W3C), to be stored with work that is resumed later.
pub fn current_traceparent() -> Option<String> {
    let mut headers = HeaderMap::new();
    inject(&Span::current(), &mut headers);
    headers.get("traceparent").and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Links `span`, which was not entered yet, to the work that stored this `traceparent`. If it has no parent it is recorded exactly if that
/// work was.
pub fn link(span: &Span, traceparent: &str) {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(traceparent) {
        headers.insert("traceparent", value);
        span.add_link(extract(&headers).span().span_context().clone());
    }
}

fn extract(headers: &HeaderMap) -> Context {
    // Nothing of ours is the parent: an empty context, not the current one.
    let empty = Context::new();
    opentelemetry::global::get_text_map_propagator(|propagator| propagator.extract_with_context(&empty, &Headers(headers)))
}

fn inject(span: &Span, headers: &mut HeaderMap) {
    let context = context_of(span);
    trace_context::write(context.span().span_context(), headers);
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}
