//! Traces as JSON, for a reader of the admin port.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use opentelemetry::{
    KeyValue, SpanId, TraceId, Value,
    trace::{SpanKind, Status},
};
use opentelemetry_sdk::trace::SpanData;
use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::store::FinishedSpan;

/// One line of the list of traces: its root span.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceSummary {
    /// Trace id, hexadecimal.
    pub trace_id: String,
    /// Name of the root span.
    pub name: String,
    /// Service that answered.
    pub service: Option<&'static str>,
    /// Start, milliseconds since 1970.
    pub started_ms: f64,
    /// Duration, milliseconds.
    pub duration_ms: f64,
    /// HTTP status, gRPC status or outcome of a saga.
    pub status: String,
    /// A service failed, a call was retried, or the response was slow.
    pub notable: bool,
    /// Whether a service failed, even if a retry succeeded.
    pub failed: bool,
    /// Number of spans.
    pub spans: usize,
    /// Number of log records.
    pub records: usize,
    /// Number of retries.
    pub retries: usize,
}

impl TraceSummary {
    pub(super) fn of_root(id: TraceId, root: &SpanData, service: Option<&'static str>) -> Self {
        let attribute = |name: &str| root.attributes.iter().find(|attribute| attribute.key.as_str() == name);
        let status = ["http.response.status_code", "rpc.status_code", "app.saga.outcome", "error.type"].into_iter().find_map(attribute);
        Self {
            trace_id: id.to_string(),
            name: root.name.clone().into_owned(),
            service,
            started_ms: since_1970(root.start_time),
            duration_ms: between(root.start_time, root.end_time),
            status: status.map(|status| status.value.to_string()).unwrap_or_default(),
            notable: false,
            failed: false,
            spans: 0,
            records: 0,
            retries: 0,
        }
    }
}

/// Log record of a trace.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogRecord {
    /// Time, milliseconds since 1970.
    pub at_ms: f64,
    /// Level in capitals.
    pub level: &'static str,
    /// Service that wrote it.
    pub service: Option<&'static str>,
    /// Module that wrote it.
    pub target: &'static str,
    /// Message.
    pub message: String,
    /// Other fields, `name=value`.
    pub fields: String,
}

impl LogRecord {
    /// Estimated size, bytes.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>() + self.message.len() + self.fields.len()
    }
}

/// A trace with its spans and log records.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceView {
    /// Trace id, hexadecimal.
    pub trace_id: String,
    /// Start of the first span, milliseconds since 1970.
    pub started_ms: f64,
    /// Spans by start.
    pub spans: Vec<SpanView>,
    /// Log records by time.
    pub records: Vec<LogRecord>,
}

impl TraceView {
    pub(super) fn new(id: TraceId, spans: &[Arc<FinishedSpan>], records: Vec<LogRecord>) -> Self {
        let begin = spans.iter().map(|span| span.data.start_time).min().unwrap_or(UNIX_EPOCH);
        let mut spans: Vec<_> = spans.iter().map(|span| SpanView::new(&span.data, span.service, begin)).collect();
        spans.sort_by(|a, b| a.offset_ms.total_cmp(&b.offset_ms));
        Self { trace_id: id.to_string(), started_ms: since_1970(begin), spans, records }
    }
}

/// Span of a trace.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SpanView {
    /// Span id, hexadecimal.
    pub span_id: String,
    /// Id of the parent span, hexadecimal. `None` for a root span.
    pub parent_id: Option<String>,
    /// Name.
    pub name: String,
    /// Kind in lower case, e.g. `server`.
    pub kind: &'static str,
    /// Service that made it.
    pub service: Option<&'static str>,
    /// Start after that of the trace, milliseconds.
    pub offset_ms: f64,
    /// Duration, milliseconds.
    pub duration_ms: f64,
    /// Whether its status is Error.
    pub error: bool,
    /// Attributes.
    pub attributes: Map<String, Json>,
    /// Events, such as retries.
    pub events: Vec<EventView>,
    /// Ids of linked traces, hexadecimal.
    pub links: Vec<String>,
}

impl SpanView {
    fn new(span: &SpanData, service: Option<&'static str>, begin: SystemTime) -> Self {
        let event = |event: &opentelemetry::trace::Event| EventView {
            name: event.name.clone().into_owned(),
            offset_ms: between(begin, event.timestamp),
            attributes: attributes(&event.attributes),
        };
        Self {
            span_id: span.span_context.span_id().to_string(),
            parent_id: (span.parent_span_id != SpanId::INVALID).then(|| span.parent_span_id.to_string()),
            name: span.name.clone().into_owned(),
            kind: kind(&span.span_kind),
            service,
            offset_ms: between(begin, span.start_time),
            duration_ms: between(span.start_time, span.end_time),
            error: matches!(span.status, Status::Error { .. }),
            attributes: attributes(&span.attributes),
            events: span.events.iter().map(event).collect(),
            links: span.links.iter().map(|link| link.span_context.trace_id().to_string()).collect(),
        }
    }
}

/// Event of a span.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventView {
    /// Name.
    pub name: String,
    /// Time after the start of the trace, milliseconds.
    pub offset_ms: f64,
    /// Attributes.
    pub attributes: Map<String, Json>,
}

fn kind(kind: &SpanKind) -> &'static str {
    match kind {
        SpanKind::Client => "client",
        SpanKind::Server => "server",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
        SpanKind::Internal => "internal",
    }
}

fn attributes(attributes: &[KeyValue]) -> Map<String, Json> {
    let value = |value: &Value| match value {
        Value::Bool(value) => (*value).into(),
        Value::I64(value) => (*value).into(),
        Value::F64(value) => (*value).into(),
        other => other.to_string().into(),
    };
    attributes.iter().map(|attribute| (attribute.key.to_string(), value(&attribute.value))).collect()
}

/// Milliseconds since 1970.
pub(super) fn since_1970(time: SystemTime) -> f64 {
    between(UNIX_EPOCH, time)
}

/// Milliseconds from `from` to `to`, negative if `to` is earlier.
fn between(from: SystemTime, to: SystemTime) -> f64 {
    match to.duration_since(from) {
        Ok(duration) => duration.as_secs_f64() * 1_000.0,
        Err(earlier) => -earlier.duration().as_secs_f64() * 1_000.0,
    }
}
