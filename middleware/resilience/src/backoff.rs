//! Exponential backoff: every growing wait of the workspace.

use std::time::Duration;

/// Waits that double from `base` up to `max`. Jitter is added by the caller ([`crate::jitter`]).
///
/// ```
/// use std::time::Duration;
/// use palisade_resilience::backoff::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(150));
/// let waits: Vec<_> = (0..4).map(|_| backoff.next_wait().as_millis()).collect();
/// assert_eq!(waits, [50, 100, 150, 150]);
/// backoff.reset();
/// assert_eq!(backoff.next_wait().as_millis(), 50);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    step: u32,
}

impl Backoff {
    /// A sequence that starts with `base`.
    pub const fn new(base: Duration, max: Duration) -> Self {
        Self { base, max, step: 0 }
    }

    /// The wait after `step` doublings of `base`, at most `max`.
    pub fn at(base: Duration, max: Duration, step: u32) -> Duration {
        base.saturating_mul(2_u32.saturating_pow(step)).min(max)
    }

    /// Returns the next wait and advances the sequence.
    pub fn next_wait(&mut self) -> Duration {
        let wait = Self::at(self.base, self.max, self.step);
        self.step = self.step.saturating_add(1);
        wait
    }

    /// Restarts the sequence, after a success.
    pub const fn reset(&mut self) {
        self.step = 0;
    }
}
