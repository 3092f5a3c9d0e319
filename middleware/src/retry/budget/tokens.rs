//! The tokens of a budget, kept without a lock.

use crate::sync::atomic::{AtomicU32, Ordering};

/// Tokens are counted in thousandths, so that a tenth of one is a whole number.
const TOKEN: u32 = 1_000;
const REFUND: u32 = TOKEN / 10;

/// Tokens as gRFC A6 has them: never below nothing, never above the maximum.
#[derive(Debug)]
pub(super) struct Tokens {
    max_milli: u32,
    milli: AtomicU32,
}

impl Tokens {
    /// All of `max` tokens.
    pub(super) fn new(max: u32) -> Self {
        let max_milli = max.saturating_mul(TOKEN);
        Self { max_milli, milli: AtomicU32::new(max_milli) }
    }

    /// One less.
    pub(super) fn spend(&self) {
        self.change(|milli| milli.saturating_sub(TOKEN));
    }

    /// A tenth more.
    pub(super) fn refund(&self) {
        // As a rule none is missing, and nothing is written that all threads share.
        if self.milli.load(Ordering::Relaxed) == self.max_milli {
            return;
        }
        self.change(|milli| milli.saturating_add(REFUND).min(self.max_milli));
    }

    fn change(&self, change: impl Fn(u32) -> u32) {
        // Relaxed, as all below: the numbers guard nothing else. The update cannot fail, it always has a next value.
        let _ = self.milli.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |milli| Some(change(milli)));
    }

    /// Whether more than half of them are left.
    pub(super) fn above_threshold(&self) -> bool {
        self.milli.load(Ordering::Relaxed) > self.max_milli / 2
    }

    /// Whole and part tokens that are left.
    pub(super) fn left(&self) -> f64 {
        f64::from(self.milli.load(Ordering::Relaxed)) / f64::from(TOKEN)
    }
}
