//! Distributed tracing: spans of server and client boundaries by the OpenTelemetry semantic
//! conventions 1.45, and W3C trace context propagation.

mod client;
pub mod sampling;
mod server;
mod trace_context;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{Context, TraceId, trace::TraceContextExt};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

pub use client::{ClientTrace, ClientTraceLayer};
pub use sampling::TrustBoundary;
pub(crate) use server::known_verb;
pub use server::{ServerTrace, ServerTraceLayer};

/// Response header with the trace id.
pub const TRACE_ID_HEADER: HeaderName = HeaderName::from_static("x-trace-id");

/// Returns whether a span started now would be recorded.
pub fn is_recorded() -> bool {
    sampling::is_recorded()
}

/// Records a field on the current span, if the span is recorded and declares the field.
pub fn record(field: &'static str, value: impl tracing::Value) {
    if is_recorded() {
        Span::current().record(field, value);
    }
}

/// As [`tracing::info_span!`], or a disabled span if it would not be recorded. Per-layer filters of
/// the subscriber alone would not avoid the cost: the span would still be created, and entered at
/// every poll.
#[macro_export]
macro_rules! recorded_span {
    ($($arguments:tt)*) => {
        if $crate::trace::is_recorded() { ::tracing::info_span!($($arguments)*) } else { ::tracing::Span::none() }
    };
}

/// Returns the current trace id, sampled or not.
pub fn current_trace_id() -> Option<TraceId> {
    let id = context_of(&Span::current()).span().span_context().trace_id();
    (id != TraceId::INVALID).then_some(id)
}

/// Returns the OpenTelemetry context of `span`, or the current one if the span is disabled.
fn context_of(span: &Span) -> Context {
    let own = span.context();
    if own.has_active_span() { own } else { Context::current() }
}

/// Returns the current W3C `traceparent`, to be stored with work that is resumed later.
pub fn current_traceparent() -> Option<String> {
    let mut headers = HeaderMap::new();
    inject(&Span::current(), &mut headers);
    headers.get("traceparent").and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Links `span`, which must not have been entered, to the work that stored `traceparent`. A span
/// without a parent is recorded exactly if that work was.
pub fn link(span: &Span, traceparent: &str) {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(traceparent) {
        headers.insert("traceparent", value);
        span.add_link(extract(&headers).span().span_context().clone());
    }
}

fn extract(headers: &HeaderMap) -> Context {
    // An empty base context: without trace headers the request must not inherit the current span.
    let empty = Context::new();
    match trace_context::read(headers) {
        Some(caller) => empty.with_remote_span_context(caller),
        None => empty,
    }
}

fn inject(span: &Span, headers: &mut HeaderMap) {
    let context = context_of(span);
    trace_context::write(context.span().span_context(), headers);
}
