//! Token buckets by key (GCRA, from `governor`), bounded in memory.

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

/// Above this many keys newcomers share one bucket.
const MAX_KEYS: usize = 100_000;
/// Buckets that are full again are forgotten, and the rest is counted, every so many requests: the count may be over by as many.
const CLEANUP_INTERVAL: u64 = 1_000;
/// The bucket of the newcomers.
const OVERFLOW_KEY: u64 = 0;

/// One bucket per key. Keys are kept as hashes under a secret of this process: no text is copied, and nobody can aim at another's bucket.
pub(super) struct Buckets {
    limiter: RateLimiter<u64, DashMapStateStore<u64>, DefaultClock, StateInformationMiddleware>,
    clock: DefaultClock,
    hash: RandomState,
    pub(super) burst: u32,
    /// Seconds after which an empty bucket is full.
    pub(super) window: u64,
    requests: AtomicU64,
    over_key_limit: AtomicBool,
}

impl Buckets {
    /// `None` if there is no limit.
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

    /// What `key` has left after this request, or how long it must wait.
    pub(super) fn take(&self, key: impl Hash) -> Result<u32, Duration> {
        if self.requests.fetch_add(1, Ordering::Relaxed) % CLEANUP_INTERVAL == CLEANUP_INTERVAL - 1 {
            self.limiter.retain_recent();
            // Counting takes a lock per shard: not for every request.
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
    fn memory_is_bounded_however_many_keys_come() {
        let buckets = Buckets::new(1, 1_000_000).unwrap();
        for key in 0..150_000_u32 {
            // Two requests: a bucket that is full again would be forgotten.
            let _ = (buckets.take(key), buckets.take(key));
        }
        assert!(buckets.limiter.len() <= MAX_KEYS + usize::try_from(CLEANUP_INTERVAL).unwrap(), "{}", buckets.limiter.len());
    }

    #[test]
    fn nothing_is_no_limit() {
        assert!(Buckets::new(0, 5).is_none());
        assert!(Buckets::new(5, 0).is_none());
    }
}
