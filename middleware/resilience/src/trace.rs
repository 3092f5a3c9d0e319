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
mod server;
#[cfg(feature = "opentelemetry")]
mod trace_context;

use tracing::Span;

#[cfg(feature = "opentelemetry")]
pub use self::{
    client::{ClientTrace, ClientTraceLayer},
    propagation::{current_trace_id, current_traceparent, link},
    sampling::TrustBoundary,
    server::{ServerTrace, ServerTraceLayer},
};

/// Response header with the trace id.
#[cfg(feature = "opentelemetry")]
pub const TRACE_ID_HEADER: http::HeaderName = http::HeaderName::from_static("x-trace-id");

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
