use std::thread;

use parking_lot::Mutex;
use proptest::{collection::vec, prelude::*};

use super::*;

const fn counts(total: u32, failed: u32, slow: u32) -> Counts {
    Counts { total, failed, slow }
}

fn time_window(seconds: u64) -> (Window, Instant) {
    let now = Instant::now();
    (Window::Time(TimeWindow::new(Duration::from_secs(seconds), now)), now)
}

fn count_window(length: u32) -> (Window, Instant) {
    (Window::Count(CountWindow::new(length)), Instant::now())
}

#[test]
fn new_window_is_empty_without_rate() {
    for (window, now) in [time_window(10), count_window(10)] {
        assert_eq!(window.counts(now), counts(0, 0, 0));
        assert!(window.counts(now).rate(0).is_nan());
    }
}

#[test]
fn window_counts_failed_and_slow_separately() {
    for (mut window, now) in [time_window(10), count_window(10)] {
        window.record(false, true, now);
        assert_eq!(window.counts(now), counts(1, 0, 1));
        window.record(true, true, now);
        for _ in 0..3 {
            window.record(false, false, now);
        }
        assert_eq!(window.counts(now), counts(5, 1, 2));
        assert!((window.counts(now).rate(2) - 0.4).abs() < f64::EPSILON);
    }
}

#[test]
fn one_failed_call_is_rate_one() {
    for (mut window, now) in [time_window(10), count_window(10)] {
        window.record(true, false, now);
        assert_eq!(window.counts(now), counts(1, 1, 0));
        assert!((window.counts(now).rate(1) - 1.0).abs() < f64::EPSILON);
    }
}

#[test]
fn count_window_drops_its_oldest_call() {
    let (mut window, now) = count_window(4);
    window.record(true, false, now);
    for _ in 0..3 {
        window.record(false, false, now);
    }
    assert_eq!(window.counts(now), counts(4, 1, 0));
    window.record(false, false, now);
    assert_eq!(window.counts(now), counts(4, 0, 0));
}

#[test]
fn count_window_keeps_sliding() {
    let (mut window, now) = count_window(10);
    for call in 0..22 {
        window.record(call % 2 == 1, false, now);
    }
    assert_eq!(window.counts(now), counts(10, 5, 0));
    for _ in 0..8 {
        window.record(false, false, now);
    }
    assert_eq!(window.counts(now), counts(10, 1, 0));
}

#[test]
fn count_window_follows_its_calls() {
    let (mut window, now) = count_window(10);
    for (script, expected) in [("SSFF", (4, 2)), ("FFFFSSSS", (10, 6)), ("SSS", (10, 3))] {
        for letter in script.chars() {
            window.record(letter == 'F', false, now);
        }
        assert_eq!(window.counts(now), counts(expected.0, expected.1, 0), "{script}");
    }
}

#[test]
fn time_window_drops_whole_buckets() {
    let (mut window, start) = time_window(5);
    let at = |millis| start + Duration::from_millis(millis);
    window.record(true, false, at(0));
    window.record(false, false, at(100));
    window.record(true, true, at(800));
    assert_eq!(window.counts(at(800)), counts(3, 2, 1));
    assert_eq!(window.counts(at(4_800)), counts(3, 2, 1));
    // The first two calls share a bucket and leave together.
    assert_eq!(window.counts(at(5_000)), counts(1, 1, 1));
    assert_eq!(window.counts(at(5_800)), counts(0, 0, 0));
}

#[test]
fn gap_longer_than_window_clears_it() {
    let (mut window, start) = time_window(5);
    for second in 0..7 {
        window.record(false, false, start + Duration::from_secs(second));
    }
    assert_eq!(window.counts(start + Duration::from_secs(6)).total, 5);
    let later = start + Duration::from_hours(1);
    window.record(true, false, later);
    assert_eq!(window.counts(later), counts(1, 1, 0));
}

#[test]
fn buckets_do_not_drift_at_odd_call_times() {
    let (mut window, start) = time_window(10);
    // Each step is one and a half buckets; with drift the buckets would begin later and later.
    for step in 0..1_000 {
        window.record(false, false, start + Duration::from_millis(1_500) * step);
    }
    let Window::Time(window) = &window else { panic!("not a time window") };
    assert_eq!((window.head_began - start).as_millis() % 1_000, 0);
}

proptest! {
    /// Each call leaves with its bucket, exactly one window length after the bucket began, whenever
    /// calls arrive and however late.
    #[test]
    fn time_window_matches_reference_list(
        length_ms in 10..10_000_u64,
        calls in vec((0..3_000_u64, any::<bool>(), any::<bool>()), 1..200),
    ) {
        let start = Instant::now();
        let width = Duration::from_millis(length_ms) / 10;
        let mut window = TimeWindow::new(Duration::from_millis(length_ms), start);
        prop_assert_eq!(window.width * 10, Duration::from_millis(length_ms));
        let (mut all, mut elapsed) = (Vec::new(), Duration::ZERO);
        for (gap_ms, failed, slow) in calls {
            // Most gaps are short against the window, some are longer.
            elapsed += Duration::from_millis(gap_ms * length_ms / 10_000 * if gap_ms > 2_900 { 10 } else { 1 });
            window.record(Counts::single(failed, slow), start + elapsed);
            let bucket = elapsed.as_nanos() / width.as_nanos();
            all.push((bucket, Counts::single(failed, slow)));
            let mut expected = Counts::default();
            all.iter().filter(|(of, _)| of + 10 > bucket).for_each(|(_, call)| expected.add(*call));
            prop_assert_eq!(window.counts(start + elapsed), expected);
        }
    }
}

#[test]
fn time_window_has_minimum_bucket_width() {
    let (window, now) = (TimeWindow::new(Duration::from_nanos(7), Instant::now()), Instant::now());
    assert_eq!(window.width, Duration::from_millis(1));
    let mut window = Window::Time(window);
    window.record(true, false, now);
    assert_eq!(window.counts(now).total, 1);
}

#[test]
fn late_call_counts_in_newest_bucket() {
    let (mut window, start) = time_window(10);
    window.record(false, false, start + Duration::from_secs(5));
    window.record(true, false, start);
    assert_eq!(window.counts(start + Duration::from_secs(14)), counts(2, 1, 0));
}

#[test]
fn window_sum_matches_buckets_under_contention() {
    let (window, start) = (Mutex::new(TimeWindow::new(Duration::from_millis(100), Instant::now())), Instant::now());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for micros in 0..20_000 {
                    window.lock().record(Counts::single(micros % 3 == 0, micros % 5 == 0), start + Duration::from_micros(micros * 50));
                }
            });
        }
    });
    let window = window.into_inner();
    let mut live = Counts::default();
    window.buckets.iter().for_each(|bucket| live.add(*bucket));
    assert_eq!(window.sum, live);
    assert!(live.total > 0);
}
