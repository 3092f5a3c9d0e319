//! Peak EWMA load of an endpoint: response latency (exponentially weighted moving average) times
//! the calls in flight plus one.
//!
//! A higher latency counts immediately and in full, a lower one gradually. The estimate of an
//! unused endpoint decays at the same pace, so that it is tried again eventually. Finagle and
//! linkerd use the same measure.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use palisade_resilience::counter::AtomicCounter;

/// Initial latency of a new endpoint: slow enough not to attract all calls at once, fast enough to
/// receive some.
const INITIAL_LATENCY: Duration = Duration::from_millis(30);

/// Lower bound of the latency. Smaller differences are noise, and an endpoint unused for hours
/// would otherwise cost nothing, however many calls it receives at once.
const MIN_LATENCY: Duration = Duration::from_millis(1);

/// Load of one endpoint.
#[derive(Debug)]
pub(super) struct PeakEwma {
    in_flight: AtomicCounter,
    estimate: Mutex<DecayingPeak>,
    penalty: Duration,
}

impl PeakEwma {
    /// `penalty` is the minimum latency recorded for a failure.
    pub(super) fn new(decay: Duration, penalty: Duration, now: Instant) -> Self {
        Self { in_flight: AtomicCounter::new(), estimate: Mutex::new(DecayingPeak::new(decay, now)), penalty }
    }

    /// Returns the cost of the next call; lower is better.
    pub(super) fn cost(&self, now: Instant) -> f64 {
        self.estimate.lock().at(now).max(MIN_LATENCY.as_secs_f64()) * (f64::from(self.in_flight()) + 1.0)
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    pub(super) fn increment_in_flight(&self) {
        self.in_flight.increment();
    }

    pub(super) fn decrement_in_flight(&self) {
        self.in_flight.decrement();
    }

    /// Records `delay` as the time to the response headers.
    pub(super) fn observe_latency(&self, delay: Duration, now: Instant) {
        self.estimate.lock().observe(delay.as_secs_f64(), now);
    }

    /// Records a lower bound: no response within `delay`, the full latency is unknown.
    pub(super) fn observe_lower_bound(&self, delay: Duration, now: Instant) {
        self.estimate.lock().raise_to(delay.as_secs_f64(), now);
    }

    /// Records a failure after `delay`, at least the penalty. Otherwise an endpoint that fails fast
    /// would look best.
    pub(super) fn observe_failure(&self, delay: Duration, now: Instant) {
        self.observe_lower_bound(delay.max(self.penalty), now);
    }

    /// Resets the latency to its initial value after a recovery.
    pub(super) fn reset(&self, now: Instant) {
        let mut estimate = self.estimate.lock();
        *estimate = DecayingPeak { seconds: INITIAL_LATENCY.as_secs_f64(), updated_at: now, ..*estimate };
    }
}

/// Decaying maximum of the latency. Pure: takes `now`.
#[derive(Debug)]
struct DecayingPeak {
    seconds: f64,
    updated_at: Instant,
    /// Time after which a weight of 1/e is left.
    decay: Duration,
}

impl DecayingPeak {
    fn new(decay: Duration, now: Instant) -> Self {
        Self { seconds: INITIAL_LATENCY.as_secs_f64(), updated_at: now, decay }
    }

    fn at(&self, now: Instant) -> f64 {
        self.seconds * self.weight(now)
    }

    /// Returns the remaining weight of the last observation.
    fn weight(&self, now: Instant) -> f64 {
        (-now.saturating_duration_since(self.updated_at).as_secs_f64() / self.decay.as_secs_f64()).exp()
    }

    fn observe(&mut self, seconds: f64, now: Instant) {
        let weight = self.weight(now);
        let decayed = self.seconds * weight;
        self.seconds = if seconds > decayed { seconds } else { decayed + seconds * (1.0 - weight) };
        self.updated_at = now.max(self.updated_at);
    }

    fn raise_to(&mut self, seconds: f64, now: Instant) {
        if seconds > self.at(now) {
            self.seconds = seconds;
            self.updated_at = now.max(self.updated_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Duration = Duration::from_secs(10);
    const PENALTY: Duration = Duration::from_secs(5);

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn load() -> (PeakEwma, Instant) {
        let now = Instant::now();
        (PeakEwma::new(DECAY, PENALTY, now), now)
    }

    fn has_cost(load: &PeakEwma, now: Instant, seconds: f64) -> bool {
        (load.cost(now) - seconds).abs() < seconds / 100.0
    }

    #[test]
    fn cost_grows_with_calls_in_flight() {
        let (load, now) = load();
        assert!(has_cost(&load, now, 0.030));
        load.increment_in_flight();
        load.increment_in_flight();
        assert!(has_cost(&load, now, 0.090));
        load.decrement_in_flight();
        assert!(has_cost(&load, now, 0.060));
    }

    #[test]
    fn latency_rises_at_once_and_falls_gradually() {
        let (load, now) = load();
        load.observe_latency(millis(400), now);
        assert!(has_cost(&load, now, 0.400));
        load.observe_latency(millis(10), now);
        assert!(has_cost(&load, now, 0.400));
        load.observe_latency(millis(10), now + DECAY);
        assert!(has_cost(&load, now + DECAY, 0.400 * 0.3679 + 0.010 * 0.6321));
    }

    #[test]
    fn latency_of_unused_endpoint_decays() {
        let (load, now) = load();
        load.observe_latency(millis(1_000), now);
        assert!(has_cost(&load, now + DECAY, 0.3679));
        let hours_later = now + DECAY * 1_000;
        assert!(has_cost(&load, hours_later, 0.001));
        load.increment_in_flight();
        assert!(has_cost(&load, hours_later, 0.002));
    }

    #[test]
    fn fast_failure_costs_penalty() {
        let (load, now) = load();
        load.observe_failure(millis(1), now);
        assert!(has_cost(&load, now, 5.0));
        load.observe_latency(millis(1), now);
        assert!(has_cost(&load, now, 5.0));
        load.reset(now);
        assert!(has_cost(&load, now, 0.030));
    }

    #[test]
    fn lower_bound_never_lowers_latency() {
        let (load, now) = load();
        load.observe_lower_bound(millis(1), now + DECAY);
        assert!(has_cost(&load, now + DECAY, 0.030 * 0.3679));
        load.observe_lower_bound(millis(2_000), now + DECAY);
        assert!(has_cost(&load, now + DECAY, 2.0));
    }
}
