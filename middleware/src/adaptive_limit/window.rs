//! The latency of many requests as one number: a single one says nothing.

use std::time::Duration;

use tokio::time::Instant;

/// The latest requests of a window that are looked at.
const MAX_SAMPLES: usize = 128;
/// Fewer requests than this say nothing either.
const MIN_SAMPLES: usize = 20;
/// However slow requests are, a window is not longer.
const MAX_LENGTH: Duration = Duration::from_secs(5);
/// Stands for a request that ran out of time: slower than all that did not.
const TIMED_OUT: u64 = u64::MAX;

/// The requests that ended since the last look.
#[derive(Debug)]
pub(super) struct Window {
    nanos: [u64; MAX_SAMPLES],
    calls: usize,
    started_at: Instant,
    length: Duration,
    min_length: Duration,
    peak: usize,
}

/// What a window of requests has shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WindowSample {
    /// Nine of ten were not slower; `None` if more than one of ten ran out of time.
    pub(super) latency: Option<Duration>,
    /// The most that ran at once.
    pub(super) peak: usize,
}

impl Window {
    /// Windows that last at least `shortest`.
    pub(super) fn new(shortest: Duration, now: Instant) -> Self {
        Self { nanos: [0; MAX_SAMPLES], calls: 0, started_at: now, length: shortest, min_length: shortest, peak: 0 }
    }

    /// So many run now.
    pub(super) fn record_in_flight(&mut self, in_use: usize) {
        self.peak = self.peak.max(in_use);
    }

    /// Requests that have ended in this window.
    pub(super) fn calls(&self) -> usize {
        self.calls
    }

    /// A request has ended after `latency`, or run out of time; `in_use` still run. Now and then that completes a window.
    pub(super) fn record(&mut self, latency: Option<Duration>, in_use: usize, now: Instant) -> Option<WindowSample> {
        self.nanos[self.calls % MAX_SAMPLES] = latency.map_or(TIMED_OUT, |latency| u64::try_from(latency.as_nanos()).unwrap_or(TIMED_OUT));
        self.calls += 1;
        if self.calls < MIN_SAMPLES || now.saturating_duration_since(self.started_at) < self.length {
            return None;
        }
        let kept = self.calls.min(MAX_SAMPLES);
        let (_, &mut nanos, _) = self.nanos[..kept].select_nth_unstable(kept * 9 / 10);
        let seen = WindowSample { latency: (nanos != TIMED_OUT).then(|| Duration::from_nanos(nanos)), peak: self.peak };
        if let Some(latency) = seen.latency {
            // What a change of the limit does shows only in requests that began after it.
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

    /// A call every millisecond from `from` on; what the first complete window has shown, and when.
    fn first_window(window: &mut Window, from: Instant, latency: impl Fn(u32) -> Option<Duration>) -> (WindowSample, Duration) {
        let seen = |call| window.record(latency(call), 1, from + MS * call).map(|seen| (seen, MS * call));
        (0..10_000).find_map(seen).unwrap()
    }

    #[test]
    fn is_the_ninetieth_percentile_with_the_most_at_once() {
        let now = Instant::now();
        let mut window = Window::new(MS * 99, now);
        window.record_in_flight(7);
        window.record_in_flight(3);
        let (seen, at) = first_window(&mut window, now, |call| Some(MS * (call + 1)));
        assert_eq!(at, MS * 99);
        assert_eq!(seen, WindowSample { latency: Some(MS * 91), peak: 7 });
        assert_eq!(first_window(&mut window, now, |_| Some(MS)).0.peak, 1);
    }

    #[test]
    fn waits_for_enough_calls_and_for_calls_that_take_long() {
        let now = Instant::now();
        let mut window = Window::new(MS * 5, now);
        assert_eq!(first_window(&mut window, now, |_| Some(MS * 40)).1, MS * 19);
        let next = now + MS * 19;
        assert_eq!(first_window(&mut window, next, |_| Some(MS * 40)).1, MS * 80);
    }

    #[test]
    fn a_few_that_run_out_of_time_do_not_count_and_many_do() {
        let now = Instant::now();
        let out_of_time = |every: u32| move |call: u32| (!call.is_multiple_of(every)).then_some(MS);
        assert_eq!(first_window(&mut Window::new(MS * 99, now), now, out_of_time(20)).0.latency, Some(MS));
        assert_eq!(first_window(&mut Window::new(MS * 99, now), now, out_of_time(5)).0.latency, None);
    }
}
