//! Token buckets per key (GCRA, by `governor`) with bounded memory.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    num::NonZeroU32,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};

/// Maximum number of keys. Above it, all requests share one bucket.
const MAX_KEYS: usize = 100_000;
/// Requests between two cleanups, which remove full buckets and count the rest. The number of keys
/// may exceed the maximum by as many.
const CLEANUP_INTERVAL: u64 = 1_000;
/// Key of the shared overflow bucket.
const OVERFLOW_KEY: u64 = 0;

/// Token bucket per key. Keys are stored as hashes with a per-process secret: no text is copied,
/// and collisions cannot be provoked.
pub(super) struct Buckets {
    limiter: RateLimiter<u64, DashMapStateStore<u64>, DefaultClock, StateInformationMiddleware>,
    clock: DefaultClock,
    hash: RandomState,
    pub(super) burst: u32,
    /// Time until an empty bucket is full, seconds.
    pub(super) window: u64,
    requests: AtomicU64,
    over_key_limit: AtomicBool,
}

impl Buckets {
    /// Creates the buckets. Returns `None` if a value is 0.
    pub(super) fn new(per_second: u32, burst: u32) -> Option<Self> {
        let (rate, size) = (NonZeroU32::new(per_second)?, NonZeroU32::new(burst)?);
        Some(Self {
            limiter: RateLimiter::dashmap(Quota::per_second(rate).allow_burst(size)).with_middleware(),
            clock: DefaultClock::default(),
            hash: RandomState::new(),
            burst,
            window: u64::from(burst.div_ceil(per_second)),
            requests: AtomicU64::new(0),
            over_key_limit: AtomicBool::new(false),
        })
    }

    /// Takes one token of `key`. Returns the remaining tokens, or the time to wait.
    pub(super) fn take(&self, key: impl Hash) -> Result<u32, Duration> {
        if self.requests.fetch_add(1, Ordering::Relaxed) % CLEANUP_INTERVAL == CLEANUP_INTERVAL - 1 {
            self.limiter.retain_recent();
            // Counting locks every shard, so it is not done for every request.
            self.over_key_limit.store(self.limiter.len() >= MAX_KEYS, Ordering::Relaxed);
        }
        let key = if self.over_key_limit.load(Ordering::Relaxed) { OVERFLOW_KEY } else { self.hash.hash_one(key) };
        match self.limiter.check_key(&key) {
            Ok(state) => Ok(state.remaining_burst_capacity()),
            Err(not_until) => Err(not_until.wait_time_from(self.clock.now())),
        }
    }
}

impl std::fmt::Debug for Buckets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buckets").field("burst", &self.burst).field("window", &self.window).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_bound_number_of_keys() {
        let buckets = Buckets::new(1, 1_000_000).unwrap();
        for key in 0..150_000_u32 {
            // Two requests each, because a full bucket would be removed.
            let _ = (buckets.take(key), buckets.take(key));
        }
        assert!(buckets.limiter.len() <= MAX_KEYS + usize::try_from(CLEANUP_INTERVAL).unwrap(), "{}", buckets.limiter.len());
    }

    #[test]
    fn buckets_none_if_rate_or_burst_is_zero() {
        assert!(Buckets::new(0, 5).is_none());
        assert!(Buckets::new(5, 0).is_none());
    }
}
