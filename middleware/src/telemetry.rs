//! Traces, metrics and logs of a process: the one place that names an exporter.

mod log;
mod process;
mod spans;

use std::{sync::Arc, time::Duration};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use opentelemetry::{InstrumentationScope, KeyValue, global, trace::TracerProvider};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::{Metadata, Subscriber, subscriber::Interest};
use tracing_appender::non_blocking::{ErrorCounter, WorkerGuard};
use tracing_subscriber::{
    Layer,
    filter::dynamic_filter_fn,
    layer::{Filter, SubscriberExt},
    util::SubscriberInitExt,
};

use crate::{
    config,
    metrics::{CATALOG, Kind, Registries},
    trace::sampling::{self, Sampling},
};

/// Semantic conventions' advice for durations, with three bounds below for hops on one machine. Seconds.
const DURATION_BUCKETS: [f64; 17] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// For small whole numbers, from 1.
const COUNT_BUCKETS: [f64; 5] = [1.0, 2.0, 3.0, 4.0, 5.0];
/// How often histograms are folded; without it they keep every sample.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How long the last spans may take to leave.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// The semantic conventions that names of spans and attributes follow.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.45.0";
/// Spans of the plumbing itself are not traced.
const EXCLUDED_TARGETS: [&str; 6] = ["h2", "hyper", "tonic", "tower", "opentelemetry", "reqwest"];

/// What leaves the process besides answers.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// OTLP/gRPC endpoint for traces, e.g. `http://localhost:4317`. None: ids are made and passed on, nothing is exported.
    pub otlp_endpoint: Option<String>,
    /// Share of new traces that is exported, 0 to 1. An upstream service's decision is followed, an outside caller's is not.
    pub sample_ratio: f64,
    /// Spans that may wait for the collector; more are dropped, and counted.
    pub span_queue: usize,
    /// `deployment.environment.name` of all spans.
    pub environment: String,
    /// Log filter, e.g. `info,palisade_orders=debug`.
    pub log_filter: String,
    /// `json`, `human`, or `auto`: human on a terminal.
    pub log_format: log::LogFormat,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            sample_ratio: 0.1,
            span_queue: 8_192,
            environment: "development".to_owned(),
            log_filter: "info".to_owned(),
            log_format: log::LogFormat::Auto,
        }
    }
}

impl config::Validate for Config {
    fn validate(&self) -> Result<(), config::Error> {
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            return Err(config::Error::rule("telemetry.sample_ratio", "must be between 0 and 1"));
        }
        if self.span_queue == 0 {
            return Err(config::Error::rule("telemetry.span_queue", "must be greater than 0"));
        }
        Ok(())
    }
}

/// Whether traces of callers are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustBoundary {
    /// Anyone may call: a caller's trace id is kept, its wish to be sampled is not.
    Public,
    /// Only services call: their sampling decision is ours.
    Internal,
}

/// Telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log filter cannot be read.
    #[error("telemetry.log is not a log filter")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The exporter's endpoint cannot be used.
    #[error("telemetry.otlp_endpoint cannot be used")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Something else has set it up before.
    #[error("telemetry was set up before in this process")]
    AlreadyInstalled,
}

/// A registry of metrics, by the service that it is of.
type Registry = (&'static str, PrometheusHandle);

/// The running telemetry of a process.
#[derive(Debug, Clone)]
pub struct Telemetry {
    metrics: Arc<[Registry]>,
    process: process::Process,
    traces: SdkTracerProvider,
    dropped_records: ErrorCounter,
    _log: Arc<WorkerGuard>,
}

impl Telemetry {
    /// Sets up logs, traces and metrics for the whole process that is called `service`, with one registry of metrics for each of
    /// `services`, or one alone. Needs a tokio runtime; once per process.
    pub fn install(service: &'static str, services: &[&'static str], boundary: TrustBoundary, config: &Config) -> Result<Self, Error> {
        let metrics = install_metrics(services)?;
        let sampling = Sampling { exported: config.otlp_endpoint.is_some(), boundary, ratio: config.sample_ratio };
        sampling.install();
        let traces = tracer_provider(service, sampling, config)?;
        global::set_text_map_propagator(TraceContextPropagator::new());
        global::set_tracer_provider(traces.clone());
        let spans = tracing_opentelemetry::layer()
            .with_tracer(traces.tracer_with_scope(InstrumentationScope::builder("palisade").with_schema_url(SCHEMA_URL).build()))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(span_filter(sampling::is_recorded));
        let (writer, guard) = log::writer();
        let dropped_records = writer.error_counter();
        let log_layer = log::layer_for(config.log_format, service, log::filter(&config.log_filter)?, writer);
        tracing_subscriber::registry().with(spans).with(log_layer).try_init().map_err(|_| Error::AlreadyInstalled)?;
        let revision = option_env!("PALISADE_REVISION").unwrap_or("unknown");
        metrics::gauge!("build.info", "version" => env!("CARGO_PKG_VERSION"), "revision" => revision).set(1.0);
        Ok(Self { metrics, process: process::Process::this(), traces, dropped_records, _log: Arc::new(guard) })
    }

    /// The metrics of `service` in Prometheus text, the gauges of the process as they are now. Takes milliseconds.
    pub fn render(&self, service: &str) -> String {
        self.process.measure();
        crate::metrics::collect();
        metrics::counter!("palisade.log.dropped").absolute(self.dropped_records.dropped_lines() as u64);
        let own = self.metrics.iter().find(|(name, _)| *name == service);
        own.or(self.metrics.first()).map(|(_, metrics)| metrics.render()).unwrap_or_default()
    }

    /// Sends what is still queued. In a thread of its own: the provider blocks.
    pub async fn flush(&self) {
        let traces = self.traces.clone();
        let flushed = tokio::task::spawn_blocking(move || traces.shutdown_with_timeout(FLUSH_TIMEOUT)).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "the last spans may be lost");
        }
    }
}

