//! How probes decide.

use super::*;

/// Opens at the first failure and probes with `probes` calls.
fn half_open(probes: u32, config: &Config) -> Bench {
    let mut bench = Bench::new(Config { probes, open_ms: 5_000, consecutive_failures: 1, ..config.clone() });
    assert_eq!(bench.play("F"), State::Open);
    bench.machine.take_transition();
    bench.advance(5_000);
    bench
}

/// Failures one after the other do not count, so that the rate alone decides.
fn rates_only(probes: u32) -> Bench {
    let mut bench = half_open(probes, &Config { slow_call_ms: 100, slow_rate: 0.75, ..count(10, 1) });
    bench.machine.config.consecutive_failures = 0;
    bench
}

#[test]
fn a_round_ends_as_soon_as_its_outcome_is_certain() {
    use State::{Closed, HalfOpen, Open};
    let cases = [
        (4, "FF", Open, "half of four failed"),
        (4, "FSSS", Closed, "a quarter failed"),
        (4, "SSS", Closed, "the fourth cannot change it"),
        (4, "SSIS", Closed, "what says nothing is tried again"),
        (4, "SF", HalfOpen, "not certain yet"),
        (4, "sss", Open, "three of four were slow"),
        (4, "ssSS", Closed, "two of four were slow"),
        (1, "S", Closed, "one of one"),
        (1, "F", Open, "one of one"),
        (3, "FSF", Open, "two of three"),
        (3, "FSS", Closed, "one of three"),
        (1, "T", Open, "a throttled probe proves no health"),
        (1, "CIS", Closed, "slots are given back"),
    ];
    for (probes, script, state, name) in cases {
        assert_eq!(rates_only(probes).play(script), state, "{name}: {script}");
    }
}

#[test]
fn all_probes_must_succeed_if_any_failure_is_too_many() {
    let mut bench = half_open(3, &Config { failure_rate: 0.01, ..time(10, 1) });
    assert_eq!(bench.play("SS"), State::HalfOpen);
    assert_eq!(bench.play("F"), State::Open);
    assert_eq!(bench.advance(10_000).play("SSS"), State::Closed);
}

#[test]
fn a_throttled_probe_makes_the_next_wait_longer() {
    let mut bench = half_open(1, &time(10, 1));
    assert_eq!(bench.play("T"), State::Open);
    assert_eq!(bench.machine.remaining(bench.now), Some(Duration::from_secs(10)));
}

#[test]
fn lets_as_many_probes_through_as_allowed_in_every_round() {
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
fn a_call_that_comes_while_others_probe_is_told_to_come_again() {
    let mut bench = half_open(1, &time(10, 1));
    bench.admit();
    assert_eq!(bench.machine.acquire(bench.now), Err(CallNotPermitted { retry_after: Some(PROBING_RETRY_AFTER) }));
}

#[test]
fn closes_with_an_empty_window() {
    let mut bench = half_open(4, &count(10, 1));
    bench.play("SSS");
    assert_eq!(bench.machine.counts(bench.now), Counts::default());
    bench.play("S");
    assert_eq!(bench.machine.counts(bench.now).total, 1);
}

#[test]
fn a_straggler_from_before_it_opened_decides_nothing() {
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
fn probes_without_an_answer_have_failed() {
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
fn a_round_that_lost_a_probe_goes_on_without_it() {
    let mut bench = half_open(5, &Config { half_open_timeout_ms: 10_000, ..time(10, 1) });
    let lost = bench.admit();
    bench.play("SS");
    assert_eq!(bench.advance(10_000).play("S"), State::Closed);
    assert!(!bench.settle(lost, 'F'));
}
