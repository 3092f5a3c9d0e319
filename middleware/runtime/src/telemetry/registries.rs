//! Metric registry per service of a process: each admin port exposes only its own service, also if
//! several services share the process.
//!
//! A metric belongs to the service whose scope ([`with_service`]) creates its handle, including
//! spawned tasks. Handles created outside any scope (runtime, span export) are shared by all
//! services.

mod endpoint_series;
mod exemplars;
mod openmetrics;

use std::{fmt, sync::Arc};

use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::PrometheusRecorder;

use self::{endpoint_series::EndpointSeries, exemplars::Exemplars};
use palisade_resilience::metrics::{CATALOG, Kind, current_service};

/// Registry of one service.
pub(super) struct Registry {
    service: &'static str,
    recorder: PrometheusRecorder,
    endpoints: EndpointSeries,
    exemplars: Exemplars,
}

/// Exposition format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics 1.0, with exemplars.
    OpenMetrics,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("service", &self.service).finish_non_exhaustive()
    }
}

impl Registry {
    /// Returns the name of the service.
    pub(super) fn service(&self) -> &'static str {
        self.service
    }

    /// Renders the metrics. Removes the series of endpoints that are gone.
    pub(super) fn render(&self, format: Format) -> String {
        let text = self.render_text();
        match format {
            Format::Text => text,
            Format::OpenMetrics => openmetrics::convert(&text, |line| self.exemplars.append(line)),
        }
    }

    fn render_text(&self) -> String {
        let mut text = self.endpoints.render_into(self.service, self.recorder.handle().render());
        for metric in CATALOG.iter().filter(|metric| metric.kind == Kind::FractionCounter) {
            let kind = format!("# TYPE {} ", metric.name);
            if let Some(at) = text.find(&format!("{kind}gauge\n")) {
                text.replace_range(at + kind.len()..at + kind.len() + "gauge".len(), "counter");
            }
        }
        text
    }

    /// Compacts the histograms.
    pub(super) fn run_upkeep(&self) {
        self.recorder.handle().run_upkeep();
    }

    /// Registers a handle with the recorder that is responsible for `key`.
    fn register<T>(&self, key: &Key, register: impl Fn(&PrometheusRecorder) -> T) -> T {
        match endpoint_series::endpoint_of(key) {
            Some(endpoint) => self.endpoints.register(endpoint, register),
            None => register(&self.recorder),
        }
    }
}

/// Recorder of a process: dispatches each metric to the registry of its service.
pub(super) struct Registries(Vec<Arc<Registry>>);

impl Registries {
    /// Creates one registry per service. At least one is required.
    pub(super) fn new(recorders: Vec<(&'static str, PrometheusRecorder)>) -> Self {
        let registry = |(service, recorder)| {
            Arc::new(Registry { service, recorder, endpoints: EndpointSeries::default(), exemplars: Exemplars::default() })
        };
        Self(recorders.into_iter().map(registry).collect())
    }

    /// Returns the registries of all services.
    pub(super) fn handles(&self) -> Vec<Arc<Registry>> {
        self.0.clone()
    }

    /// Registers a handle in the current service's registry, or in all registries outside a scope.
    fn register<T>(&self, key: &Key, register_one: impl Fn(&PrometheusRecorder) -> T, combine: impl Fn(Vec<T>) -> T) -> T {
        self.dispatch(|registry| registry.register(key, &register_one), combine)
    }

    fn dispatch<T>(&self, register: impl Fn(&Registry) -> T, combine: impl Fn(Vec<T>) -> T) -> T {
        let current = current_service().and_then(|present| self.0.iter().find(|registry| registry.service == present));
        match (current, &self.0[..]) {
            (Some(registry), _) | (None, [registry]) => register(registry),
            (None, registries) => combine(registries.iter().map(|registry| register(registry)).collect()),
        }
    }
}

impl fmt::Debug for Registries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|registry| registry.service)).finish()
    }
}

impl Recorder for Registries {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.0.iter().for_each(|registry| registry.recorder.describe_counter(key.clone(), unit, description.clone()));
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.0.iter().for_each(|registry| registry.recorder.describe_gauge(key.clone(), unit, description.clone()));
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.0.iter().for_each(|registry| registry.recorder.describe_histogram(key.clone(), unit, description.clone()));
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.register(key, |recorder| recorder.register_counter(key, metadata), |all| Counter::from_arc(Arc::new(Fanout(all))))
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.register(key, |recorder| recorder.register_gauge(key, metadata), |all| Gauge::from_arc(Arc::new(Fanout(all))))
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        let register = |registry: &Registry| {
            registry.exemplars.wrap(key, registry.register(key, |recorder| recorder.register_histogram(key, metadata)))
        };
        self.dispatch(register, |all| Histogram::from_arc(Arc::new(Fanout(all))))
    }
}

/// Metric that all services expose.
struct Fanout<T>(Vec<T>);

impl CounterFn for Fanout<Counter> {
    fn increment(&self, value: u64) {
        self.0.iter().for_each(|counter| counter.increment(value));
    }

    fn absolute(&self, value: u64) {
        self.0.iter().for_each(|counter| counter.absolute(value));
    }
}

impl GaugeFn for Fanout<Gauge> {
    fn increment(&self, value: f64) {
        self.0.iter().for_each(|gauge| gauge.increment(value));
    }

    fn decrement(&self, value: f64) {
        self.0.iter().for_each(|gauge| gauge.decrement(value));
    }

    fn set(&self, value: f64) {
        self.0.iter().for_each(|gauge| gauge.set(value));
    }
}

impl HistogramFn for Fanout<Histogram> {
    fn record(&self, value: f64) {
        self.0.iter().for_each(|histogram| histogram.record(value));
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    fn registries(services: &[&'static str]) -> Registries {
        Registries::new(services.iter().map(|service| (*service, PrometheusBuilder::new().build_recorder())).collect())
    }

    fn services_exposing(handles: &[Arc<Registry>], line: &str) -> Vec<&'static str> {
        let exposes = |handle: &&Arc<Registry>| handle.render(Format::Text).lines().any(|shown| shown == line);
        handles.iter().filter(exposes).map(|registry| registry.service).collect()
    }

    #[tokio::test]
    async fn metric_belongs_to_creating_service_or_all() {
        let registries = registries(&["left", "right"]);
        let handles = registries.handles();
        let _here = metrics::set_default_local_recorder(&registries);
        for service in ["left", "right", "right"] {
            let work = async {
                let task = palisade_resilience::task::spawn(async { metrics::counter!("calls").increment(1) });
                task.await.unwrap();
            };
            palisade_resilience::metrics::with_service(service, work).await;
        }
        assert_eq!(services_exposing(&handles, "calls 1"), ["left"]);
        assert_eq!(services_exposing(&handles, "calls 2"), ["right"]);
        metrics::gauge!("workers").set(2.0);
        metrics::counter!("lines").increment(3);
        metrics::histogram!("seconds").record(0.5);
        for line in ["workers 2", "lines 3", "seconds_count 1"] {
            assert_eq!(services_exposing(&handles, line), ["left", "right"], "{line}");
        }
    }

    #[test]
    fn single_service_exposes_all_metrics() {
        let registries = registries(&["orders"]);
        let handles = registries.handles();
        metrics::with_local_recorder(&registries, || metrics::counter!("calls").increment(1));
        assert_eq!(services_exposing(&handles, "calls 1"), ["orders"]);
    }
}
