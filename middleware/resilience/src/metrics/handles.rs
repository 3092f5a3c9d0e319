//! Metric handles that do not depend on the order of the start. A handle made before a recorder is
//! installed binds to the recorder that it finds at its next use, or at the next [`collect`].
//!
//! Until then counters and gauges keep their values, and histograms drop theirs.
//!
//! [`collect`]: super::collect

use std::sync::{
    Arc, OnceLock, Weak,
    atomic::{AtomicU64, Ordering},
};

use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, Label, Level, Metadata, Recorder, with_recorder};
use parking_lot::Mutex;

use crate::naming;
use crate::service_scope::{current_service, in_service};

/// Handles made without a recorder.
static UNBOUND: Mutex<Vec<Weak<dyn Bind>>> = Mutex::new(Vec::new());

/// As [`metrics::counter!`], with the prefix of the application
/// ([`Naming`](crate::naming::Naming)), before or after the recorder is installed.
#[macro_export]
macro_rules! counter {
    ($name:expr $(, $label:expr => $value:expr)* $(,)?) => {
        $crate::metrics::new_counter($name, ::std::vec![$($crate::metrics::Label::new($label, $value)),*], ::std::module_path!())
    };
}

/// As [`metrics::gauge!`], with the prefix of the application
/// ([`Naming`](crate::naming::Naming)), before or after the recorder is installed.
#[macro_export]
macro_rules! gauge {
    ($name:expr $(, $label:expr => $value:expr)* $(,)?) => {
        $crate::metrics::new_gauge($name, ::std::vec![$($crate::metrics::Label::new($label, $value)),*], ::std::module_path!())
    };
}

/// As [`metrics::histogram!`], with the prefix of the application
/// ([`Naming`](crate::naming::Naming)), before or after the recorder is installed.
#[macro_export]
macro_rules! histogram {
    ($name:expr $(, $label:expr => $value:expr)* $(,)?) => {
        $crate::metrics::new_histogram($name, ::std::vec![$($crate::metrics::Label::new($label, $value)),*], ::std::module_path!())
    };
}

/// Makes the counter of [`counter!`](crate::counter!).
pub fn new_counter(name: &'static str, labels: Vec<Label>, module: &'static str) -> Counter {
    Series::new(name, labels, module).handle(|recorder, key, metadata| recorder.register_counter(key, metadata), Counter::from_arc)
}

/// Makes the gauge of [`gauge!`](crate::gauge!).
pub fn new_gauge(name: &'static str, labels: Vec<Label>, module: &'static str) -> Gauge {
    Series::new(name, labels, module).handle(|recorder, key, metadata| recorder.register_gauge(key, metadata), Gauge::from_arc)
}

/// Makes the histogram of [`histogram!`](crate::histogram!).
pub fn new_histogram(name: &'static str, labels: Vec<Label>, module: &'static str) -> Histogram {
    Series::new(name, labels, module).handle(|recorder, key, metadata| recorder.register_histogram(key, metadata), Histogram::from_arc)
}

/// Binds all handles if a recorder is installed, so that a series without values exists, too.
pub(super) fn bind_all() {
    if with_recorder(is_installed) {
        let unbound = std::mem::take(&mut *UNBOUND.lock());
        unbound.iter().filter_map(Weak::upgrade).for_each(|handle| handle.bind());
    }
}

/// Returns whether this is a recorder. The one that stands for none has no state. Another one
/// without state works, only slower: handles never bind and are looked up at each use.
fn is_installed(recorder: &dyn Recorder) -> bool {
    size_of_val(recorder) > 0
}

/// Function of a recorder that makes a handle.
type Register<H> = for<'a> fn(&'a (dyn Recorder + 'a), &Key, &Metadata<'_>) -> H;

/// Series and the service that owns it.
struct Series {
    key: Key,
    module: &'static str,
    service: Option<&'static str>,
}

impl Series {
    fn new(name: &'static str, labels: Vec<Label>, module: &'static str) -> Self {
        Self { key: Key::from_parts(naming::current().metric_name(name), labels), module, service: current_service() }
    }

    /// Registers the series. Returns its handle, and whether there is a recorder.
    fn register<H>(&self, register: Register<H>) -> (H, bool) {
        let metadata = Metadata::new(self.module, Level::INFO, Some(self.module));
        in_service(self.service, || with_recorder(|recorder| (register(recorder, &self.key, &metadata), is_installed(recorder))))
    }

    /// Returns the recorder's own handle, or without a recorder a late one.
    fn handle<H: Value>(self, register: Register<H>, wrap: fn(Arc<Late<H>>) -> H) -> H {
        let (handle, true) = self.register(register) else {
            let late = Arc::new(Late { series: self, register, bound: OnceLock::new(), pending: H::Pending::default() });
            let weak: Weak<dyn Bind> = Arc::<Late<H>>::downgrade(&late);
            let mut unbound = UNBOUND.lock();
            // Removes dropped handles now and then, so that they do not accumulate.
            if unbound.len().is_power_of_two() {
                unbound.retain(|handle| handle.strong_count() > 0);
            }
            unbound.push(weak);
            return wrap(late);
        };
        handle
    }
}

/// Handle that binds to the first recorder it finds.
struct Late<H: Value> {
    series: Series,
    register: Register<H>,
    bound: OnceLock<H>,
    pending: H::Pending,
}

