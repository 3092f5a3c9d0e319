//! Injectable wall clock, so that time-dependent decisions can be tested.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use time::OffsetDateTime;

/// Wall clock. Monotonic durations come from [`tokio::time::Instant`] instead.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Returns the current time in UTC, truncated to milliseconds, which every store keeps without
    /// loss.
    fn now(&self) -> OffsetDateTime;
}

/// Returns `at` plus `by`, at most the last representable time. Stored and configured values are
/// added with it, because the operators of [`time`] panic on overflow.
pub fn after(at: OffsetDateTime, by: Duration) -> OffsetDateTime {
    at.saturating_add(time::Duration::try_from(by).unwrap_or(time::Duration::MAX))
}

/// Returns `at` minus `by`, at least the first representable time.
pub fn before(at: OffsetDateTime, by: Duration) -> OffsetDateTime {
    at.saturating_sub(time::Duration::try_from(by).unwrap_or(time::Duration::MAX))
}

/// Returns the time from `at` to `now`; zero if `at` is later.
pub fn age(at: OffsetDateTime, now: OffsetDateTime) -> Duration {
    (now - at).try_into().unwrap_or(Duration::ZERO)
}

/// System clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "only this module reads the system clock")]
    fn now(&self) -> OffsetDateTime {
        truncate(OffsetDateTime::now_utc())
    }
}

/// Manual clock for tests: moves only when advanced or set. Clones share the time.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Mutex<OffsetDateTime>>);

impl ManualClock {
    /// Creates a clock that shows `start`.
    pub fn new(start: OffsetDateTime) -> Self {
        Self(Arc::new(Mutex::new(truncate(start))))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        *self.0.lock() += by;
    }

    /// Sets the clock to `to`, which may be in the past.
    pub fn set(&self, to: OffsetDateTime) {
        *self.0.lock() = truncate(to);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> OffsetDateTime {
        *self.0.lock()
    }
}

/// Returns `at` without fractions of a millisecond.
pub fn truncate(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(u32::from(at.millisecond()) * 1_000_000).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let now = datetime!(2026-11-22 12:00 UTC);
        assert_eq!(after(now, Duration::from_hours(1)), datetime!(2026-11-22 13:00 UTC));
        assert_eq!(before(now, Duration::from_hours(1)), datetime!(2026-11-22 11:00 UTC));
        assert_eq!(age(now, after(now, Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(age(after(now, Duration::MAX), now), Duration::ZERO);
        for huge in [Duration::MAX, Duration::from_secs(1_000_000_000_000), Duration::from_secs(u64::MAX)] {
            assert_eq!(after(now, huge).year(), 9_999);
            assert_eq!(before(now, huge).year(), -9_999);
        }
    }
}
