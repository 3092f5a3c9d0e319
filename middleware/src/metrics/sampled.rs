//! Gauges that are brought up to date when somebody looks, so that the work itself need not tell of every step.

use std::sync::{Arc, Weak};

use metrics::Gauge;
use parking_lot::Mutex;

static SHOWN: Mutex<Vec<Box<dyn Shown>>> = Mutex::new(Vec::new());

/// Brings the gauges up to date that nobody writes: the windows of breakers, the tokens of retries, limits and what is in flight.
/// [`Telemetry::render`](crate::telemetry::Telemetry::render) does so before each scrape; whoever has a recorder of their own does it
/// before rendering.
pub fn sample() {
    let mut shown = SHOWN.lock();
    shown.retain_mut(|one| !one.ends());
    shown.iter_mut().for_each(|one| one.show());
}

/// At each look `show` is given `of`, as long as that is there. Neither `show` nor the drop of `of` may look or register: they may run while all
/// others wait.
pub(crate) fn on_look<T: Send + Sync + 'static>(of: &Arc<T>, mut show: impl FnMut(&T) + Send + 'static) {
    register(of, move |of| {
        if let Some(of) = of {
            show(of);
        }
    });
}

/// At each look `gauge` has the share in it that `count` tells of `of`. Several may share a gauge: each adds its own.
pub(crate) fn count_on_look<T: Send + Sync + 'static>(of: &Arc<T>, gauge: Gauge, count: impl Fn(&T) -> u32 + Send + 'static) {
    // There from the start.
    gauge.increment(0);
    let mut told = 0;
    register(of, move |of| {
        let now = of.map_or(0, &count);
        gauge.increment(f64::from(now) - f64::from(told));
        told = now;
    });
}

/// `show` is given `None` once, when `of` is gone.
fn register<T: Send + Sync + 'static>(of: &Arc<T>, show: impl FnMut(Option<&T>) + Send + 'static) {
    let mut shown = SHOWN.lock();
    // What comes and goes while nobody looks must not pile up.
    shown.retain_mut(|one| !one.ends());
    shown.push(Box::new(Of { of: Arc::downgrade(of), show }));
}

trait Shown: Send {
    fn show(&mut self);

    /// Whether it is gone, and shown as gone.
    fn ends(&mut self) -> bool;
}

struct Of<T, F> {
    of: Weak<T>,
    show: F,
}

impl<T: Send + Sync, F: FnMut(Option<&T>) + Send> Shown for Of<T, F> {
    fn show(&mut self) {
        if let Some(of) = self.of.upgrade() {
            (self.show)(Some(&of));
        }
    }

    fn ends(&mut self) -> bool {
        let gone = self.of.strong_count() == 0;
        if gone {
            (self.show)(None);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

    use super::*;
    use crate::count::Count;

    fn shown(recorder: &PrometheusRecorder) -> String {
        sample();
        let text = recorder.handle().render();
        text.lines().find_map(|line| line.strip_prefix("in_use ")).unwrap_or("nothing").to_owned()
    }

    #[test]
    fn each_has_its_share_in_a_gauge_until_it_is_gone() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let counts = [(); 2].map(|()| Arc::new(Count::new()));
        metrics::with_local_recorder(&recorder, || {
            for count in &counts {
                count_on_look(count, metrics::gauge!("in_use"), Count::get);
            }
        });
        assert_eq!(recorder.handle().render().matches("in_use 0").count(), 1, "it is there before anybody looks");
        let [one, other] = counts;
        one.enter();
        one.enter();
        other.enter();
        assert_eq!(shown(&recorder), "3");
        one.leave();
        assert_eq!(shown(&recorder), "2");
        drop(one);
        assert_eq!(shown(&recorder), "1");
        drop(other);
        assert_eq!(shown(&recorder), "0");
    }

    #[test]
    fn what_is_gone_is_forgotten_though_nobody_looks() {
        let (held, living) = (Arc::new(()), Arc::new(()));
        let forgotten = Arc::downgrade(&held);
        on_look(&Arc::new(()), move |()| drop(held.clone()));
        on_look(&living, |()| ());
        assert!(forgotten.upgrade().is_none());
    }
}
