//! Telemetry of a process: traces (OTLP), metrics (Prometheus) and logs. The only module that
//! depends on exporters.

mod config;
mod detached;
mod exporter;
mod log;
mod panic_hook;
mod process;
mod provider;
pub mod recent;
mod registries;
mod sampler;
mod spans;

use std::{sync::Arc, time::Duration};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};
use opentelemetry::{InstrumentationScope, global, trace::TracerProvider};
use opentelemetry_sdk::{propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tokio_util::sync::CancellationToken;
use tracing::{Metadata, Subscriber, subscriber::Interest};
use tracing_appender::non_blocking::{ErrorCounter, WorkerGuard};
use tracing_subscriber::{
    Layer,
    filter::dynamic_filter_fn,
    layer::{Filter, SubscriberExt},
    util::SubscriberInitExt,
};

use self::{recent::RecentTraces, registries::Registry};
use palisade_resilience::{
    job::{self, Heartbeat},
    metrics::{CATALOG, Kind},
    redact,
    setting::Invalid,
    trace::sampling::{self, LocalTraces, Sampling, TailSampling},
};

pub use self::{config::Config, exporter::Protocol, registries::Format};
pub use palisade_resilience::trace::TrustBoundary;

/// Histogram buckets for durations, seconds: those of the semantic conventions, and lower ones.
const DURATION_BUCKETS: [f64; 17] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Histogram buckets for small integers, from 1.
const COUNT_BUCKETS: [f64; 5] = [1.0, 2.0, 3.0, 4.0, 5.0];
/// Interval of histogram upkeep. Without upkeep histograms keep every sample.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Time limit of an export, and of exporting the remaining spans at shutdown.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// Schema of the semantic conventions used for span names and attributes.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.45.0";
/// Target prefixes excluded from tracing: libraries below the middleware.
const EXCLUDED_TARGETS: [&str; 6] = ["h2", "hyper", "tonic", "tower", "opentelemetry", "reqwest"];

/// Telemetry could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is invalid.
    #[error(transparent)]
    Config(#[from] Invalid),
    /// The log filter is invalid.
    #[error("telemetry.log_filter is not a valid log filter")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The OTLP endpoint is invalid.
    #[error("telemetry.otlp_endpoint is invalid")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Telemetry is already installed in this process.
    #[error("telemetry is already installed in this process")]
    AlreadyInstalled,
}

/// Installed telemetry of the process.
#[derive(Debug, Clone)]
pub struct Telemetry {
    metrics: Arc<[Arc<Registry>]>,
    process: process::Process,
    traces: SdkTracerProvider,
    recent: Option<RecentTraces>,
    dropped_records: ErrorCounter,
    log_filter: log::Reloadable,
    _log: Arc<WorkerGuard>,
}

impl Telemetry {
    /// Installs logs, traces and metrics for the process `service`, with one metric registry per
    /// entry of `services`. With `keeps_traces`, recent traces stay in memory, whether exported or
    /// not. Requires a Tokio runtime. Once per process.
    pub fn install(
        (service, services): (&'static str, &[&'static str]),
        boundary: TrustBoundary,
        config: &Config,
        keeps_traces: bool,
    ) -> Result<Self, Error> {
        // The exporter reads its headers from these variables; they hold the credentials of the
        // collector.
        for variable in ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"] {
            let headers = std::env::var(variable).unwrap_or_default();
            headers.split(',').filter_map(|header| header.split_once('=')).for_each(|(_, value)| redact::register(value.trim()));
        }
        let metrics = install_metrics(services)?;
        let recent = keeps_traces.then(RecentTraces::new);
        let local = recent.as_ref().map(|_| Arc::new(LocalTraces::new(recent::MAX_PER_SECOND)));
        let exported = config.otlp_endpoint.is_some();
        let tail = (exported && config.keep_failed_traces).then(|| TailSampling::new(config.held_traces).into());
        let sampling = Sampling { exported, boundary, ratio: config.sample_ratio, local, tail };
        sampling.clone().install();
        let traces = provider::tracer_provider((service, services), &sampling, recent.clone(), config)?;
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
        let (log_layer, log_filter) = log::layer_for(config.log_format, service, &config.log_filter, writer)?;
        let recent_log =
            recent.clone().map(|recent| Ok::<_, Error>(recent::layer(recent, log::filter(&config.log_filter)?))).transpose()?;
        tracing_subscriber::registry().with(spans).with(log_layer).with(recent_log).try_init().map_err(|_| Error::AlreadyInstalled)?;
        panic_hook::install();
        let revision = option_env!("PALISADE_REVISION").unwrap_or("unknown");
        metrics::gauge!("build.info", "version" => env!("CARGO_PKG_VERSION"), "revision" => revision).set(1.0);
        Ok(Self { metrics, process: process::Process::this(), traces, recent, dropped_records, log_filter, _log: Arc::new(guard) })
    }

    /// Returns the log filter in use.
    pub fn log_filter(&self) -> String {
        self.log_filter.text()
    }

    /// Replaces the log filter of the whole process until it ends.
    pub fn set_log_filter(&self, text: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
        self.log_filter.set(text)
    }

    /// Renders the metrics of `service`, with current gauges. Takes milliseconds.
    pub fn render(&self, service: &str, format: Format) -> String {
        self.process.measure();
        palisade_resilience::metrics::collect();
        palisade_resilience::counter!("palisade.log.dropped").absolute(self.dropped_records.dropped_lines() as u64);
        let own = self.metrics.iter().find(|registry| registry.service() == service);
        own.or(self.metrics.first()).map(|registry| registry.render(format)).unwrap_or_default()
    }

    /// Returns the recent traces, if the process keeps them.
    pub fn recent_traces(&self) -> Option<&RecentTraces> {
        self.recent.as_ref()
    }

    /// Exports the remaining spans. Runs on a blocking thread, because the provider blocks.
    pub async fn flush(&self) {
        let traces = self.traces.clone();
        let flushed = tokio::task::spawn_blocking(move || traces.shutdown_with_timeout(FLUSH_TIMEOUT)).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "span flush failed, the last spans may be lost");
        }
    }
}

