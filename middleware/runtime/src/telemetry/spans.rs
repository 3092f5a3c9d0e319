//! Span export with metrics: spans started, queued, dropped, exported and lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use metrics::{Counter, Histogram};
use opentelemetry::{
    Context, KeyValue, TraceFlags,
    trace::{Span as _, SpanContext},
};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor},
};
use palisade_resilience::{
    metrics::current_service,
    trace::{sampling::LocalTraces, tail_sampling},
};
use tokio::time::Instant;

use super::RecentTraces;

/// Processors by service: each exports the spans of its service under its name.
#[derive(Debug)]
pub(super) struct ByService<P> {
    pub(super) processors: Vec<(&'static str, P)>,
    /// Traces recorded for this process alone, which are exported if they fail.
    pub(super) local: Option<(Arc<LocalTraces>, RecentTraces)>,
}

impl<P: SpanProcessor> ByService<P> {
    /// Returns the processor of `service`, or else the first.
    fn of(&self, service: Option<&'static str>) -> Option<&P> {
        let own = self.processors.iter().find(|(name, _)| Some(*name) == service);
        own.or(self.processors.first()).map(|(_, processor)| processor)
    }

    /// Exports a span of a local trace.
    fn export_local(&self, mut span: SpanData, service: Option<&'static str>) {
        let ids = &span.span_context;
        let state = ids.trace_state().clone();
        span.span_context = SpanContext::new(ids.trace_id(), ids.span_id(), TraceFlags::SAMPLED, false, state);
        if let Some(processor) = self.of(service) {
            processor.on_end(span);
        }
    }

    fn all(&self, each: impl Fn(&P) -> OTelSdkResult) -> OTelSdkResult {
        // All are asked, whatever the first one says.
        let results: Vec<_> = self.processors.iter().map(|(_, processor)| each(processor)).collect();
        results.into_iter().collect()
    }
}

impl<P: SpanProcessor> SpanProcessor for ByService<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        if let Some(processor) = self.of(current_service()) {
            processor.on_start(span, context);
        }
    }

    fn on_end(&self, span: SpanData) {
        let service = current_service();
        let id = span.span_context.trace_id();
        match self.local.as_ref().filter(|_| !span.span_context.is_sampled()) {
            // The recent traces already have this span.
            Some((local, recent)) if local.take_kept(id) => {
                for (span, service) in recent.spans(id) {
                    self.export_local(span, service);
                }
            }
            Some((local, _)) if local.is_exported(id) => self.export_local(span, service),
            _ => {
                if let Some(processor) = self.of(service) {
                    processor.on_end(span);
                }
            }
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.all(SpanProcessor::force_flush)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        let share = timeout / u32::try_from(self.processors.len()).unwrap_or(u32::MAX).max(1);
        self.all(|processor| processor.shutdown_with_timeout(share))
    }

    fn set_resource(&mut self, resource: &Resource) {
        for (service, processor) in &mut self.processors {
            let shared = resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
            processor.set_resource(&Resource::builder_empty().with_attributes(shared).with_service_name(*service).build());
        }
    }
}

/// Creates a batch processor for `exporter` with a queue of at most `max_queued` spans.
pub(super) fn batch_processor(exporter: impl SpanExporter + 'static, max_queued: usize) -> impl SpanProcessor + 'static {
    let capacity = Arc::new(QueueCapacity { max: max_queued, used: AtomicUsize::new(0) });
    let exporter =
        CountingExporter { inner: exporter, capacity: capacity.clone(), outcomes: Outcomes::new(), failing: AtomicBool::new(false) };
    let config = BatchConfigBuilder::default().with_max_queue_size(max_queued).build();
    let processed = |error: &'static str| metrics::counter!("otel.sdk.processor.span.processed", "error.type" => error);
    CountingProcessor {
        inner: BatchSpanProcessor::builder(exporter).with_batch_config(config).build(),
        capacity,
        started: metrics::counter!("otel.sdk.span.started"),
        passed: processed(""),
        dropped: processed("queue_full"),
    }
}

/// Queue occupancy. The SDK drops spans from a full queue without an exact count, so spans without
/// a slot are dropped before the SDK queue.
#[derive(Debug)]
struct QueueCapacity {
    max: usize,
    used: AtomicUsize,
}

impl QueueCapacity {
    /// Reserves a queue slot. Returns `false` if the queue is full.
    fn try_reserve(&self) -> bool {
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| (used < self.max).then_some(used + 1)).is_ok()
    }

    fn release(&self, spans: usize) {
        self.used.fetch_sub(spans, Ordering::Relaxed);
    }
}

struct CountingProcessor {
    inner: BatchSpanProcessor,
    capacity: Arc<QueueCapacity>,
    started: Counter,
    passed: Counter,
    dropped: Counter,
}

impl std::fmt::Debug for CountingProcessor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.capacity.fmt(f)
    }
}

impl SpanProcessor for CountingProcessor {
    fn on_start(&self, span: &mut Span, context: &Context) {
        if span.span_context().is_sampled() {
            self.started.increment(1);
            self.inner.on_start(span, context);
        }
    }

    fn on_end(&self, mut span: SpanData) {
        if !span.span_context.is_sampled() {
            // Recorded for this process alone.
            return;
        }
        if let Some(replay) = tail_sampling::replayed() {
            replay.apply(&mut span);
        }
        if self.capacity.try_reserve() {
            self.passed.increment(1);
            self.inner.on_end(span);
        } else {
            self.dropped.increment(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Export metrics by `error.type`: empty, `timeout` or `failed`.
struct Outcomes([(Counter, Histogram); 3]);

impl Outcomes {
    fn new() -> Self {
        Self(["", "timeout", "failed"].map(|error| {
            let spans = metrics::counter!("otel.sdk.exporter.span.exported", "error.type" => error);
            (spans, metrics::histogram!("otel.sdk.exporter.operation.duration", "error.type" => error))
        }))
    }

    fn for_result(&self, result: &OTelSdkResult) -> &(Counter, Histogram) {
        match result {
            Ok(()) => &self.0[0],
            Err(OTelSdkError::Timeout(_)) => &self.0[1],
            Err(OTelSdkError::AlreadyShutdown | OTelSdkError::InternalFailure(_)) => &self.0[2],
        }
    }
}

/// Exporter that logs a collector outage once at its start and once at its end.
struct CountingExporter<E> {
    inner: E,
    capacity: Arc<QueueCapacity>,
    outcomes: Outcomes,
    failing: AtomicBool,
}

impl<E: std::fmt::Debug> std::fmt::Debug for CountingExporter<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl<E: SpanExporter> SpanExporter for CountingExporter<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (spans, started) = (batch.len(), Instant::now());
        self.capacity.release(spans);
        let result = self.inner.export(batch).await;
        let (exported, duration) = self.outcomes.for_result(&result);
        exported.increment(spans as u64);
        duration.record(started.elapsed());
        match (&result, self.failing.swap(result.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => tracing::warn!(%error, "span export failed, spans are lost"),
            (Ok(()), true) => tracing::info!("span export recovered"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests;
