//! Trace context of the current span, of requests and of stored work.

use http::{HeaderMap, HeaderValue};
use opentelemetry::{
    Context, TraceId,
    trace::{SpanContext, TraceContextExt},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::trace_context;

/// Returns the current trace id, sampled or not.
pub fn current_trace_id() -> Option<TraceId> {
    let id = context_of(&Span::current()).span().span_context().trace_id();
    (id != TraceId::INVALID).then_some(id)
}

/// Returns the OpenTelemetry context of `span`, or the current one if the span is disabled.
pub(super) fn context_of(span: &Span) -> Context {
    let own = span.context();
    if own.has_active_span() { own } else { Context::current() }
}

/// Returns the current W3C `traceparent`, to be stored with work that is resumed later.
pub fn current_traceparent() -> Option<String> {
    let mut headers = HeaderMap::new();
    inject(&context_of(&Span::current()), &mut headers);
    headers.get("traceparent").and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Returns the trace context in a stored `traceparent`.
pub(super) fn parse(traceparent: &str) -> Option<SpanContext> {
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", HeaderValue::from_str(traceparent).ok()?);
    trace_context::read(&headers)
}

/// Returns the trace context of a request.
pub(super) fn extract(headers: &HeaderMap) -> Context {
    // An empty base context: without trace headers the request must not inherit the current span.
    let empty = Context::new();
    match trace_context::read(headers) {
        Some(caller) => empty.with_remote_span_context(caller),
        None => empty,
    }
}

/// Writes the trace context of the span in `context`.
pub(super) fn inject(context: &Context, headers: &mut HeaderMap) {
    trace_context::write(context.span().span_context(), headers);
}
