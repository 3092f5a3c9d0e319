//! Measurement of a store call, independent of its caller.

use std::sync::Arc;

use metrics::Histogram;
use tokio::time::Instant;
use tracing::{Span, field::Empty};

use super::{Database, Operation, pool::take_facts};
use palisade_resilience::{
    metrics::HandleCache,
    trace::{self, Scope},
};

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
    scope: Scope,
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

    fn new_span(&self, operation: Operation) -> Span {
        let Database { system, namespace, server } = &self.database;
        tracing::info_span!(
            "store",
            otel.name = %operation,
            otel.kind = "client",
            otel.status_code = Empty,
            db.system.name = *system,
            db.namespace = &**namespace,
            db.collection.name = Some(operation.collection).filter(|collection| !collection.is_empty()),
            db.operation.name = operation.name,
            db.query.summary = %operation,
            db.response.status_code = Empty,
            app.db.connection_wait_ms = Empty,
            error.type = Empty,
            server.address = server.as_ref().map(|(address, _)| &**address),
            server.port = server.as_ref().map(|(_, port)| i64::from(*port)),
        )
    }
}

impl Call {
    pub(super) fn start_span(series: Arc<Series>, operation: Operation) -> Self {
        // Calls outside a trace, such as polling loops and pings, would each start a trace of their
        // own and bury the others.
        let start = series.clone();
        let scope = trace::start_leaf(move || start.new_span(operation));
        Self { series, operation, started: Instant::now(), scope, ended: false }
    }

    /// Ends the call. `error` is empty on success.
    pub(super) fn end(mut self, error: &'static str) {
        self.finish(error);
    }

    fn finish(&mut self, error: &'static str) {
        self.ended = true;
        let (waited, status_code) = take_facts();
        if let Ok(millis @ 1..) = i64::try_from(waited.as_millis()) {
            self.scope.record("app.db.connection_wait_ms", millis);
        }
        if let Some(code) = status_code.filter(|_| !error.is_empty()) {
            self.scope.record("db.response.status_code", code);
        }
        if !error.is_empty() {
            self.scope.record("error.type", error);
            self.scope.record("otel.status_code", "ERROR");
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
