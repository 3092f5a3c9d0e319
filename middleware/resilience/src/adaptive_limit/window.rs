//! Latency window: reduces the latencies of many requests to their 90th percentile, because a
//! single one says nothing.

use std::time::Duration;

use tokio::time::Instant;

/// Maximum number of samples per window; the latest are kept.
const MAX_SAMPLES: usize = 128;
/// Minimum number of requests per window; fewer are not representative.
const MIN_SAMPLES: usize = 20;
/// Maximum length of a window, however slow requests are.
const MAX_LENGTH: Duration = Duration::from_secs(5);
/// Latency of a timed-out request: greater than any other.
const TIMED_OUT: u64 = u64::MAX;

/// Requests that ended in the current window.
#[derive(Debug)]
pub(super) struct Window {
    nanos: [u64; MAX_SAMPLES],
    calls: usize,
    started_at: Instant,
    length: Duration,
    min_length: Duration,
    peak: usize,
}

/// Statistics of a finished window.
#[derive(Debug, PartialEq)]
pub(super) struct WindowSample {
    /// 90th percentile of latency; `None` if more than one of ten requests timed out.
    pub(super) latency: Option<Duration>,
    /// Maximum concurrency.
    pub(super) peak: usize,
    /// Duration as a multiple of the shortest window, at least 1.
    pub(super) windows: f64,
}

impl Window {
    /// Creates a window that lasts at least `shortest`.
    pub(super) fn new(shortest: Duration, now: Instant) -> Self {
        Self { nanos: [0; MAX_SAMPLES], calls: 0, started_at: now, length: shortest, min_length: shortest, peak: 0 }
    }

    /// Records the present concurrency.
    pub(super) fn record_in_flight(&mut self, in_use: usize) {
        self.peak = self.peak.max(in_use);
    }

    /// Returns the number of requests that ended in this window.
    pub(super) fn calls(&self) -> usize {
        self.calls
    }

    /// Records a request that ended after `latency`, or timed out (`None`), with `in_use` still
    /// running. Returns the statistics if that completes the window.
    pub(super) fn record(&mut self, latency: Option<Duration>, in_use: usize, now: Instant) -> Option<WindowSample> {
        self.nanos[self.calls % MAX_SAMPLES] = latency.map_or(TIMED_OUT, |latency| u64::try_from(latency.as_nanos()).unwrap_or(TIMED_OUT));
        self.calls += 1;
        let elapsed = now.saturating_duration_since(self.started_at);
        if self.calls < MIN_SAMPLES || elapsed < self.length {
            return None;
        }
        let kept = self.calls.min(MAX_SAMPLES);
        let (_, &mut nanos, _) = self.nanos[..kept].select_nth_unstable(kept * 9 / 10);
        let latency = (nanos != TIMED_OUT).then(|| Duration::from_nanos(nanos));
        // A pause without requests is no reason for a larger step, slow requests are one.
        let slow = latency.map_or(MAX_LENGTH, |latency| latency * 2).max(self.length);
        let windows = elapsed.min(slow).div_duration_f64(self.min_length).max(1.0);
        let seen = WindowSample { latency, peak: self.peak, windows };
        if let Some(latency) = seen.latency {
            // The effect of a limit change shows only in requests that began after it.
            self.length = (latency * 2).min(MAX_LENGTH).max(self.min_length);
        }
        (self.calls, self.started_at, self.peak) = (0, now, in_use);
        Some(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Records a call every millisecond from `from` on; returns the statistics of the first
    /// finished window and its time.
    fn first_window(window: &mut Window, from: Instant, latency: impl Fn(u32) -> Option<Duration>) -> (WindowSample, Duration) {
        let seen = |call| window.record(latency(call), 1, from + MS * call).map(|seen| (seen, MS * call));
        (0..10_000).find_map(seen).unwrap()
    }

    #[test]
    fn window_reports_p90_and_peak() {
        let now = Instant::now();
        let mut window = Window::new(MS * 99, now);
        window.record_in_flight(7);
        window.record_in_flight(3);
        let (seen, at) = first_window(&mut window, now, |call| Some(MS * (call + 1)));
        assert_eq!(at, MS * 99);
        assert_eq!(seen, WindowSample { latency: Some(MS * 91), peak: 7, windows: 1.0 });
        assert_eq!(first_window(&mut window, now, |_| Some(MS)).0.peak, 1);
    }

    #[test]
    fn window_waits_for_enough_and_slow_calls() {
        let now = Instant::now();
        let mut window = Window::new(MS * 5, now);
        assert_eq!(first_window(&mut window, now, |_| Some(MS * 40)).1, MS * 19);
        let next = now + MS * 19;
        let (seen, at) = first_window(&mut window, next, |_| Some(MS * 40));
        assert_eq!((at, seen.windows), (MS * 80, 16.0));
        let morning = next + MS * 80 + Duration::from_hours(8);
        let seen = first_window(&mut window, morning, |_| Some(MS * 10)).0;
        assert_eq!(seen, WindowSample { latency: Some(MS * 10), peak: 1, windows: 16.0 });
    }

    #[test]
    fn window_ignores_few_timeouts_but_not_many() {
        let now = Instant::now();
        let out_of_time = |every: u32| move |call: u32| (!call.is_multiple_of(every)).then_some(MS);
        assert_eq!(first_window(&mut Window::new(MS * 99, now), now, out_of_time(20)).0.latency, Some(MS));
        assert_eq!(first_window(&mut Window::new(MS * 99, now), now, out_of_time(5)).0.latency, None);
    }
}
