//! How many there are of something, kept without a lock.

use crate::sync::atomic::{AtomicU32, Ordering};

/// How many there are of something. Relaxed throughout: the number guards nothing else.
#[derive(Debug)]
pub(crate) struct AtomicCounter(AtomicU32);

impl AtomicCounter {
    /// None.
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// The present number.
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more.
    pub(crate) fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One more, unless there are `limit`; whether it is in.
    pub(crate) fn try_increment(&self, limit: u32) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < limit).then_some(count + 1)).is_ok()
    }

    /// One less, of those that are in.
    pub(crate) fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
