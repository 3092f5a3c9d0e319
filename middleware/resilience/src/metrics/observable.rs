//! Observable gauges (OpenTelemetry: asynchronous gauges): read at scrape time, so that the hot
//! path does not update them.

use std::sync::{Arc, Weak};

use metrics::Gauge;
use parking_lot::Mutex;

use super::handles;

static OBSERVABLES: Mutex<Vec<Box<dyn Observable>>> = Mutex::new(Vec::new());

/// Updates all observable gauges: breaker windows, retry tokens, limits, requests in flight. Series
/// of layers that were made before the recorder exist afterwards.
/// `Telemetry::render` of palisade-runtime calls it before each scrape. Call it
/// before rendering another recorder.
pub fn collect() {
    handles::bind_all();
    let mut observables = OBSERVABLES.lock();
    observables.retain_mut(|one| !one.is_dropped());
    observables.iter_mut().for_each(|one| one.observe());
}

/// Calls `observe(&T)` at every scrape while the `Arc` is alive. Neither `observe` nor the drop of
/// `T` may collect or register: both can run while the registry is locked.
pub(crate) fn register_observable<T: Send + Sync + 'static>(source: &Arc<T>, mut observe: impl FnMut(&T) + Send + 'static) {
    register(source, move |of| {
        if let Some(of) = of {
            observe(of);
        }
    });
}

/// Adds `count(&T)` to `gauge` at every scrape while the `Arc` is alive. Several sources may share
/// a gauge, which shows their sum.
pub fn register_observable_sum<T: Send + Sync + 'static>(source: &Arc<T>, gauge: Gauge, count: impl Fn(&T) -> u32 + Send + 'static) {
    // Registers the gauge at zero.
    gauge.increment(0);
    let mut reported = 0;
    register(source, move |of| {
        let current = of.map_or(0, &count);
        gauge.increment(f64::from(current) - f64::from(reported));
        reported = current;
    });
}

/// Registers `observe`. It is called with `None` once after the source is dropped.
fn register<T: Send + Sync + 'static>(source: &Arc<T>, observe: impl FnMut(Option<&T>) + Send + 'static) {
    let mut observables = OBSERVABLES.lock();
    // Removes dropped entries, so that they do not accumulate between scrapes.
    observables.retain_mut(|one| !one.is_dropped());
    observables.push(Box::new(Entry { source: Arc::downgrade(source), observe }));
}

trait Observable: Send {
    fn observe(&mut self);

    /// Returns whether the source is dropped; reports it as dropped in that case.
    fn is_dropped(&mut self) -> bool;
}

struct Entry<T, F> {
    source: Weak<T>,
    observe: F,
}

impl<T: Send + Sync, F: FnMut(Option<&T>) + Send> Observable for Entry<T, F> {
    fn observe(&mut self) {
        if let Some(of) = self.source.upgrade() {
            (self.observe)(Some(&of));
        }
    }

    fn is_dropped(&mut self) -> bool {
        let dropped = self.source.strong_count() == 0;
        if dropped {
            (self.observe)(None);
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

    use super::*;
    use crate::counter::AtomicCounter;

    fn rendered(recorder: &PrometheusRecorder) -> String {
        collect();
        let text = recorder.handle().render();
        text.lines().find_map(|line| line.strip_prefix("in_use ")).unwrap_or("nothing").to_owned()
    }

    #[test]
    fn shared_gauge_sums_live_sources() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let counts = [(); 2].map(|()| Arc::new(AtomicCounter::new()));
        metrics::with_local_recorder(&recorder, || {
            for count in &counts {
                register_observable_sum(count, metrics::gauge!("in_use"), AtomicCounter::get);
            }
        });
        assert_eq!(recorder.handle().render().matches("in_use 0").count(), 1, "the gauge is registered at zero");
        let [one, other] = counts;
        one.increment();
        one.increment();
        other.increment();
        assert_eq!(rendered(&recorder), "3");
        one.decrement();
        assert_eq!(rendered(&recorder), "2");
        drop(one);
        assert_eq!(rendered(&recorder), "1");
        drop(other);
        assert_eq!(rendered(&recorder), "0");
    }

    #[test]
    fn dropped_sources_are_removed_without_a_scrape() {
        let (captured, live) = (Arc::new(()), Arc::new(()));
        let forgotten = Arc::downgrade(&captured);
        register_observable(&Arc::new(()), move |()| drop(captured.clone()));
        register_observable(&live, |()| ());
        assert!(forgotten.upgrade().is_none());
    }
}
