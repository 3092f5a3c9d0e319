//! Structured logs: one JSON object per record with trace and span ids, or human-readable lines on
//! a terminal.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    sync::Arc,
};

use opentelemetry::trace::TraceContextExt;
use palisade_resilience::{metrics::current_service, redact, request_log::CurrentRequest};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tracing::{Event, Level, Metadata, Subscriber, field::Visit};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, LevelFilter, ParseError, filter_fn},
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer,
    registry::LookupSpan,
    reload,
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

/// Libraries of the transport, whose records below `warn` are many per request.
const TRANSPORT_TARGETS: [&str; 8] = ["h2", "hyper", "hyper_util", "tower", "tonic", "rustls", "reqwest", "mio"];

/// Parses a log filter, e.g. `info,palisade_orders=debug`. Records of the span exporter are off
/// unless it is named: the process counts and logs export failures itself. Those of the transport
/// below `warn` are off unless their target is named.
pub(super) fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    // Values of fields are compared as text: a regular expression may take any time to compile.
    let mut filter = EnvFilter::builder().with_regex(false).parse(text)?;
    let targets = || text.split(',').filter_map(|directive| directive.trim_start().split(['=', '[']).next());
    let names =
        |target: &str| targets().any(|named| named.strip_prefix(target).is_some_and(|rest| rest.is_empty() || rest.starts_with(':')));
    if !targets().any(|named| named.starts_with("opentelemetry")) {
        filter = filter.add_directive("opentelemetry=off".parse()?);
    }
    if filter.max_level_hint().is_none_or(|level| level > LevelFilter::WARN) {
        for target in TRANSPORT_TARGETS.into_iter().filter(|target| !names(target)) {
            filter = filter.add_directive(format!("{target}=warn").parse()?);
        }
    }
    Ok(filter)
}

/// Log filter that can be changed while the process runs.
#[derive(Clone)]
pub(super) struct Reloadable {
    text: Arc<Mutex<String>>,
    reload: Arc<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>,
}

impl fmt::Debug for Reloadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reloadable").field(&self.text).finish()
    }
}

impl Reloadable {
    /// Creates the handle of no filter.
    pub(super) fn detached() -> Self {
        Self { text: Arc::default(), reload: Arc::new(|_| Ok(())) }
    }

    /// Returns the filter in use.
    pub(super) fn text(&self) -> String {
        self.text.lock().clone()
    }

    /// Replaces the filter. Fails if `text` is no filter.
    pub(super) fn set(&self, text: &str) -> Result<(), ParseError> {
        let filter = filter(text)?;
        let mut current = self.text.lock();
        // Fails only if the subscriber is gone, which lives as long as the process.
        if (self.reload)(filter).is_ok() {
            text.clone_into(&mut current);
        }
        Ok(())
    }
}

/// Creates the layer that writes and counts the records that pass the filter `text`, and the handle
/// that replaces the filter.
pub(super) fn layer_for<S>(
    format: LogFormat,
    service: &'static str,
    text: &str,
    writer: NonBlocking,
) -> Result<(Box<dyn Layer<S> + Send + Sync>, Reloadable), ParseError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let (filter, handle) = reload::Layer::new(filter(text)?);
    let reload = Arc::new(move |filter: EnvFilter| handle.reload(filter));
    let reloadable = Reloadable { text: Arc::new(Mutex::new(text.to_owned())), reload };
    let terminal = std::io::stderr().is_terminal();
    let layer = tracing_subscriber::fmt::layer().with_writer(move || Redacting(writer.clone()));
    let layer = match format {
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
    };
    Ok((layer, reloadable))
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
        let metadata = event.metadata();
        let mut fields = Map::new();
        event.record(&mut Fields(&mut fields));
        // The first members are the same in every record, for readers without a tool.
        let mut head: Vec<(&str, Value)> = vec![
            ("timestamp", OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default().into()),
            ("level", metadata.level().as_str().into()),
            ("service", current_service().unwrap_or(self.service).into()),
            ("message", fields.remove("message").unwrap_or_default()),
        ];
        CurrentRequest::with(|request| {
            head.push(("request_id", (&*request.request_id).into()));
            head.push(("route", request.route.into()));
        });
        fields.entry("target").or_insert_with(|| metadata.target().into());
        let context = opentelemetry::Context::current();
        let span = context.span();
        if span.span_context().is_valid() {
            fields.insert("trace_id".to_owned(), span.span_context().trace_id().to_string().into());
            fields.insert("span_id".to_owned(), span.span_context().span_id().to_string().into());
        }
        writer.write_char('{')?;
        for (name, value) in &head {
            fields.remove(*name);
            write!(writer, "\"{name}\":{value},")?;
        }
        // At least the target is left.
        let rest = Value::Object(fields).to_string();
        writeln!(writer, "{}", rest.trim_start_matches('{'))
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex as StdMutex;

    use tracing::subscriber::with_default;
    use tracing_subscriber::{Registry, layer::SubscriberExt};

    use super::*;

    #[derive(Clone, Default)]
    struct Seen(Arc<StdMutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Seen {
        fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
            self.0.lock().unwrap().push(event.metadata().target().to_owned());
        }
    }

    fn emit() {
        tracing::debug!(target: "palisade_orders::saga", "ours");
        tracing::debug!(target: "h2::codec", "frame");
        tracing::debug!(target: "hyper_util::client", "connect");
        tracing::warn!(target: "h2::proto", "goaway");
    }

    fn seen_with(text: &str) -> Vec<String> {
        let seen = Seen::default();
        with_default(Registry::default().with(seen.clone().with_filter(filter(text).unwrap())), emit);
        seen.0.lock().unwrap().drain(..).collect()
    }

    #[test]
    fn transport_is_silent_at_debug_unless_named() {
        assert_eq!(seen_with("debug"), ["palisade_orders::saga", "h2::proto"]);
        assert_eq!(seen_with("debug,h2=debug"), ["palisade_orders::saga", "h2::codec", "h2::proto"]);
        assert_eq!(seen_with("error"), Vec::<String>::new());
    }

    #[test]
    fn filter_is_replaced_at_run_time() {
        let seen = Seen::default();
        let (filter, handle) = reload::Layer::new(filter("info").unwrap());
        let reload = Arc::new(move |filter: EnvFilter| handle.reload(filter));
        let reloadable = Reloadable { text: Arc::new(Mutex::new("info".to_owned())), reload };
        with_default(Registry::default().with(seen.clone().with_filter(filter)), || {
            tracing::debug!(target: "palisade_orders::saga", "before");
            reloadable.set("info,palisade_orders=debug").unwrap();
            tracing::debug!(target: "palisade_orders::saga", "after");
            assert!(reloadable.set("info,palisade_orders=loud").is_err());
        });
        assert_eq!(*seen.0.lock().unwrap(), ["palisade_orders::saga"]);
        assert_eq!(reloadable.text(), "info,palisade_orders=debug");
    }
}