/// Filter for the trace layer: only spans, only those of our own crates, and only while
/// `is_recorded`. Log events in spans cost three times as much and would mark spans as failed.
///
/// Evaluated per span: the result of a callsite filter is ignored once the log layer wants the
/// callsite, or while another thread registers it.
fn span_filter<S: Subscriber>(is_recorded: fn() -> bool) -> impl Filter<S> {
    let is_ours = |metadata: &Metadata<'_>| metadata.is_span() && !EXCLUDED_TARGETS.iter().any(|name| metadata.target().starts_with(name));
    dynamic_filter_fn(move |metadata, _| is_recorded() && is_ours(metadata))
        .with_callsite_filter(move |metadata| if is_ours(metadata) { Interest::sometimes() } else { Interest::never() })
}

fn recorder() -> Result<PrometheusRecorder, Error> {
    let builder = PrometheusBuilder::new().with_recommended_naming(true);
    // Cannot fail: the buckets are a non-empty constant.
    let mut builder = builder.set_buckets(&DURATION_BUCKETS).map_err(|_| Error::AlreadyInstalled)?;
    for metric in CATALOG.iter().filter(|metric| metric.kind == Kind::CountHistogram) {
        builder = builder
            .set_buckets_for_metric(Matcher::Full(metric.full_name().into_owned()), &COUNT_BUCKETS)
            .map_err(|_| Error::AlreadyInstalled)?;
    }
    Ok(builder.build_recorder())
}

fn install_metrics(services: &[&'static str]) -> Result<Arc<[Arc<Registry>]>, Error> {
    let recorders = services.iter().map(|service| Ok((*service, recorder()?))).collect::<Result<_, Error>>()?;
    let registries = registries::Registries::new(recorders);
    let handles: Arc<[Arc<Registry>]> = registries.handles().into();
    metrics::set_global_recorder(registries).map_err(|_| Error::AlreadyInstalled)?;
    palisade_resilience::metrics::describe(CATALOG);
    let upkeep = handles.clone();
    let run_upkeep = move |heartbeat: Heartbeat| {
        let upkeep = upkeep.clone();
        async move {
            let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
            loop {
                interval.tick().await;
                let upkeep = upkeep.clone();
                tokio::task::spawn_blocking(move || upkeep.iter().for_each(|registry| registry.run_upkeep())).await?;
                heartbeat.success();
            }
        }
    };
    // Never stopped: metrics are available until the process ends.
    let job = job::supervise(Heartbeat::new("metrics.upkeep"), CancellationToken::new(), run_upkeep);
    drop(palisade_resilience::task::spawn(job));
    Ok(handles)
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
    fn span_filter_excludes_library_spans() {
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
