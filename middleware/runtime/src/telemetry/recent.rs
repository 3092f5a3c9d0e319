//! Recent traces of the process in memory, with their log records: what a trace backend shows of a
//! deployment, for a process without one. Bounded by number and by bytes.

mod log_layer;
mod store;
mod view;

use std::{sync::Arc, time::Duration};

use opentelemetry::{
    Context, TraceId,
    trace::{Span as _, TraceContextExt},
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanProcessor},
};
use palisade_resilience::{metrics::current_service, trace::tail_sampling};
use parking_lot::Mutex;

use self::store::{FinishedSpan, Limits, Store};

pub(super) use self::log_layer::layer;
pub use self::view::{LogRecord, SpanView, TraceSummary, TraceView};

/// New traces recorded per second that are not exported anyway. Bounds the cost under load.
pub(super) const MAX_PER_SECOND: u32 = 50;

/// Recent traces of the process. Cheap to clone; clones share the traces.
#[derive(Debug, Clone)]
pub struct RecentTraces(Arc<Mutex<Store>>);

impl RecentTraces {
    /// Creates an empty store.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Store::new(Limits::default()))))
    }

    /// Returns a number that changes with every finished or evicted trace.
    pub fn version(&self) -> u64 {
        self.0.lock().version()
    }

    /// Returns the finished traces, newest first: the last ones, and for longer those with a
    /// failure or a slow response.
    pub fn list(&self) -> Vec<TraceSummary> {
        self.0.lock().list()
    }

    /// Returns the trace with this hexadecimal id, its spans and log records in order of time.
    pub fn find(&self, id: &str) -> Option<TraceView> {
        let id = TraceId::from_hex(id).ok()?;
        let (spans, records) = self.0.lock().find(id)?;
        // Formatted without the lock.
        Some(TraceView::new(id, &spans, records))
    }
}

impl RecentTraces {
    /// Returns the finished spans of a trace, with the services that ended them.
    pub(super) fn spans(&self, id: TraceId) -> Vec<(SpanData, Option<&'static str>)> {
        let found = self.0.lock().find(id);
        found.into_iter().flat_map(|(spans, _)| spans).map(|span| (span.data.clone(), span.service)).collect()
    }
}

impl SpanProcessor for RecentTraces {
    fn on_start(&self, span: &mut Span, parent: &Context) {
        if tail_sampling::replayed().is_some() {
            return;
        }
        let parent = parent.span();
        let parent = parent.span_context();
        if !parent.is_valid() || parent.is_remote() {
            let span = span.span_context();
            self.0.lock().begin(span.trace_id(), span.span_id());
        }
    }

    fn on_end(&self, span: SpanData) {
        if tail_sampling::replayed().is_some() {
            // Not begun here, or known without its end.
            return;
        }
        let span = FinishedSpan::new(span, current_service());
        self.0.lock().add_span(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}
