//! What retries may cost a target: tokens (gRFC A6) and a share of the calls in flight, both without a lock.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use super::config::Config;

/// Tokens are counted in thousandths, so that a tenth of one is a whole number.
const TOKEN: u32 = 1_000;
const REFUND: u32 = TOKEN / 10;

/// The retries that one target's calls may make.
#[derive(Debug)]
pub(super) struct Budget {
    max_millitokens: u32,
    millitokens: AtomicU32,
    in_flight_percent: u32,
    in_flight_min: u32,
    calls: AtomicU32,
    retries: AtomicU32,
}

/// Why there is no retry to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exhausted {
    /// Too many calls failed lately.
    Tokens,
    /// Too many retries are in flight.
    InFlight,
}

impl Budget {
    pub(super) fn new(config: &Config) -> Arc<Self> {
        let max_millitokens = config.tokens.saturating_mul(TOKEN);
        Arc::new(Self {
            max_millitokens,
            millitokens: AtomicU32::new(max_millitokens),
            in_flight_percent: config.in_flight_percent,
            in_flight_min: config.in_flight_min,
            calls: AtomicU32::new(0),
            retries: AtomicU32::new(0),
        })
    }

    /// A call succeeded.
    pub(super) fn refund(&self) {
        self.add(|tokens| tokens.saturating_add(REFUND).min(self.max_millitokens));
    }

    /// A call failed in a way that could be retried.
    pub(super) fn spend(&self) {
        self.add(|tokens| tokens.saturating_sub(TOKEN));
    }

    fn add(&self, change: impl Fn(u32) -> u32) {
        // Relaxed: the number guards nothing else. The update cannot fail, it always has a next value.
        let _ = self.millitokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| Some(change(tokens)));
    }

    /// Whole and part tokens that are left.
    pub(super) fn tokens(&self) -> f64 {
        f64::from(self.millitokens.load(Ordering::Relaxed)) / f64::from(TOKEN)
    }

    /// Counts a call until the guard is dropped.
    pub(super) fn call(self: &Arc<Self>) -> InFlight {
        self.calls.fetch_add(1, Ordering::Relaxed);
        InFlight { budget: self.clone(), counter: |budget| &budget.calls }
    }

    /// A retry that costs no token, because the request was never sent. In flight it counts like any other.
    pub(super) fn transparent(self: &Arc<Self>) -> Result<InFlight, Exhausted> {
        let calls = self.calls.load(Ordering::Relaxed);
        let share = u64::from(calls) * u64::from(self.in_flight_percent) / 100;
        let limit = u32::try_from(share).unwrap_or(u32::MAX).max(self.in_flight_min);
        self.retries
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |retries| (retries < limit).then_some(retries + 1))
            .map_err(|_| Exhausted::InFlight)?;
        Ok(InFlight { budget: self.clone(), counter: |budget| &budget.retries })
    }

    /// A retry, if both limits allow one.
    pub(super) fn retry(self: &Arc<Self>) -> Result<InFlight, Exhausted> {
        if self.millitokens.load(Ordering::Relaxed) <= self.max_millitokens / 2 {
            return Err(Exhausted::Tokens);
        }
        self.transparent()
    }
}

/// A call or a retry in flight.
#[derive(Debug)]
pub(super) struct InFlight {
    budget: Arc<Budget>,
    counter: fn(&Budget) -> &AtomicU32,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        (self.counter)(&self.budget).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_at_half_of_the_tokens_and_ten_successes_pay_for_one_failure() {
        let budget = Budget::new(&Config { tokens: 10, ..Config::default() });
        for _ in 0..4 {
            budget.spend();
        }
        assert!(budget.retry().is_ok());
        budget.spend();
        assert_eq!(budget.retry().unwrap_err(), Exhausted::Tokens);
        assert!(budget.transparent().is_ok());
        budget.refund();
        assert!(budget.retry().is_ok());
    }

    #[test]
    fn tokens_stay_between_nothing_and_the_maximum() {
        let budget = Budget::new(&Config { tokens: 1, ..Config::default() });
        budget.refund();
        assert!((budget.tokens() - 1.0).abs() < f64::EPSILON);
        budget.spend();
        budget.spend();
        assert!(budget.tokens().abs() < f64::EPSILON);
    }

    #[test]
    fn retries_are_a_share_of_the_calls_with_a_floor() {
        let budget = Budget::new(&Config { in_flight_percent: 50, in_flight_min: 1, ..Config::default() });
        let floor = budget.retry().unwrap();
        assert_eq!(budget.retry().unwrap_err(), Exhausted::InFlight);
        let calls: Vec<_> = (0..4).map(|_| budget.call()).collect();
        let second = budget.retry().unwrap();
        assert_eq!(budget.retry().unwrap_err(), Exhausted::InFlight);
        drop((floor, second, calls));
        assert!(budget.retry().is_ok());
    }
}
