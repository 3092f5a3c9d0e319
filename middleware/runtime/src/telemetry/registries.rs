//! Metric registry per service of a process: each admin port exposes only its own service, also if
//! several services share the process.
//!
//! A metric belongs to the service whose scope ([`with_service`]) creates its handle, including
//! spawned tasks. Handles created outside any scope (runtime, span export) are shared by all
//! services.

use std::{fmt, sync::Arc};

use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{PrometheusHandle, PrometheusRecorder};

use palisade_resilience::metrics::current_service;

/// Recorder of a process: dispatches each metric to the registry of its service.
pub(super) struct Registries(Vec<(&'static str, PrometheusRecorder)>);

impl Registries {
    /// Creates one registry per service. At least one is required.
    pub(super) fn new(recorders: Vec<(&'static str, PrometheusRecorder)>) -> Self {
        Self(recorders)
    }

    /// Render handles by service.
    pub(super) fn handles(&self) -> Vec<(&'static str, PrometheusHandle)> {
        self.0.iter().map(|(service, recorder)| (*service, recorder.handle())).collect()
    }

    /// Registers a handle in the current service's registry, or in all registries outside a scope.
    fn register<T>(&self, register_one: impl Fn(&PrometheusRecorder) -> T, combine: impl Fn(Vec<T>) -> T) -> T {
        let current = current_service().and_then(|present| self.0.iter().find(|(service, _)| *service == present));
        match (current, &self.0[..]) {
            (Some((_, recorder)), _) | (None, [(_, recorder)]) => register_one(recorder),
            (None, recorders) => combine(recorders.iter().map(|(_, recorder)| register_one(recorder)).collect()),
        }
    }
}

impl fmt::Debug for Registries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(service, _)| service)).finish()
    }
}

impl Recorder for Registries {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.0.iter().for_each(|(_, recorder)| recorder.describe_counter(key.clone(), unit, description.clone()));
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.0.iter().for_each(|(_, recorder)| recorder.describe_gauge(key.clone(), unit, description.clone()));
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.0.iter().for_each(|(_, recorder)| recorder.describe_histogram(key.clone(), unit, description.clone()));
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.register(|recorder| recorder.register_counter(key, metadata), |all| Counter::from_arc(Arc::new(Fanout(all))))
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.register(|recorder| recorder.register_gauge(key, metadata), |all| Gauge::from_arc(Arc::new(Fanout(all))))
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.register(|recorder| recorder.register_histogram(key, metadata), |all| Histogram::from_arc(Arc::new(Fanout(all))))
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

    fn services_exposing(handles: &[(&'static str, PrometheusHandle)], line: &str) -> Vec<&'static str> {
        let exposes = |handle: &PrometheusHandle| handle.render().lines().any(|shown| shown == line);
        handles.iter().filter(|(_, handle)| exposes(handle)).map(|(service, _)| *service).collect()
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