/// Spans only, and our own, while `is_recorded`: log events in spans cost three times as much and would mark spans failed.
/// Both are asked of each span again: what a callsite filter says does not count once the log wants the callsite, nor while another
/// thread registers it.
fn span_filter<S: Subscriber>(is_recorded: fn() -> bool) -> impl Filter<S> {
    let is_ours = |metadata: &Metadata<'_>| metadata.is_span() && !EXCLUDED_TARGETS.iter().any(|name| metadata.target().starts_with(name));
    dynamic_filter_fn(move |metadata, _| is_recorded() && is_ours(metadata))
        .with_callsite_filter(move |metadata| if is_ours(metadata) { Interest::sometimes() } else { Interest::never() })
}

fn recorder() -> Result<PrometheusRecorder, Error> {
    let builder = PrometheusBuilder::new().with_recommended_naming(true);
    // The bounds are a constant that is not empty.
    let mut builder = builder.set_buckets(&DURATION_BUCKETS).map_err(|_| Error::AlreadyInstalled)?;
    for metric in CATALOG.iter().filter(|metric| metric.kind == Kind::CountHistogram) {
        builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), &COUNT_BUCKETS).map_err(|_| Error::AlreadyInstalled)?;
    }
    Ok(builder.build_recorder())
}

fn install_metrics(services: &[&'static str]) -> Result<Arc<[Registry]>, Error> {
    let recorders = services.iter().map(|service| Ok((*service, recorder()?))).collect::<Result<_, Error>>()?;
    let registries = Registries::new(recorders);
    let handles: Arc<[Registry]> = registries.handles().into();
    metrics::set_global_recorder(registries).map_err(|_| Error::AlreadyInstalled)?;
    crate::metrics::describe(CATALOG);
    let upkeep = handles.clone();
    drop(crate::task::spawn(async move {
        let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            interval.tick().await;
            let upkeep = upkeep.clone();
            if tokio::task::spawn_blocking(move || upkeep.iter().for_each(|(_, registry)| registry.run_upkeep())).await.is_err() {
                return;
            }
        }
    }));
    Ok(handles)
}

fn tracer_provider(service: &'static str, sampling: Sampling, config: &Config) -> Result<SdkTracerProvider, Error> {
    let instance = uuid::Uuid::new_v4().to_string();
    let attributes = [
        KeyValue::new("service.namespace", "palisade"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance),
        KeyValue::new("deployment.environment.name", config.environment.clone()),
    ];
    // `OTEL_RESOURCE_ATTRIBUTES` is read too.
    let resource = Resource::builder().with_service_name(service).with_attributes(attributes).build();
    let mut provider = SdkTracerProvider::builder().with_resource(resource).with_sampler(sampling.sampler());
    if let Some(endpoint) = &config.otlp_endpoint {
        let exporter =
            opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(FLUSH_TIMEOUT).build()?;
        provider = provider.with_span_processor(spans::batch_processor(exporter, config.span_queue));
    }
    Ok(provider.build())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{span, subscriber::with_default};
    use tracing_subscriber::{
        Layer, Registry,
        filter::LevelFilter,
        layer::{Context, SubscriberExt},
    };

    use super::span_filter;

    #[derive(Clone, Default)]
    struct Names(Arc<Mutex<Vec<&'static str>>>);

    impl Layer<Registry> for Names {
        fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &span::Id, _: Context<'_, Registry>) {
            self.0.lock().expect("no thread panicked").push(attributes.metadata().name());
        }
    }

    #[test]
    fn spans_of_the_plumbing_are_not_traced_though_the_log_wants_them() {
        let names = Names::default();
        let log = tracing_subscriber::layer::Identity::new().with_filter(LevelFilter::TRACE);
        let subscriber = tracing_subscriber::registry().with(names.clone().with_filter(span_filter(|| true))).with(log);
        with_default(subscriber, || {
            let _plumbing = tracing::trace_span!(target: "h2::server", "server_handshake").entered();
            let _ours = tracing::info_span!("order").entered();
        });
        assert_eq!(*names.0.lock().expect("no thread panicked"), ["order"]);
    }
}
