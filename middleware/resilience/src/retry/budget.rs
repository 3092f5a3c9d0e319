//! Retry budget of a target: tokens (gRFC A6) and a share of the calls in flight, both lock-free.

mod tokens;

use std::sync::Arc;

use self::tokens::Tokens;
use super::config::Config;
use crate::counter::AtomicCounter;

/// Retry budget shared by the calls to one target.
#[derive(Debug)]
pub(super) struct Budget {
    tokens: Tokens,
    in_flight_percent: u32,
    in_flight_min: u32,
    calls: AtomicCounter,
    retries: AtomicCounter,
}

/// Why the budget denies a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exhausted {
    /// Too many calls failed recently.
    Tokens,
    /// Too many retries are in flight.
    InFlight,
}

impl Budget {
    pub(super) fn new(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            tokens: Tokens::new(config.tokens),
            in_flight_percent: config.in_flight_percent,
            in_flight_min: config.in_flight_min,
            calls: AtomicCounter::new(),
            retries: AtomicCounter::new(),
        })
    }

    /// Records a successful call.
    pub(super) fn refund(&self) {
        self.tokens.refund();
    }

    /// Records a call that failed in a retryable way.
    pub(super) fn spend(&self) {
        self.tokens.spend();
    }

    /// Returns the remaining tokens, with fractions.
    pub(super) fn tokens(&self) -> f64 {
        self.tokens.left()
    }

    /// Counts a call in flight until the guard is dropped.
    pub(super) fn start_call(self: &Arc<Self>) -> InFlight {
        self.calls.increment();
        InFlight { budget: self.clone(), counter: |budget| &budget.calls }
    }

    /// Admits a transparent retry, which costs no token because the request was never sent. It
    /// counts as in flight but is never denied: when a server closes a connection with many calls,
    /// which is normal, all of them must be sent again at once.
    pub(super) fn transparent_retry(self: &Arc<Self>) -> InFlight {
        self.retries.increment();
        self.retry_guard()
    }

    /// Admits a retry if both limits allow it.
    pub(super) fn try_retry(self: &Arc<Self>) -> Result<InFlight, Exhausted> {
        if !self.tokens.above_threshold() {
            return Err(Exhausted::Tokens);
        }
        let share = u64::from(self.calls.get()) * u64::from(self.in_flight_percent) / 100;
        let limit = u32::try_from(share).unwrap_or(u32::MAX).max(self.in_flight_min);
        self.retries.try_increment(limit).then(|| self.retry_guard()).ok_or(Exhausted::InFlight)
    }

    /// Admits the first retry of a call whose connection was lost, if the tokens allow it. The
    /// in-flight share does not apply: losing one of three servers fails a third of all calls at
    /// once, more than any share meant for calls that fail one by one.
    pub(super) fn retry_connection_loss(self: &Arc<Self>) -> Result<InFlight, Exhausted> {
        if self.tokens.above_threshold() { Ok(self.transparent_retry()) } else { Err(Exhausted::Tokens) }
    }

    /// Returns the guard of a retry that was counted.
    fn retry_guard(self: &Arc<Self>) -> InFlight {
        InFlight { budget: self.clone(), counter: |budget| &budget.retries }
    }
}

/// A call or a retry in flight.
#[derive(Debug)]
pub(super) struct InFlight {
    budget: Arc<Budget>,
    counter: fn(&Budget) -> &AtomicCounter,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        (self.counter)(&self.budget).decrement();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Budget {
        /// Returns the calls and retries in flight.
        pub(in crate::retry) fn in_flight(&self) -> (u32, u32) {
            (self.calls.get(), self.retries.get())
        }
    }

    #[test]
    fn budget_denies_at_half_of_the_tokens() {
        let budget = Budget::new(&Config { tokens: 10, ..Config::default() });
        for _ in 0..4 {
            budget.spend();
        }
        assert!(budget.try_retry().is_ok());
        budget.spend();
        assert_eq!(budget.try_retry().unwrap_err(), Exhausted::Tokens);
        drop(budget.transparent_retry());
        budget.refund();
        assert!(budget.try_retry().is_ok());
    }

    #[test]
    fn tokens_stay_between_zero_and_maximum() {
        let budget = Budget::new(&Config { tokens: 1, ..Config::default() });
        budget.refund();
        assert!((budget.tokens() - 1.0).abs() < f64::EPSILON);
        budget.spend();
        budget.spend();
        assert!(budget.tokens().abs() < f64::EPSILON);
    }

    #[test]
    fn budget_limits_share_of_calls_in_flight() {
        let budget = Budget::new(&Config { in_flight_percent: 50, in_flight_min: 1, ..Config::default() });
        let floor = budget.try_retry().unwrap();
        assert_eq!(budget.try_retry().unwrap_err(), Exhausted::InFlight);
        let calls: Vec<_> = (0..4).map(|_| budget.start_call()).collect();
        let second = budget.try_retry().unwrap();
        assert_eq!(budget.try_retry().unwrap_err(), Exhausted::InFlight);
        let never_sent = budget.transparent_retry();
        drop(second);
        assert_eq!(budget.try_retry().unwrap_err(), Exhausted::InFlight, "a transparent retry counts as in flight");
        drop((floor, never_sent, calls));
        assert!(budget.try_retry().is_ok());
    }

    #[test]
    fn budget_keeps_bounds_under_contention() {
        const MAX: f64 = 10.0;
        let budget = Budget::new(&Config { tokens: 10, in_flight_percent: 50, in_flight_min: 2, ..Config::default() });
        // At most eight calls are in flight, so four may be retried; each may have a transparent
        // retry in addition.
        for (transparent, max_retries) in [(false, 4), (true, 4 + 8)] {
            std::thread::scope(|scope| {
                for thread in 0..8 {
                    let budget = &budget;
                    scope.spawn(move || {
                        for round in 0..5_000 {
                            let call = budget.start_call();
                            if (round / 100 + thread) % 3 == 0 {
                                budget.spend();
                            } else {
                                budget.refund();
                            }
                            let retries = (budget.try_retry(), transparent.then(|| budget.transparent_retry()));
                            assert!(budget.in_flight().1 <= max_retries);
                            assert!((0.0..=MAX).contains(&budget.tokens()));
                            drop((retries, call));
                        }
                    });
                }
            });
        }
        assert_eq!(budget.in_flight(), (0, 0));
        for _ in 0..100 {
            budget.refund();
        }
        assert!((budget.tokens() - MAX).abs() < f64::EPSILON, "all tokens were refunded");
    }
}
