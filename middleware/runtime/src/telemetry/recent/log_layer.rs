//! Layer that keeps the log records of recorded traces.

use std::{
    fmt::{self, Write},
    time::SystemTime,
};

use opentelemetry::trace::TraceContextExt;
use palisade_resilience::{metrics::current_service, redact};
use tracing::{Event, Subscriber, field::Visit};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, filter_fn},
    layer,
    registry::LookupSpan,
};

use super::{
    super::log,
    RecentTraces,
    view::{LogRecord, since_1970},
};

/// Maximum length of a message or of the fields of a record, bytes.
const MAX_TEXT: usize = 4_096;

/// Creates the layer for the records that pass `filter`.
pub(crate) fn layer<S>(traces: RecentTraces, filter: EnvFilter) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    LogLayer(traces).with_filter(filter.and(filter_fn(log::is_event)))
}

struct LogLayer(RecentTraces);

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
        let context = opentelemetry::Context::current();
        let id = context.span().span_context().trace_id();
        if !self.0.0.lock().accepts_record(id) {
            return;
        }
        // Outside the lock: a formatter may log.
        let (mut text, metadata) = (Text::default(), event.metadata());
        event.record(&mut text);
        let record = LogRecord {
            at_ms: since_1970(now()),
            level: metadata.level().as_str(),
            service: current_service(),
            target: metadata.target(),
            message: bounded(redact::text(&text.message).into_owned()),
            fields: bounded(redact::text(&text.fields).into_owned()),
        };
        self.0.0.lock().add_record(id, record);
    }
}

#[expect(clippy::disallowed_methods, reason = "log timestamps do not affect behaviour")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT));
    text
}

/// Message and other fields of a record.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            let space = if self.fields.is_empty() { "" } else { " " };
            write!(self.fields, "{space}{}={value:?}", field.name())
        };
    }

    fn record_error(&mut self, field: &tracing::field::Field, value: &(dyn std::error::Error + 'static)) {
        self.record_debug(field, &tracing::field::display(value));
        let mut cause = value.source();
        while let Some(error) = cause {
            let _ = write!(self.fields, ": {error}");
            cause = error.source();
        }
    }
}
