//! Conditions that open a breaker.

use super::*;

#[test]
fn breaker_opens_exactly_at_its_limits() {
    use State::{Closed, Open};
    let slow = Config { slow_call_ms: 100, ..count(10, 4) };
    let consecutive = |k| Config { consecutive_failures: k, ..count(100, 100) };
    let cases = [
        ("a success completes the minimum", time(20, 5), "FFFS", Closed, None),
        ("a success completes the minimum", time(20, 5), "FFFSS", Open, Some(Cause::FailureRate)),
        ("40 per cent are below half", time(20, 5), "SSSFF", Closed, None),
        ("exactly half is enough", time(20, 5), "SSSFFF", Open, Some(Cause::FailureRate)),
        ("all failed, but too few", time(20, 20), "FFFFFFFFFFFFFFFFFFF", Closed, None),
        ("two of three", Config { failure_rate: 0.6, ..count(3, 3) }, "FSF", Open, Some(Cause::FailureRate)),
        ("one of three", Config { failure_rate: 0.6, ..count(3, 3) }, "FSS", Closed, None),
        ("three of the last ten", count(10, 10), "SSFFFFFFSS", Open, Some(Cause::FailureRate)),
        ("half a per cent", Config { failure_rate: 0.005, ..count(200, 1) }, "SF", Open, Some(Cause::FailureRate)),
        ("slow successes", slow.clone(), "sssS", Closed, None),
        ("slow successes and failures", slow, "ssfs", Open, Some(Cause::SlowRate)),
        ("three in a row", consecutive(3), "FSFF", Closed, None),
        ("three in a row", consecutive(3), "FSFFF", Open, Some(Cause::ConsecutiveFailures)),
        ("never two in a row", consecutive(2), "SFSFSFSFSFSFSFSFSFSFSFSFSFSFSFSFSFSFSFSF", Closed, None),
        ("never three of four", Config { failure_rate: 0.75, ..count(4, 4) }, "SFSFSFSFSFSFSFSFSFSFSFSFSFSFSFSFSFSFSFSF", Closed, None),
        ("any failure at all", Config { failure_rate: f64::MIN_POSITIVE, ..count(4, 2) }, "F", Closed, None),
        ("any failure at all", Config { failure_rate: f64::MIN_POSITIVE, ..count(4, 2) }, "FS", Open, Some(Cause::FailureRate)),
        ("minimum never reached", time(20, u32::MAX), "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFF", Closed, None),
        ("the first call", count(10, 1), "F", Open, Some(Cause::FailureRate)),
        ("throttling is no failure", consecutive(2), "FTTT", Closed, None),
        ("throttling does not end a run of failures", consecutive(2), "FTF", Open, Some(Cause::ConsecutiveFailures)),
        ("neutral calls are not counted", count(2, 2), "FICITI", Closed, None),
    ];
    for (name, config, script, state, cause) in cases {
        let mut bench = Bench::new(config);
        assert_eq!(bench.play(script), state, "{name}: {script}");
        assert_eq!(bench.cause(), cause, "{name}: {script}");
    }
}

#[test]
fn neutral_calls_are_not_counted() {
    let mut bench = Bench::new(count(10, 10));
    bench.play("FICTS");
    assert_eq!(bench.machine.counts(bench.now), Counts { total: 2, failed: 1, slow: 0 });
}

#[test]
fn long_health_does_not_delay_opening() {
    let mut bench = Bench::new(count(10, 10));
    bench.play(&"S".repeat(1_000));
    assert_eq!(bench.play("FFFF"), State::Closed);
    assert_eq!(bench.play("F"), State::Open);
}

#[test]
fn failure_pace_within_window_does_not_matter() {
    for gap_ms in [0, 1_000] {
        let mut bench = Bench::new(time(10, 5));
        for _ in 0..4 {
            assert_eq!(bench.advance(gap_ms).play("F"), State::Closed);
        }
        assert_eq!(bench.advance(gap_ms).play("F"), State::Open);
    }
}

#[test]
fn min_calls_applies_again_after_idle_time() {
    let mut bench = Bench::new(time(10, 5));
    bench.play("FFFF");
    assert_eq!(bench.advance(11_000).play("FFFF"), State::Closed);
    assert_eq!(bench.play("F"), State::Open);
}
