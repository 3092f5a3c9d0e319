//! Lock-free counter of things in flight.

use crate::sync::atomic::{AtomicU32, Ordering};

/// Lock-free counter. All accesses are relaxed, because the number guards no other data.
#[derive(Debug, Default)]
pub struct AtomicCounter(AtomicU32);

impl AtomicCounter {
    /// Creates a counter at zero.
    pub fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Returns the current number.
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds one.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds one unless `limit` is reached; returns whether it was added.
    pub fn try_increment(&self, limit: u32) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < limit).then_some(count + 1)).is_ok()
    }

    /// Subtracts one that was added before.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