impl<H: Value> Late<H> {
    /// Calls `update` with the handle of the series. Without a recorder, `keep` keeps the value.
    fn update(&self, update: impl Fn(&H), keep: impl FnOnce(&H::Pending)) {
        if let Some(handle) = self.bound.get() {
            return update(handle);
        }
        let (handle, is_installed) = self.series.register(self.register);
        if is_installed {
            let handle = self.bound.get_or_init(|| handle);
            H::flush(handle, &self.pending);
            return update(handle);
        }
        update(&handle);
        keep(&self.pending);
        // Another thread may have bound the handle before this value was kept.
        if let Some(handle) = self.bound.get() {
            H::flush(handle, &self.pending);
        }
    }
}

/// Handle that [`bind_all`] binds.
trait Bind: Send + Sync {
    fn bind(&self);
}

impl<H: Value> Bind for Late<H> {
    fn bind(&self) {
        self.update(|_| (), |_| ());
    }
}

/// Kind of handle.
trait Value: Send + Sync + Sized + 'static {
    /// Values without a recorder.
    type Pending: Default + Send + Sync;

    /// Moves the pending values to the handle.
    fn flush(handle: &Self, pending: &Self::Pending);
}

impl Value for Counter {
    type Pending = AtomicU64;

    fn flush(handle: &Self, pending: &AtomicU64) {
        handle.increment(pending.swap(0, Ordering::AcqRel));
    }
}

impl CounterFn for Late<Counter> {
    fn increment(&self, value: u64) {
        self.update(
            |counter| counter.increment(value),
            |pending| {
                pending.fetch_add(value, Ordering::AcqRel);
            },
        );
    }

    fn absolute(&self, value: u64) {
        self.update(
            |counter| counter.absolute(value),
            |pending| {
                pending.fetch_max(value, Ordering::AcqRel);
            },
        );
    }
}

/// Last value of a gauge, and the changes since, or without one the changes alone.
#[derive(Default)]
struct PendingGauge {
    set: Option<f64>,
    change: f64,
}

impl Value for Gauge {
    type Pending = Mutex<PendingGauge>;

    fn flush(handle: &Self, pending: &Mutex<PendingGauge>) {
        // Locked to the end, so that a later value is not overwritten by an earlier one.
        let mut pending = pending.lock();
        let PendingGauge { set, change } = std::mem::take(&mut *pending);
        if let Some(value) = set {
            handle.set(value);
        }
        if change != 0.0 {
            handle.increment(change);
        }
    }
}

impl GaugeFn for Late<Gauge> {
    fn increment(&self, value: f64) {
        self.update(|gauge| gauge.increment(value), |pending| pending.lock().change += value);
    }

    fn decrement(&self, value: f64) {
        self.update(|gauge| gauge.decrement(value), |pending| pending.lock().change -= value);
    }

    fn set(&self, value: f64) {
        self.update(|gauge| gauge.set(value), |pending| *pending.lock() = PendingGauge { set: Some(value), change: 0.0 });
    }
}

impl Value for Histogram {
    type Pending = ();

    fn flush(_handle: &Self, _pending: &()) {}
}

impl HistogramFn for Late<Histogram> {
    fn record(&self, value: f64) {
        self.update(|histogram| histogram.record(value), |()| ());
    }

    fn record_many(&self, value: f64, count: usize) {
        self.update(|histogram| histogram.record_many(value, count), |()| ());
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

    fn recorder() -> PrometheusRecorder {
        PrometheusBuilder::new().set_buckets(&[1.0]).unwrap().build_recorder()
    }

    fn value(recorder: &PrometheusRecorder, series: &str) -> Option<String> {
        recorder.handle().render().lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned))
    }

    #[test]
    fn late_handles_keep_their_values() {
        let counter = crate::counter!("palisade.late.counter", "kind" => "a");
        let gauges = [crate::gauge!("palisade.late.gauge"), crate::gauge!("palisade.late.sum")];
        let histogram = crate::histogram!("palisade.late.histogram");
        counter.increment(2);
        gauges[0].set(7.0);
        gauges[0].increment(1.0);
        gauges[1].increment(3.0);
        histogram.record(0.5);
        let recorder = recorder();
        metrics::with_local_recorder(&recorder, || {
            counter.increment(1);
            gauges[0].decrement(2.0);
            gauges[1].decrement(1.0);
            histogram.record(0.5);
        });
        // Bound for good, and not to the recorder of the thread.
        counter.increment(1);
        assert_eq!(value(&recorder, "palisade_late_counter{kind=\"a\"}").unwrap(), "4");
        assert_eq!(value(&recorder, "palisade_late_gauge").unwrap(), "6");
        assert_eq!(value(&recorder, "palisade_late_sum").unwrap(), "2");
        assert_eq!(value(&recorder, "palisade_late_histogram_count").unwrap(), "1");
    }

    #[test]
    fn early_recorder_gets_plain_handles() {
        let recorder = recorder();
        let counter = metrics::with_local_recorder(&recorder, || crate::counter!("palisade.early.counter"));
        assert_eq!(value(&recorder, "palisade_early_counter").unwrap(), "0");
        counter.increment(1);
        assert_eq!(value(&recorder, "palisade_early_counter").unwrap(), "1");
    }
}
