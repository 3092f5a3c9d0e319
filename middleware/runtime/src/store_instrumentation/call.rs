//! Measurement of a store call, independent of its caller.

use std::sync::Arc;

use metrics::Histogram;
use tokio::time::Instant;
use tracing::{Span, field::Empty};

use super::{Database, Operation};
use palisade_resilience::metrics::HandleCache;
use palisade_resilience::recorded_span;

/// `error.type` of work that panicked or was aborted at runtime shutdown.
const ABORTED: &str = "aborted";

/// Duration histograms of a store, cached by operation and error.
#[derive(Debug)]
pub(super) struct Series {
    database: Database,
    durations: HandleCache<(Operation, &'static str), Histogram>,
}

/// Call in progress, owned by the running work. Recorded at its end, or on drop.
#[derive(Debug)]
pub(super) struct Call {
    series: Arc<Series>,
    operation: Operation,
    started: Instant,
    span: Span,
    ended: bool,
}

impl Series {
    pub(super) fn new(database: Database) -> Self {
        Self { database, durations: HandleCache::default() }
    }

    pub(super) fn duration(&self, operation: Operation, error: &'static str) -> Arc<Histogram> {
        self.durations.get(&(operation, error), || {
            let histogram = metrics::histogram!("db.client.operation.duration", "db.system.name" => self.database.system,
                "db.namespace" => self.database.namespace.clone(), "db.collection.name" => operation.collection,
                "db.operation.name" => operation.name, "error.type" => error);
            ((operation, error), histogram)
        })
    }

    fn span(&self, operation: Operation) -> Span {
        // Calls outside a trace, such as polling loops and pings, would each start a trace of their
        // own and bury the others.
        if Span::current().is_none() {
            return Span::none();
        }
        let Database { system, namespace, server } = &self.database;
        recorded_span!(
            "store",
            otel.name = %operation,
            otel.kind = "client",
            otel.status_code = Empty,
            db.system.name = *system,
            db.namespace = &**namespace,
            db.collection.name = Some(operation.collection).filter(|collection| !collection.is_empty()),
            db.operation.name = operation.name,
            error.type = Empty,
            server.address = server.as_ref().map(|(address, _)| &**address),
            server.port = server.as_ref().map(|(_, port)| i64::from(*port)),
        )
    }
}

impl Call {
    pub(super) fn start_span(series: Arc<Series>, operation: Operation) -> Self {
        let span = series.span(operation);
        Self { series, operation, started: Instant::now(), span, ended: false }
    }

    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// Ends the call. `error` is empty on success.
    pub(super) fn end(mut self, error: &'static str) {
        self.finish(error);
    }

    fn finish(&mut self, error: &'static str) {
        self.ended = true;
        if !error.is_empty() {
            self.span.record("error.type", error);
            self.span.record("otel.status_code", "ERROR");
        }
        self.series.duration(self.operation, error).record(self.started.elapsed());
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.finish(ABORTED);
        }
    }
}
