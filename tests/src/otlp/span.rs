//! Exported spans and the tree of a trace.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value},
    trace::v1::{ResourceSpans, span::SpanKind, status::StatusCode},
};
use serde_json::{Value, json};

/// Attributes by key, with typed values.
pub type Attributes = BTreeMap<String, Value>;

/// Finished span.
#[derive(Debug, Clone)]
pub struct Span {
    /// `service.name`.
    pub service: String,
    /// Resource attributes of the process.
    pub resource: Attributes,
    /// Trace ID, 32 hexadecimal digits.
    pub trace_id: String,
    /// Span ID, 16 hexadecimal digits.
    pub id: String,
    /// ID of the parent span.
    pub parent: Option<String>,
    /// Name.
    pub name: String,
    /// `SERVER`, `CLIENT`, `INTERNAL`, `PRODUCER` or `CONSUMER`.
    pub kind: &'static str,
    /// `Unset`, `Ok` or `Error`.
    pub status: &'static str,
    /// Span attributes.
    pub attributes: Attributes,
    /// Events with their attributes.
    pub events: Vec<(String, Attributes)>,
    /// Links: trace ID and span ID.
    pub links: Vec<(String, String)>,
    started: u64,
}

/// Spans of one trace.
#[derive(Debug, Clone)]
pub struct Trace(pub Vec<Span>);

impl Span {
    /// Converts the spans exported by one process.
    pub fn from_resource(exported: ResourceSpans) -> impl Iterator<Item = Self> {
        let resource = attributes(exported.resource.unwrap_or_default().attributes);
        let service = resource.get("service.name").and_then(Value::as_str).unwrap_or_default().to_owned();
        exported.scope_spans.into_iter().flat_map(|scope| scope.spans).map(move |span| Self {
            service: service.clone(),
            resource: resource.clone(),
            trace_id: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: Some(hex(&span.parent_span_id)).filter(|id| !id.is_empty()),
            kind: match span.kind() {
                SpanKind::Server => "SERVER",
                SpanKind::Client => "CLIENT",
                SpanKind::Internal => "INTERNAL",
                SpanKind::Producer => "PRODUCER",
                SpanKind::Consumer => "CONSUMER",
                SpanKind::Unspecified => "another",
            },
            status: match span.status.as_ref().map(opentelemetry_proto::tonic::trace::v1::Status::code) {
                None | Some(StatusCode::Unset) => "Unset",
                Some(StatusCode::Ok) => "Ok",
                Some(StatusCode::Error) => "Error",
            },
            name: span.name,
            attributes: attributes(span.attributes),
            events: span.events.into_iter().map(|event| (event.name, attributes(event.attributes))).collect(),
            links: span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect(),
            started: span.start_time_unix_nano,
        })
    }

    /// Returns the value of an attribute, null if it is absent.
    pub fn attribute(&self, key: &str) -> Value {
        self.attributes.get(key).cloned().unwrap_or_default()
    }
}

impl Trace {
    /// Returns the only span without a parent.
    pub fn root(&self) -> &Span {
        let roots: Vec<_> = self.0.iter().filter(|span| span.parent.is_none()).collect();
        let [root] = roots.as_slice() else { panic!("{} spans have no parent:\n{self:#?}", roots.len()) };
        root
    }

    /// Returns the children of `span`, oldest first.
    pub fn children(&self, span: &Span) -> Vec<&Span> {
        let mut children: Vec<_> = self.0.iter().filter(|child| child.parent.as_ref() == Some(&span.id)).collect();
        children.sort_by_key(|child| child.started);
        children
    }

    /// Returns the only span of this name and kind.
    pub fn single(&self, kind: &str, name: &str) -> &Span {
        let found: Vec<_> = self.0.iter().filter(|span| span.kind == kind && span.name == name).collect();
        let [one] = found.as_slice() else { panic!("{} are {kind} {name}:\n{self:#?}", found.len()) };
        one
    }

    /// Returns whether every span but the root has its parent in the trace.
    pub fn is_complete(&self) -> bool {
        let ids: BTreeSet<_> = self.0.iter().map(|span| &span.id).collect();
        self.0.iter().filter(|span| !span.parent.as_ref().is_some_and(|parent| ids.contains(parent))).count() == 1
    }

    /// Renders the tree: one line per span with service, kind and indented name.
    pub fn tree(&self) -> String {
        let mut text = String::new();
        self.draw(self.root(), 0, &mut text);
        text
    }

    fn draw(&self, span: &Span, depth: usize, text: &mut String) {
        let _ = writeln!(text, "{:<10}{:<10}{:depth$}{}", span.service, span.kind, "", span.name);
        for child in self.children(span) {
            self.draw(child, depth + 2, text);
        }
    }
}

fn attributes(pairs: Vec<KeyValue>) -> Attributes {
    pairs.into_iter().map(|pair| (pair.key, value(pair.value))).collect()
}

fn value(value: Option<AnyValue>) -> Value {
    match value.and_then(|value| value.value) {
        Some(any_value::Value::StringValue(text)) => json!(text),
        Some(any_value::Value::BoolValue(value)) => json!(value),
        Some(any_value::Value::IntValue(number)) => json!(number),
        Some(any_value::Value::DoubleValue(number)) => json!(number),
        other => panic!("unexpected attribute type: {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
