//! How busy an endpoint is: how long its answers take to begin (a peak EWMA), times the calls it has and the one that is to come.
//!
//! Worse than expected counts at once and in full, better only by and by. An endpoint that is not asked is forgotten at the same pace,
//! so that it is tried again some time. This is Finagle's measure; linkerd uses it too.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::counter::AtomicCounter;

/// What a new endpoint is taken for: slow enough that it does not get everything at once, fast enough that it gets something.
const INITIAL_LATENCY: Duration = Duration::from_millis(30);

/// Nobody is taken for faster: differences below this are noise, and without a bound an endpoint that is not asked for hours would cost
/// nothing however many calls it gets at once.
const MIN_LATENCY: Duration = Duration::from_millis(1);

/// The load of one endpoint.
#[derive(Debug)]
pub(super) struct PeakEwma {
    in_flight: AtomicCounter,
    estimate: Mutex<DecayingPeak>,
    penalty: Duration,
}

impl PeakEwma {
    /// A failure counts as an answer after `penalty`, however fast it came.
    pub(super) fn new(decay: Duration, penalty: Duration, now: Instant) -> Self {
        Self { in_flight: AtomicCounter::new(), estimate: Mutex::new(DecayingPeak::new(decay, now)), penalty }
    }

    /// The lower, the better.
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

    /// An answer began after `delay`.
    pub(super) fn observe_latency(&self, delay: Duration, now: Instant) {
        self.estimate.lock().observe(delay.as_secs_f64(), now);
    }

    /// There was no answer for `delay`, and how much longer it would have taken nobody knows.
    pub(super) fn observe_lower_bound(&self, delay: Duration, now: Instant) {
        self.estimate.lock().raise_to(delay.as_secs_f64(), now);
    }

    /// It failed after `delay`. An endpoint that fails fast would otherwise look like the best of all.
    pub(super) fn observe_failure(&self, delay: Duration, now: Instant) {
        self.observe_lower_bound(delay.max(self.penalty), now);
    }

    /// It is well again, whatever it was like before.
    pub(super) fn reset(&self, now: Instant) {
        let mut estimate = self.estimate.lock();
        *estimate = DecayingPeak { seconds: INITIAL_LATENCY.as_secs_f64(), updated_at: now, ..*estimate };
    }
}

/// The average: pure, takes `now`.
#[derive(Debug)]
struct DecayingPeak {
    seconds: f64,
    updated_at: Instant,
    /// After this long about a third is left of what was seen.
    decay: Duration,
}

impl DecayingPeak {
    fn new(decay: Duration, now: Instant) -> Self {
        Self { seconds: INITIAL_LATENCY.as_secs_f64(), updated_at: now, decay }
    }

    fn at(&self, now: Instant) -> f64 {
        self.seconds * self.weight(now)
    }

    /// What is left of an observation of `as_of`.
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
    fn a_call_in_flight_costs_as_much_again() {
        let (load, now) = load();
        assert!(has_cost(&load, now, 0.030));
        load.increment_in_flight();
        load.increment_in_flight();
        assert!(has_cost(&load, now, 0.090));
        load.decrement_in_flight();
        assert!(has_cost(&load, now, 0.060));
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_a_fast_one_by_and_by() {
        let (load, now) = load();
        load.observe_latency(millis(400), now);
        assert!(has_cost(&load, now, 0.400));
        load.observe_latency(millis(10), now);
        assert!(has_cost(&load, now, 0.400));
        load.observe_latency(millis(10), now + DECAY);
        assert!(has_cost(&load, now + DECAY, 0.400 * 0.3679 + 0.010 * 0.6321));
    }

    #[test]
    fn what_is_not_asked_is_forgotten() {
        let (load, now) = load();
        load.observe_latency(millis(1_000), now);
        assert!(has_cost(&load, now + DECAY, 0.3679));
        let hours_later = now + DECAY * 1_000;
        assert!(has_cost(&load, hours_later, 0.001));
        load.increment_in_flight();
        assert!(has_cost(&load, hours_later, 0.002));
    }

    #[test]
    fn a_failure_counts_as_slow_however_fast_it_was() {
        let (load, now) = load();
        load.observe_failure(millis(1), now);
        assert!(has_cost(&load, now, 5.0));
        load.observe_latency(millis(1), now);
        assert!(has_cost(&load, now, 5.0));
        load.reset(now);
        assert!(has_cost(&load, now, 0.030));
    }

    #[test]
    fn giving_up_soon_makes_nobody_look_fast() {
        let (load, now) = load();
        load.observe_lower_bound(millis(1), now + DECAY);
        assert!(has_cost(&load, now + DECAY, 0.030 * 0.3679));
        load.observe_lower_bound(millis(2_000), now + DECAY);
        assert!(has_cost(&load, now + DECAY, 2.0));
    }
}
