//! One registry of metrics for each service of a process, so that each admin port shows its own service, alone or in company.
//!
//! Whose a metric is, is asked once, where its handle is made: the service [`within`] which that happens, in its tasks too. What nobody's
//! code makes (the runtime, spans on their way out) is true of every service, and shown by all.

use std::{fmt, future::Future, sync::Arc};

use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{PrometheusHandle, PrometheusRecorder};
use tokio::task::futures::TaskLocalFuture;

tokio::task_local! {
    static SERVICE: Option<&'static str>;
}

/// What `future` measures is `service`'s, in the tasks that it starts too.
pub fn with_service<F: Future>(service: &'static str, future: F) -> impl Future<Output = F::Output> {
    SERVICE.scope(Some(service), future)
}

/// Takes the present service along into a future that will run in another task.
pub(crate) fn propagate<F: Future>(future: F) -> TaskLocalFuture<Option<&'static str>, F> {
    SERVICE.scope(current_service(), future)
}

fn current_service() -> Option<&'static str> {
    SERVICE.try_with(|service| *service).ok().flatten()
}

/// The recorder of a process: sends each metric where it belongs.
pub(crate) struct Registries(Vec<(&'static str, PrometheusRecorder)>);

impl Registries {
    /// One registry for each service, of which there is at least one.
    pub(crate) fn new(recorders: Vec<(&'static str, PrometheusRecorder)>) -> Self {
        Self(recorders)
    }

    /// What each shows.
    pub(crate) fn handles(&self) -> Vec<(&'static str, PrometheusHandle)> {
        self.0.iter().map(|(service, recorder)| (*service, recorder.handle())).collect()
    }

    /// A handle of the present service, or one for all of them.
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

/// A metric that every service shows.
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
    async fn a_metric_belongs_to_the_service_in_whose_tasks_it_is_made_and_else_to_all() {
        let registries = registries(&["left", "right"]);
        let handles = registries.handles();
        let _here = metrics::set_default_local_recorder(&registries);
        for service in ["left", "right", "right"] {
            let work = async {
                let task = crate::task::spawn(async { metrics::counter!("calls").increment(1) });
                task.await.unwrap();
            };
            with_service(service, work).await;
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
    fn a_service_alone_in_its_process_shows_everything() {
        let registries = registries(&["orders"]);
        let handles = registries.handles();
        metrics::with_local_recorder(&registries, || metrics::counter!("calls").increment(1));
        assert_eq!(services_exposing(&handles, "calls 1"), ["orders"]);
    }
}
