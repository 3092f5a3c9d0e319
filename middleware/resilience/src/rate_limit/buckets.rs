//! Token buckets per key (GCRA, by `governor`) with bounded memory.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::{NoOpMiddleware, StateInformationMiddleware},
};

use super::bounded_store::BoundedStore;

/// Maximum number of keys. Above it, new keys share one bucket.
const MAX_KEYS: usize = 100_000;
/// Requests between two cleanups, which remove full buckets: an idle key costs no memory.
const CLEANUP_INTERVAL: u64 = 1_000;

/// Token bucket per key. Keys are stored as hashes with a per-process secret: no text is copied,
/// and collisions cannot be provoked.
pub(super) struct Buckets<C: Clock = DefaultClock> {
    limiter: RateLimiter<u64, BoundedStore, C, StateInformationMiddleware>,
    hash: RandomState,
    pub(super) burst: u32,
    /// Time until an empty bucket is full, seconds.
    pub(super) window: u64,
    requests: AtomicU64,
}

impl Buckets {
    /// Creates the buckets. Returns `None` if a value is 0.
    pub(super) fn new(per_second: u32, burst: u32) -> Option<Self> {
        // Without a limit no clock is calibrated, which takes milliseconds.
        if per_second == 0 || burst == 0 {
            return None;
        }
        Self::with_clock(per_second, burst, MAX_KEYS, DefaultClock::default())
    }
}

impl<C: Clock> Buckets<C> {
    fn with_clock(per_second: u32, burst: u32, max_keys: usize, clock: C) -> Option<Self> {
        let (rate, size) = (NonZeroU32::new(per_second)?, NonZeroU32::new(burst)?);
        let quota = Quota::per_second(rate).allow_burst(size);
        Some(Self {
            limiter: RateLimiter::<_, _, C, NoOpMiddleware<C::Instant>>::new(quota, BoundedStore::new(max_keys), clock).with_middleware(),
            hash: RandomState::new(),
            burst,
            window: u64::from(burst.div_ceil(per_second)),
            requests: AtomicU64::new(0),
        })
    }

    /// Takes `cost` tokens of `key`, at most a full bucket. Returns the remaining tokens, or the
    /// time to wait.
    pub(super) fn take(&self, key: impl Hash, cost: u32) -> Result<u32, Duration> {
        if self.requests.fetch_add(1, Ordering::Relaxed) % CLEANUP_INTERVAL == CLEANUP_INTERVAL - 1 {
            self.limiter.retain_recent();
        }
        let key = self.hash.hash_one(key);
        let cost = NonZeroU32::new(cost.min(self.burst)).unwrap_or(NonZeroU32::MIN);
        match self.limiter.check_key_n(&key, cost) {
            Ok(Ok(state)) => Ok(state.remaining_burst_capacity()),
            Ok(Err(not_until)) => Err(not_until.wait_time_from(self.limiter.clock().now())),
            // The cost is at most the burst size.
            Err(_) => Ok(0),
        }
    }
}

impl<C: Clock> std::fmt::Debug for Buckets<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buckets").field("burst", &self.burst).field("window", &self.window).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn buckets(burst: u32, max_keys: usize) -> (Buckets<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Buckets::with_clock(1, burst, max_keys, clock.clone()).unwrap(), clock)
    }

    #[test]
    fn live_keys_keep_their_bucket_when_full() {
        const MAX: usize = 1_600;
        let (buckets, clock) = buckets(10, MAX);
        // More keys than fit, so that every part of the store is full.
        for key in 0..2 * MAX {
            let _ = buckets.take(key, 1);
        }
        assert!(buckets.limiter.len() <= MAX, "{}", buckets.limiter.len());
        let known: Vec<_> = (0..2 * MAX).filter(|key| buckets.take(*key, 1).is_ok_and(|left| left == 8)).collect();
        assert_eq!(known.len(), MAX, "each live key has a bucket of its own");
        // Newcomers share one bucket, which the crowd has emptied.
        assert!((3 * MAX..3 * MAX + 20).all(|key| buckets.take(key, 1).is_err()));
        assert!(known.iter().all(|key| buckets.take(*key, 1).is_ok()));
        // Idle keys make room.
        clock.advance(Duration::from_secs(20));
        for _ in 0..CLEANUP_INTERVAL {
            let _ = buckets.take(0, 1);
        }
        assert_eq!(buckets.take(3 * MAX, 1), Ok(9));
    }

    #[test]
    fn expensive_request_takes_several_tokens() {
        let (buckets, clock) = buckets(10, 100);
        assert_eq!((buckets.take("a", 4), buckets.take("a", 4)), (Ok(6), Ok(2)));
        assert_eq!(buckets.take("a", 4), Err(Duration::from_secs(2)));
        assert_eq!(buckets.take("a", 1), Ok(1));
        clock.advance(Duration::from_secs(20));
        // More than the burst size costs a full bucket.
        assert_eq!((buckets.take("a", 11), buckets.take("a", 1).is_err()), (Ok(0), true));
    }

    #[test]
    fn buckets_none_if_rate_or_burst_is_zero() {
        assert!(Buckets::new(0, 5).is_none());
        assert!(Buckets::new(5, 0).is_none());
    }
}
