//! Gauges that are brought up to date when somebody looks, so that the work itself need not tell of every step.

use std::sync::{Arc, Weak};

use metrics::Gauge;
use parking_lot::Mutex;

static OBSERVABLES: Mutex<Vec<Box<dyn Observable>>> = Mutex::new(Vec::new());

/// Brings the gauges up to date that nobody writes: the windows of breakers, the tokens of retries, limits and what is in flight.
/// [`Telemetry::render`](crate::telemetry::Telemetry::render) does so before each scrape; whoever has a recorder of their own does it
/// before rendering.
pub fn collect() {
    let mut observables = OBSERVABLES.lock();
    observables.retain_mut(|one| !one.is_dropped());
    observables.iter_mut().for_each(|one| one.observe());
}

/// At each look `show` is given `of`, as long as that is there. Neither `show` nor the drop of `of` may look or register: they may run while all
/// others wait.
pub(crate) fn register_observable<T: Send + Sync + 'static>(source: &Arc<T>, mut observe: impl FnMut(&T) + Send + 'static) {
    register(source, move |of| {
        if let Some(of) = of {
            observe(of);
        }
    });
}

/// At each look `gauge` has the share in it that `count` tells of `of`. Several may share a gauge: each adds its own.
pub(crate) fn register_observable_sum<T: Send + Sync + 'static>(source: &Arc<T>, gauge: Gauge, count: impl Fn(&T) -> u32 + Send + 'static) {
    // There from the start.
    gauge.increment(0);
    let mut reported = 0;
    register(source, move |of| {
        let current = of.map_or(0, &count);
        gauge.increment(f64::from(current) - f64::from(reported));
        reported = current;
    });
}

/// `show` is given `None` once, when `of` is gone.
fn register<T: Send + Sync + 'static>(source: &Arc<T>, observe: impl FnMut(Option<&T>) + Send + 'static) {
    let mut observables = OBSERVABLES.lock();
    // What comes and goes while nobody looks must not pile up.
    observables.retain_mut(|one| !one.is_dropped());
    observables.push(Box::new(Entry { source: Arc::downgrade(source), observe }));
}

trait Observable: Send {
    fn observe(&mut self);

    /// Whether it is gone, and shown as gone.
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
    fn each_has_its_share_in_a_gauge_until_it_is_gone() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let counts = [(); 2].map(|()| Arc::new(AtomicCounter::new()));
        metrics::with_local_recorder(&recorder, || {
            for count in &counts {
                register_observable_sum(count, metrics::gauge!("in_use"), AtomicCounter::get);
            }
        });
        assert_eq!(recorder.handle().render().matches("in_use 0").count(), 1, "it is there before anybody looks");
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
    fn what_is_gone_is_forgotten_though_nobody_looks() {
        let (captured, live) = (Arc::new(()), Arc::new(()));
        let forgotten = Arc::downgrade(&captured);
        register_observable(&Arc::new(()), move |()| drop(captured.clone()));
        register_observable(&live, |()| ());
        assert!(forgotten.upgrade().is_none());
    }
}
