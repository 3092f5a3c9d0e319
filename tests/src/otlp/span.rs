//! A span as it was exported, and the tree that those of one trace are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value},
    trace::v1::{ResourceSpans, span::SpanKind, status::StatusCode},
};
use serde_json::{Value, json};

/// Attributes by key; the types of their values are kept.
pub type Attributes = BTreeMap<String, Value>;

/// A span that has ended.
#[derive(Debug, Clone)]
pub struct Span {
    /// `service.name`.
    pub service: String,
    /// All that is said of the process.
    pub resource: Attributes,
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub id: String,
    /// Of the span that it is a part of.
    pub parent: Option<String>,
    /// Its name.
    pub name: String,
    /// `SERVER`, `CLIENT`, `INTERNAL`, `PRODUCER` or `CONSUMER`.
    pub kind: &'static str,
    /// `Unset`, `Ok` or `Error`.
    pub status: &'static str,
    /// What is said of it.
    pub attributes: Attributes,
    /// What happened meanwhile.
    pub events: Vec<(String, Attributes)>,
    /// The trace and the span of what it goes on with.
    pub links: Vec<(String, String)>,
    started: u64,
}

/// The spans of one trace.
#[derive(Debug, Clone)]
pub struct Trace(pub Vec<Span>);

impl Span {
    /// The spans that one process exports.
    pub fn all_of(exported: ResourceSpans) -> impl Iterator<Item = Self> {
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

    /// The value of an attribute, null without it.
    pub fn attribute(&self, key: &str) -> Value {
        self.attributes.get(key).cloned().unwrap_or_default()
    }
}

impl Trace {
    /// The span without a parent; the only one.
    pub fn root(&self) -> &Span {
        let roots: Vec<_> = self.0.iter().filter(|span| span.parent.is_none()).collect();
        let [root] = roots.as_slice() else { panic!("{} spans have no parent:\n{self:#?}", roots.len()) };
        root
    }

    /// Those right below `span`, the oldest first.
    pub fn below(&self, span: &Span) -> Vec<&Span> {
        let mut below: Vec<_> = self.0.iter().filter(|child| child.parent.as_ref() == Some(&span.id)).collect();
        below.sort_by_key(|child| child.started);
        below
    }

    /// The span of this name and kind; the only one.
    pub fn one(&self, kind: &str, name: &str) -> &Span {
        let found: Vec<_> = self.0.iter().filter(|span| span.kind == kind && span.name == name).collect();
        let [one] = found.as_slice() else { panic!("{} are {kind} {name}:\n{self:#?}", found.len()) };
        one
    }

    /// Whether every span but one has its parent among them.
    pub fn is_whole(&self) -> bool {
        let ids: BTreeSet<_> = self.0.iter().map(|span| &span.id).collect();
        self.0.iter().filter(|span| !span.parent.as_ref().is_some_and(|parent| ids.contains(parent))).count() == 1
    }

    /// A line for each span below the root: service, kind, and the name, further in the deeper it is.
    pub fn tree(&self) -> String {
        let mut text = String::new();
        self.draw(self.root(), 0, &mut text);
        text
    }

    fn draw(&self, span: &Span, depth: usize, text: &mut String) {
        let _ = writeln!(text, "{:<10}{:<10}{:depth$}{}", span.service, span.kind, "", span.name);
        for child in self.below(span) {
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
        other => panic!("an attribute that nobody expects: {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
