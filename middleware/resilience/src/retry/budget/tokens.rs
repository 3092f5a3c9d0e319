//! Lock-free retry tokens (gRFC A6).

use crate::sync::atomic::{AtomicU32, Ordering};

/// Tokens are counted in thousandths, so that a tenth of a token is a whole number.
const TOKEN: u32 = 1_000;
const REFUND: u32 = TOKEN / 10;

/// Token bucket of gRFC A6: never below zero, never above the maximum.
#[derive(Debug)]
pub(super) struct Tokens {
    max_milli: u32,
    milli: AtomicU32,
}

impl Tokens {
    /// Creates a full bucket of `max` tokens.
    pub(super) fn new(max: u32) -> Self {
        let max_milli = max.saturating_mul(TOKEN);
        Self { max_milli, milli: AtomicU32::new(max_milli) }
    }

    /// Removes one token.
    pub(super) fn spend(&self) {
        self.change(|milli| milli.saturating_sub(TOKEN));
    }

    /// Adds a tenth of a token.
    pub(super) fn refund(&self) {
        // Usually the bucket is full; skip the write to a cache line shared by all threads.
        if self.milli.load(Ordering::Relaxed) == self.max_milli {
            return;
        }
        self.change(|milli| milli.saturating_add(REFUND).min(self.max_milli));
    }

    fn change(&self, change: impl Fn(u32) -> u32) {
        // Relaxed, like all accesses below: the number guards no other data. The update cannot
        // fail, because the closure always returns a value.
        let _ = self.milli.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |milli| Some(change(milli)));
    }

    /// Returns whether more than half of the tokens are left.
    pub(super) fn above_threshold(&self) -> bool {
        self.milli.load(Ordering::Relaxed) > self.max_milli / 2
    }

    /// Returns the remaining tokens, with fractions.
    pub(super) fn left(&self) -> f64 {
        f64::from(self.milli.load(Ordering::Relaxed)) / f64::from(TOKEN)
    }
}
