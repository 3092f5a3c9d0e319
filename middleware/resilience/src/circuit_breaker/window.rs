//! Sliding window of call outcomes: exact counts over the last seconds, or over the last calls.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::config::{Config, WindowKind};

/// Call counts of a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All calls.
    pub total: u32,
    /// Failed calls, slow or not.
    pub failed: u32,
    /// Slow calls, failed or not.
    pub slow: u32,
}

impl Counts {
    fn single(failed: bool, slow: bool) -> Self {
        Self { total: 1, failed: failed.into(), slow: slow.into() }
    }

    fn add(&mut self, other: Self) {
        self.total += other.total;
        self.failed += other.failed;
        self.slow += other.slow;
    }

    fn subtract(&mut self, other: Self) {
        self.total -= other.total;
        self.failed -= other.failed;
        self.slow -= other.slow;
    }

    /// Returns `part / total`; NaN without calls.
    pub(super) fn rate(&self, part: u32) -> f64 {
        f64::from(part) / f64::from(self.total)
    }

    /// Returns whether `part` of the calls reaches `rate`, which must be above 0.
    pub(super) fn reaches(&self, part: u32, rate: f64) -> bool {
        part > 0 && self.rate(part) >= rate
    }
}

/// A window of either kind.
#[derive(Debug)]
pub(super) enum Window {
    Time(TimeWindow),
    Count(CountWindow),
}

impl Window {
    pub(super) fn new(config: &Config, now: Instant) -> Self {
        match config.window {
            WindowKind::Time => Self::Time(TimeWindow::new(Duration::from_millis(config.window_ms), now)),
            WindowKind::Count => Self::Count(CountWindow::new(config.window_calls)),
        }
    }

    /// Records one call and returns the resulting counts.
    pub(super) fn record(&mut self, failed: bool, slow: bool, now: Instant) -> Counts {
        match self {
            Self::Time(window) => window.record(Counts::single(failed, slow), now),
            Self::Count(window) => window.record(Counts::single(failed, slow)),
        }
    }

    /// Returns the counts. A time window is copied for it, because reading must not advance it.
    pub(super) fn counts(&self, now: Instant) -> Counts {
        match self {
            Self::Time(window) => window.clone().counts(now),
            Self::Count(window) => window.sum,
        }
    }
}

const BUCKETS: usize = 10;

/// Time window of ten consecutive buckets. Each bucket begins where the previous one ends, whenever
/// calls arrive, so that they do not drift.
#[derive(Debug, Clone)]
pub(super) struct TimeWindow {
    width: Duration,
    buckets: [Counts; BUCKETS],
    /// Index of the newest bucket.
    head: usize,
    head_began: Instant,
    sum: Counts,
}

impl TimeWindow {
    fn new(length: Duration, now: Instant) -> Self {
        let width = (length / 10).max(Duration::from_millis(1));
        Self { width, buckets: [Counts::default(); BUCKETS], head: 0, head_began: now, sum: Counts::default() }
    }

    fn record(&mut self, counts: Counts, now: Instant) -> Counts {
        self.advance(now);
        self.buckets[self.head].add(counts);
        self.sum.add(counts);
        self.sum
    }

    fn counts(&mut self, now: Instant) -> Counts {
        self.advance(now);
        self.sum
    }

    /// Drops the buckets older than the window. A `now` before the newest bucket, from a late
    /// thread, counts in the newest bucket.
    fn advance(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.head_began);
        if elapsed < self.width {
            return;
        }
        let steps = elapsed.as_nanos() / self.width.as_nanos();
        let stale = usize::try_from(steps).map_or(BUCKETS, |steps| steps.min(BUCKETS));
        for _ in 0..stale {
            self.head = (self.head + 1) % BUCKETS;
            self.sum.subtract(std::mem::take(&mut self.buckets[self.head]));
        }
        let into_head = elapsed.as_nanos() % self.width.as_nanos();
        self.head_began = now - Duration::from_nanos(u64::try_from(into_head).unwrap_or(0));
    }
}

/// The last calls, one by one.
#[derive(Debug)]
pub(super) struct CountWindow {
    calls: VecDeque<Counts>,
    length: usize,
    sum: Counts,
}

impl CountWindow {
    fn new(length: u32) -> Self {
        let length = length.max(1) as usize;
        Self { calls: VecDeque::with_capacity(length), length, sum: Counts::default() }
    }

    fn record(&mut self, call: Counts) -> Counts {
        if self.calls.len() == self.length
            && let Some(oldest) = self.calls.pop_front()
        {
            self.sum.subtract(oldest);
        }
        self.calls.push_back(call);
        self.sum.add(call);
        self.sum
    }
}

#[cfg(test)]
mod tests;
