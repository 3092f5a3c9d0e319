//! How busy an endpoint is: how long its answers take to begin (a peak EWMA), times the calls it has and the one that is to come.
//!
//! Worse than expected counts at once and in full, better only by and by. An endpoint that is not asked is forgotten at the same pace,
//! so that it is tried again some time. This is Finagle's measure; linkerd uses it too.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::count::Count;

/// What a new endpoint is taken for: slow enough that it does not get everything at once, fast enough that it gets something.
const UNKNOWN: Duration = Duration::from_millis(30);

/// Nobody is taken for faster: differences below this are noise, and without a bound an endpoint that is not asked for hours would cost
/// nothing however many calls it gets at once.
const FASTEST: Duration = Duration::from_millis(1);

/// The load of one endpoint.
#[derive(Debug)]
pub(super) struct Load {
    in_flight: Count,
    estimate: Mutex<Estimate>,
    penalty: Duration,
}

impl Load {
    /// A failure counts as an answer after `penalty`, however fast it came.
    pub(super) fn new(decay: Duration, penalty: Duration, now: Instant) -> Self {
        Self { in_flight: Count::new(), estimate: Mutex::new(Estimate::new(decay, now)), penalty }
    }

    /// The lower, the better.
    pub(super) fn cost(&self, now: Instant) -> f64 {
        self.estimate.lock().at(now).max(FASTEST.as_secs_f64()) * (f64::from(self.in_flight()) + 1.0)
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    pub(super) fn enter(&self) {
        self.in_flight.enter();
    }

    pub(super) fn leave(&self) {
        self.in_flight.leave();
    }

    /// An answer began after `delay`.
    pub(super) fn answered(&self, delay: Duration, now: Instant) {
        self.estimate.lock().observe(delay.as_secs_f64(), now);
    }

    /// There was no answer for `delay`, and how much longer it would have taken nobody knows.
    pub(super) fn took_at_least(&self, delay: Duration, now: Instant) {
        self.estimate.lock().raise(delay.as_secs_f64(), now);
    }

    /// It failed after `delay`. An endpoint that fails fast would otherwise look like the best of all.
    pub(super) fn failed(&self, delay: Duration, now: Instant) {
        self.took_at_least(delay.max(self.penalty), now);
    }

    /// It is well again, whatever it was like before.
    pub(super) fn forget(&self, now: Instant) {
        let mut estimate = self.estimate.lock();
        *estimate = Estimate { seconds: UNKNOWN.as_secs_f64(), as_of: now, ..*estimate };
    }
}

/// The average: pure, takes `now`.
#[derive(Debug)]
struct Estimate {
    seconds: f64,
    as_of: Instant,
    /// After this long about a third is left of what was seen.
    decay: Duration,
}

impl Estimate {
    fn new(decay: Duration, now: Instant) -> Self {
        Self { seconds: UNKNOWN.as_secs_f64(), as_of: now, decay }
    }

    fn at(&self, now: Instant) -> f64 {
        self.seconds * self.weight(now)
    }

    /// What is left of an observation of `as_of`.
    fn weight(&self, now: Instant) -> f64 {
        (-now.saturating_duration_since(self.as_of).as_secs_f64() / self.decay.as_secs_f64()).exp()
    }

    fn observe(&mut self, seconds: f64, now: Instant) {
        let weight = self.weight(now);
        let decayed = self.seconds * weight;
        self.seconds = if seconds > decayed { seconds } else { decayed + seconds * (1.0 - weight) };
        self.as_of = now.max(self.as_of);
    }

    fn raise(&mut self, seconds: f64, now: Instant) {
        if seconds > self.at(now) {
            self.seconds = seconds;
            self.as_of = now.max(self.as_of);
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

    fn load() -> (Load, Instant) {
        let now = Instant::now();
        (Load::new(DECAY, PENALTY, now), now)
    }

    fn costs(load: &Load, now: Instant, seconds: f64) -> bool {
        (load.cost(now) - seconds).abs() < seconds / 100.0
    }

    #[test]
    fn a_call_in_flight_costs_as_much_again() {
        let (load, now) = load();
        assert!(costs(&load, now, 0.030));
        load.enter();
        load.enter();
        assert!(costs(&load, now, 0.090));
        load.leave();
        assert!(costs(&load, now, 0.060));
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_a_fast_one_by_and_by() {
        let (load, now) = load();
        load.answered(millis(400), now);
        assert!(costs(&load, now, 0.400));
        load.answered(millis(10), now);
        assert!(costs(&load, now, 0.400));
        load.answered(millis(10), now + DECAY);
        assert!(costs(&load, now + DECAY, 0.400 * 0.3679 + 0.010 * 0.6321));
    }

    #[test]
    fn what_is_not_asked_is_forgotten() {
        let (load, now) = load();
        load.answered(millis(1_000), now);
        assert!(costs(&load, now + DECAY, 0.3679));
        let hours_later = now + DECAY * 1_000;
        assert!(costs(&load, hours_later, 0.001));
        load.enter();
        assert!(costs(&load, hours_later, 0.002));
    }

    #[test]
    fn a_failure_counts_as_slow_however_fast_it_was() {
        let (load, now) = load();
        load.failed(millis(1), now);
        assert!(costs(&load, now, 5.0));
        load.answered(millis(1), now);
        assert!(costs(&load, now, 5.0));
        load.forget(now);
        assert!(costs(&load, now, 0.030));
    }

    #[test]
    fn giving_up_soon_makes_nobody_look_fast() {
        let (load, now) = load();
        load.took_at_least(millis(1), now + DECAY);
        assert!(costs(&load, now + DECAY, 0.030 * 0.3679));
        load.took_at_least(millis(2_000), now + DECAY);
        assert!(costs(&load, now + DECAY, 2.0));
    }
}
