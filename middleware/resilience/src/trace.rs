//! Distributed tracing: spans of server and client boundaries by the OpenTelemetry semantic
//! conventions 1.45, and W3C trace context propagation.
//!
//! Without the feature `opentelemetry` there are no span layers, and the subscriber of the
//! application decides which spans are recorded.

#[cfg(feature = "opentelemetry")]
mod client;
#[cfg(feature = "opentelemetry")]
mod local_traces;
#[cfg(feature = "opentelemetry")]
mod propagation;
#[cfg(feature = "opentelemetry")]
pub mod sampling;
#[cfg(feature = "opentelemetry")]
mod scope;
#[cfg(feature = "opentelemetry")]
mod server;
#[cfg(feature = "opentelemetry")]
pub mod tail_sampling;
#[cfg(feature = "opentelemetry")]
mod trace_context;

use std::borrow::Cow;

use tracing::Span;

#[cfg(feature = "opentelemetry")]
pub(crate) use self::client::SentAttempts;
#[cfg(feature = "opentelemetry")]
pub use self::{
    client::{ClientTrace, ClientTraceLayer},
    propagation::{current_trace_id, current_traceparent},
    sampling::TrustBoundary,
    scope::{Instrumented, Scope, ScopeGuard, mark_changed, start, start_leaf, start_repeated, start_root},
    server::{ServerTrace, ServerTraceLayer},
};

/// Response header with the trace id.
#[cfg(feature = "opentelemetry")]
pub const TRACE_ID_HEADER: http::HeaderName = http::HeaderName::from_static("x-trace-id");

/// Attribute of the SERVER span of a stream, which lasts as long as its reader.
pub const STREAM: &str = "app.stream";

/// Returns whether a span started now would be recorded.
pub fn is_recorded() -> bool {
    #[cfg(feature = "opentelemetry")]
    return sampling::is_recorded();
    #[cfg(not(feature = "opentelemetry"))]
    true
}

/// Returns the current trace id as text. `None` without the feature `opentelemetry`.
pub(crate) fn current_trace_id_text() -> Option<String> {
    #[cfg(feature = "opentelemetry")]
    return current_trace_id().map(|id| id.to_string());
    #[cfg(not(feature = "opentelemetry"))]
    None
}

/// Value of a span field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldValue {
    /// Text.
    Text(Cow<'static, str>),
    /// Integer.
    Number(i64),
}

impl From<&'static str> for FieldValue {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for FieldValue {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<Cow<'static, str>> for FieldValue {
    fn from(text: Cow<'static, str>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for FieldValue {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl FieldValue {
    fn record_on(&self, span: &Span, field: &'static str) {
        match self {
            Self::Text(text) => span.record(field, &**text),
            Self::Number(number) => span.record(field, number),
        };
    }
}

/// Records a field on the current span, if the span is recorded or held and declares the field.
pub fn record(field: &'static str, value: impl Into<FieldValue>) {
    if is_recorded() {
        return value.into().record_on(&Span::current(), field);
    }
    #[cfg(feature = "opentelemetry")]
    if let Some(span) = tail_sampling::current() {
        span.record(field, value.into());
    }
}

/// Adds an event to the current span, if the span is recorded or held.
#[cfg(feature = "opentelemetry")]
pub(crate) fn add_event(name: &'static str, attributes: impl FnOnce() -> Vec<opentelemetry::KeyValue>) {
    if is_recorded() {
        tracing_opentelemetry::OpenTelemetrySpanExt::add_event(&Span::current(), name, attributes());
    } else if let Some(span) = tail_sampling::current() {
        span.add_event(name, attributes());
    }
}

/// Notes that the current span calls an endpoint, which gets the verdict about a held trace.
#[cfg(feature = "opentelemetry")]
pub fn note_call(endpoint: &std::sync::Arc<dyn tail_sampling::SendVerdict>) {
    if let Some(span) = tail_sampling::current() {
        span.add_call(endpoint);
    }
}
