//! Probe rounds.

use super::*;

/// A breaker that opened at the first failure, with `probes` probes per round.
fn half_open(probes: u32, config: &Config) -> Bench {
    let mut bench = Bench::new(Config { probes, open_ms: 5_000, consecutive_failures: 1, ..config.clone() });
    assert_eq!(bench.play("F"), State::Open);
    bench.machine.take_transition();
    bench.advance(5_000);
    bench
}

/// Disables the rule of consecutive failures, so that only the rates decide.
fn rates_only(probes: u32) -> Bench {
    let mut bench = half_open(probes, &Config { slow_call_ms: 100, slow_rate: 0.75, ..count(10, 1) });
    bench.machine.config.consecutive_failures = 0;
    bench
}

#[test]
fn probe_round_ends_once_outcome_is_certain() {
    use State::{Closed, HalfOpen, Open};
    let cases = [
        (4, "FF", Open, "half of four failed"),
        (4, "FSSS", Closed, "a quarter failed"),
        (4, "SSS", Closed, "the fourth cannot change it"),
        (4, "SSIS", Closed, "a neutral probe is repeated"),
        (4, "SF", HalfOpen, "outcome still open"),
        (4, "sss", Open, "three of four were slow"),
        (4, "ssSS", Closed, "two of four were slow"),
        (1, "S", Closed, "one of one"),
        (1, "F", Open, "one of one"),
        (3, "FSF", Open, "two of three"),
        (3, "FSS", Closed, "one of three"),
        (1, "T", Open, "a throttled probe counts as failed"),
        (1, "CIS", Closed, "slots are returned"),
    ];
    for (probes, script, state, name) in cases {
        assert_eq!(rates_only(probes).play(script), state, "{name}: {script}");
    }
}

#[test]
fn low_failure_rate_requires_all_probes_to_succeed() {
    let mut bench = half_open(3, &Config { failure_rate: 0.01, ..time(10, 1) });
    assert_eq!(bench.play("SS"), State::HalfOpen);
    assert_eq!(bench.play("F"), State::Open);
    assert_eq!(bench.advance(10_000).play("SSS"), State::Closed);
}

#[test]
fn throttled_probe_doubles_open_time() {
    let mut bench = half_open(1, &time(10, 1));
    assert_eq!(bench.play("T"), State::Open);
    assert_eq!(bench.machine.remaining(bench.now), Some(Duration::from_secs(10)));
}

#[test]
fn every_round_admits_the_configured_probes() {
    let mut bench = half_open(4, &time(10, 1));
    for wait_ms in [10_000, 0] {
        let probes: Vec<u64> = (0..4).map(|_| bench.admit()).collect();
        bench.play("xx");
        probes.iter().take(2).for_each(|epoch| assert!(bench.settle(*epoch, 'F')));
        assert_eq!(bench.machine.state(), State::Open);
        bench.advance(wait_ms);
    }
}

#[test]
fn call_during_probing_gets_retry_after() {
    let mut bench = half_open(1, &time(10, 1));
    bench.admit();
    assert_eq!(bench.machine.acquire(bench.now), Err(CallNotPermitted { retry_after: Some(PROBING_RETRY_AFTER) }));
}

#[test]
fn breaker_closes_with_empty_window() {
    let mut bench = half_open(4, &count(10, 1));
    bench.play("SSS");
    assert_eq!(bench.machine.counts(bench.now), Counts::default());
    bench.play("S");
    assert_eq!(bench.machine.counts(bench.now).total, 1);
}

#[test]
fn result_from_before_opening_is_ignored() {
    let mut bench = Bench::new(Config { open_ms: 5_000, probes: 1, ..time(10, 1) });
    let straggler = bench.admit();
    bench.play("F");
    bench.advance(5_000);
    let probe = bench.admit();
    assert!(!bench.settle(straggler, 'S'));
    assert_eq!(bench.machine.state(), State::HalfOpen);
    bench.play("x");
    assert!(bench.settle(probe, 'S'));
    assert_eq!(bench.machine.state(), State::Closed);
}

#[test]
fn probes_without_response_fail() {
    let mut bench = half_open(3, &Config { half_open_timeout_ms: 10_000, ..time(10, 1) });
    let lost: Vec<u64> = (0..3).map(|_| bench.admit()).collect();
    bench.play("xxxxx");
    bench.advance(10_000).play("x");
    assert_eq!(bench.machine.state(), State::Open);
    assert_eq!(bench.cause(), Some(Cause::HalfOpenTimeout));
    assert!(!bench.settle(lost[0], 'S'));
    bench.advance(10_000).admit();
    assert_eq!(bench.machine.state(), State::HalfOpen);
}

#[test]
fn open_time_begins_when_probes_time_out() {
    let mut bench = half_open(1, &Config { half_open_timeout_ms: 1_000, ..time(10, 1) });
    let lost = bench.admit();
    // No call for longer than the timeout of the probe and the next open time together.
    bench.advance(3_600_000);
    bench.machine.advance(bench.now);
    assert_eq!([bench.cause(), bench.cause(), bench.cause()], [Some(Cause::HalfOpenTimeout), Some(Cause::OpenTimeout), None]);
    assert_eq!(bench.play("S"), State::Closed);
    assert!(!bench.settle(lost, 'F'));
}

#[test]
fn timed_out_probe_does_not_end_the_round() {
    let mut bench = half_open(5, &Config { half_open_timeout_ms: 10_000, ..time(10, 1) });
    let lost = bench.admit();
    bench.play("SS");
    assert_eq!(bench.advance(10_000).play("S"), State::Closed);
    assert!(!bench.settle(lost, 'F'));
}
