//! Exponential backoff with full jitter before the next attempt.

use std::time::Duration;

use crate::{
    jitter::{self, RandomFn},
    rejection::Retry,
};

/// Backoff between the attempts of one call.
#[derive(Debug)]
pub(super) struct BackOff {
    base: Duration,
    max: Duration,
    draw: RandomFn,
    step: u32,
}

impl BackOff {
    pub(super) fn new(base: Duration, max: Duration, draw: RandomFn) -> Self {
        Self { base, max, draw, step: 0 }
    }

    /// Returns the next backoff, or `None` if the server forbids another attempt. A server-provided
    /// delay is used exactly and resets the sequence.
    pub(super) fn next(&mut self, advice: Retry) -> Option<Duration> {
        match advice {
            Retry::Never => None,
            Retry::After(wait) => {
                self.step = 0;
                Some(wait)
            }
            Retry::Unspecified => {
                // The cap applies before the jitter, so that no backoff exceeds it.
                let longest = self.base.saturating_mul(2_u32.saturating_pow(self.step)).min(self.max);
                self.step = self.step.saturating_add(1);
                Some(jitter::full_jitter(longest, self.draw))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: RandomFn = || 1.0;

    fn pauses(back_off: &mut BackOff, count: usize) -> Vec<u128> {
        (0..count).map(|_| back_off.next(Retry::Unspecified).unwrap().as_millis()).collect()
    }

    #[test]
    fn backoff_doubles_up_to_the_cap() {
        let mut back_off = BackOff::new(Duration::from_millis(1), Duration::from_millis(10), LONGEST);
        assert_eq!(pauses(&mut back_off, 6), [1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn backoff_has_full_jitter() {
        let mut back_off = BackOff::new(Duration::from_millis(8), Duration::from_millis(8), || 0.25);
        assert_eq!(pauses(&mut back_off, 1), [2]);
    }

    #[test]
    fn pushback_overrides_and_resets_backoff() {
        let mut back_off = BackOff::new(Duration::from_millis(50), Duration::from_secs(1), LONGEST);
        assert_eq!(pauses(&mut back_off, 2), [50, 100]);
        assert_eq!(back_off.next(Retry::After(Duration::from_millis(250))), Some(Duration::from_millis(250)));
        assert_eq!(pauses(&mut back_off, 1), [50]);
        assert_eq!(back_off.next(Retry::Never), None);
    }
}
