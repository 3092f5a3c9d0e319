//! Structured logs: one JSON object per record with trace and span ids, or human-readable lines on
//! a terminal.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
};

use opentelemetry::trace::TraceContextExt;
use palisade_resilience::{metrics::current_service, redact};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tracing::{Event, Level, Metadata, Subscriber, field::Visit};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, ParseError, filter_fn},
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer,
    registry::LookupSpan,
};

/// Log format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human-readable on a terminal, JSON otherwise.
    Auto,
    /// One JSON object per line.
    Json,
    /// Human-readable.
    Human,
}

/// Maximum number of records queued for the writer. More records are dropped and counted, so that a
/// slow log reader never blocks the process.
const MAX_QUEUED_RECORDS: usize = 16_384;

/// Creates a non-blocking writer to standard error, with its own thread.
pub(super) fn writer() -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default().lossy(true).buffered_lines_limit(MAX_QUEUED_RECORDS).finish(std::io::stderr())
}

/// Parses a log filter, e.g. `info,palisade_orders=debug`. Records of the span exporter are off by
/// default: the process counts and logs export failures itself.
pub(super) fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    let filter = EnvFilter::try_new(text)?;
    Ok(if text.contains("opentelemetry") { filter } else { filter.add_directive("opentelemetry=off".parse()?) })
}

/// Creates the layer that writes and counts the records that pass `filter`.
pub(super) fn layer_for<S>(
    format: LogFormat,
    service: &'static str,
    filter: EnvFilter,
    writer: NonBlocking,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let terminal = std::io::stderr().is_terminal();
    let layer = tracing_subscriber::fmt::layer().with_writer(move || Redacting(writer.clone()));
    match format {
        LogFormat::Human | LogFormat::Auto if terminal || format == LogFormat::Human => layer
            .with_ansi(terminal)
            .with_target(false)
            .map_event_format(|inner| HumanLine { inner, service })
            .and_then(RecordCounter::new())
            .with_filter(filter)
            .boxed(),
        // JSON records contain only the span id, so the fields of spans, which are far more
        // numerous than records, are not formatted.
        _ => layer.event_format(JsonLine { service }).and_then(RecordCounter::new()).with_filter(filter.and(filter_fn(is_event))).boxed(),
    }
}

/// Removes secrets from each record, also from libraries, which log URLs and requests at level
/// debug.
struct Redacting(NonBlocking);

impl Write for Redacting {
    /// `bytes` are a whole record.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match str::from_utf8(bytes) {
            Ok(record) => self.0.write_all(redact::text(record).as_bytes())?,
            Err(_) => self.0.write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

pub(super) fn is_event(metadata: &Metadata<'_>) -> bool {
    metadata.is_event()
}

/// Counts log records by level.
struct RecordCounter([(Level, metrics::Counter); 5]);

impl RecordCounter {
    fn new() -> Self {
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        Self(
            levels.map(|level| {
                (level, palisade_resilience::counter!("palisade.log.records", "level" => level.as_str().to_ascii_lowercase()))
            }),
        )
    }
}

impl<S: Subscriber> Layer<S> for RecordCounter {
    fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
        if let Some((_, counter)) = self.0.iter().find(|(level, _)| level == event.metadata().level()) {
            counter.increment(1);
        }
    }
}

/// Line for a terminal: the service, then the default format.
struct HumanLine<F> {
    inner: F,
    service: &'static str,
}

impl<S, N, F> FormatEvent<S, N> for HumanLine<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        write!(writer, "{:<8} ", current_service().unwrap_or(self.service))?;
        self.inner.format_event(context, writer, event)
    }
}

struct JsonLine {
    service: &'static str,
}

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "log timestamps do not affect behaviour")]
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Map::new();
        let metadata = event.metadata();
        line.insert("timestamp".to_owned(), OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default().into());
        line.insert("level".to_owned(), metadata.level().as_str().into());
        line.insert("service".to_owned(), current_service().unwrap_or(self.service).into());
        line.insert("target".to_owned(), metadata.target().into());
        event.record(&mut Fields(&mut line));
        let context = opentelemetry::Context::current();
        let span = context.span();
        if span.span_context().is_valid() {
            line.insert("trace_id".to_owned(), span.span_context().trace_id().to_string().into());
            line.insert("span_id".to_owned(), span.span_context().span_id().to_string().into());
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

struct Fields<'a>(&'a mut Map<String, Value>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &tracing::field::Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &tracing::field::Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_f64(&mut self, field: &tracing::field::Field, value: f64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_error(&mut self, field: &tracing::field::Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        self.0.insert(field.name().to_owned(), text.into());
    }
}
