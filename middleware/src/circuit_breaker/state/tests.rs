use super::*;
use crate::circuit_breaker::config::WindowKind;

/// A machine, a clock that stands still, and scripts: one letter per call.
struct Bench {
    machine: Machine,
    now: Instant,
}

/// No spread: every wait is exact.
const EVEN: Draw = || 0.5;

impl Bench {
    fn new(config: Config) -> Self {
        assert_eq!(config.validate(), Ok(()));
        let now = Instant::now();
        Self { machine: Machine::new(config, EVEN, now), now }
    }

    fn pass(&mut self, millis: u64) -> &mut Self {
        self.now += Duration::from_millis(millis);
        self
    }

    /// `S` success, `F` failure, `s` slow success, `f` slow failure, `T` throttled, `I` neutral, `C` cancelled; `x` is refused.
    fn play(&mut self, script: &str) -> State {
        for letter in script.chars() {
            let admitted = self.machine.acquire(self.now);
            if letter == 'x' {
                assert!(admitted.is_err(), "a call of {script:?} was let through");
            } else {
                let epoch = admitted.unwrap_or_else(|_| panic!("call {letter} of {script:?} was refused"));
                assert!(self.settle(epoch, letter));
            }
        }
        self.machine.state()
    }

    fn settle(&mut self, epoch: u64, letter: char) -> bool {
        let verdict = match letter.to_ascii_uppercase() {
            'S' => Verdict::Success,
            'F' => Verdict::Failure,
            'T' => Verdict::Throttled,
            'I' => Verdict::Neutral,
            'C' => Verdict::Cancelled,
            other => panic!("no such call: {other}"),
        };
        let observation = Observation { verdict, slow: letter.is_ascii_lowercase(), hint: None };
        self.machine.record(epoch, observation, self.now)
    }

    fn admit(&mut self) -> u64 {
        self.machine.acquire(self.now).expect("a free slot")
    }

    fn cause(&mut self) -> Option<Cause> {
        self.machine.take_transition().map(|transition| transition.cause)
    }
}

fn count(calls: u32, min_calls: u32) -> Config {
    Config { window: WindowKind::Count, window_calls: calls, min_calls, ..Config::default() }
}

fn time(seconds: u64, min_calls: u32) -> Config {
    Config { window_ms: seconds * 1_000, min_calls, ..Config::default() }
}

/// Opens at the first failure and probes with `probes` calls.
fn half_open(probes: u32, config: &Config) -> Bench {
    let mut bench = Bench::new(Config { probes, open_ms: 5_000, consecutive_failures: 1, ..config.clone() });
    assert_eq!(bench.play("F"), State::Open);
    bench.machine.take_transition();
    bench.pass(5_000);
    bench
}

/// Failures one after the other do not count, so that the rate alone decides.
fn rates_only(probes: u32) -> Bench {
    let mut bench = half_open(probes, &Config { slow_call_ms: 100, slow_rate: 0.75, ..count(10, 1) });
    bench.machine.config.consecutive_failures = 0;
    bench
}

#[test]
fn opens_when_a_limit_is_reached_and_not_before() {
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
        ("three in a row", consecutive(3), "FSFFF", Open, Some(Cause::Consecutive)),
        ("never two in a row", consecutive(2), "SFSFSFSFSFSFSFSFSFSF", Closed, None),
        ("a quota is no failure", consecutive(2), "FTTT", Closed, None),
        ("a quota breaks no row either", consecutive(2), "FTF", Open, Some(Cause::Consecutive)),
        ("what says nothing is not counted", count(2, 2), "FICITI", Closed, None),
    ];
    for (name, config, script, state, cause) in cases {
        let mut bench = Bench::new(config);
        assert_eq!(bench.play(script), state, "{name}: {script}");
        assert_eq!(bench.cause(), cause, "{name}: {script}");
    }
}

#[test]
fn what_says_nothing_is_in_no_count() {
    let mut bench = Bench::new(count(10, 10));
    bench.play("FICTS");
    assert_eq!(bench.machine.counts(bench.now), Counts { total: 2, failed: 1, slow: 0 });
}

#[test]
fn a_long_time_of_health_does_not_delay_the_opening() {
    let mut bench = Bench::new(count(10, 10));
    bench.play(&"S".repeat(1_000));
    assert_eq!(bench.play("FFFF"), State::Closed);
    assert_eq!(bench.play("F"), State::Open);
}

#[test]
fn the_pace_of_failures_does_not_matter_within_the_window() {
    for gap_ms in [0, 1_000] {
        let mut bench = Bench::new(time(10, 5));
        for _ in 0..4 {
            assert_eq!(bench.pass(gap_ms).play("F"), State::Closed);
        }
        assert_eq!(bench.pass(gap_ms).play("F"), State::Open);
    }
}

#[test]
fn the_minimum_must_be_met_again_after_an_idle_time() {
    let mut bench = Bench::new(time(10, 5));
    bench.play("FFFF");
    assert_eq!(bench.pass(11_000).play("FFFF"), State::Closed);
    assert_eq!(bench.play("F"), State::Open);
}

#[test]
fn refuses_at_once_until_its_wait_is_over() {
    let mut bench = Bench::new(Config { open_ms: 5_000, ..time(10, 1) });
    assert_eq!(bench.play("F"), State::Open);
    let refusal = |bench: &mut Bench| bench.machine.acquire(bench.now).unwrap_err().retry_after;
    assert_eq!(refusal(&mut bench), Some(Duration::from_secs(5)));
    bench.pass(3_000);
    assert_eq!(refusal(&mut bench), Some(Duration::from_secs(2)));
    assert_eq!(bench.machine.state(), State::Open);
    bench.pass(2_000);
    assert_eq!(bench.machine.remaining(bench.now), Some(Duration::ZERO));
    bench.admit();
    assert_eq!(bench.machine.state(), State::HalfOpen);
    assert_eq!(bench.machine.remaining(bench.now), None);
    assert_eq!(bench.machine.counts(bench.now), Counts::default());
}

#[test]
fn waits_longer_after_each_failed_round_up_to_the_maximum() {
    let mut bench = Bench::new(Config { open_ms: 5_000, max_open_ms: 30_000, probes: 1, ..time(10, 1) });
    bench.play("F");
    for wait_ms in [5_000, 10_000, 20_000, 30_000, 30_000] {
        bench.pass(wait_ms - 1).play("x");
        assert_eq!(bench.pass(1).play("F"), State::Open);
    }
}

#[test]
fn forgives_one_failed_round_for_each_healthy_window() {
    let mut bench = Bench::new(Config { open_ms: 5_000, max_open_ms: 60_000, probes: 1, ..time(10, 1) });
    bench.play("F");
    bench.pass(5_000).play("F");
    bench.pass(10_000).play("F");
    assert_eq!(bench.pass(20_000).play("S"), State::Closed);
    // Two rounds failed, one window was healthy: one doubling is left.
    bench.pass(10_000).play("S");
    assert_eq!(bench.pass(9_999).play("F"), State::Open);
    assert_eq!(bench.machine.remaining(bench.now), Some(Duration::from_secs(10)));
}

#[test]
fn spreads_its_wait() {
    for (draw, wait_ms) in [((|| 0.0) as Draw, 4_000), (|| 0.25, 4_500), (|| 0.75, 5_500)] {
        let now = Instant::now();
        let mut machine = Machine::new(Config { open_ms: 5_000, ..time(10, 1) }, draw, now);
        let epoch = machine.acquire(now).unwrap();
        machine.record(epoch, Observation { verdict: Verdict::Failure, slow: false, hint: None }, now);
        assert_eq!(machine.remaining(now), Some(Duration::from_millis(wait_ms)));
    }
}

#[test]
fn stays_away_as_long_as_the_server_asks_within_reason() {
    for (hint_secs, wait_secs) in [(1, 5), (20, 20), (3_600, 60)] {
        let mut bench = Bench::new(Config { open_ms: 5_000, ..time(10, 1) });
        let epoch = bench.admit();
        let hint = Some(Duration::from_secs(hint_secs));
        bench.machine.record(epoch, Observation { verdict: Verdict::Failure, slow: false, hint }, bench.now);
        assert_eq!(bench.machine.remaining(bench.now), Some(Duration::from_secs(wait_secs)));
    }
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
}

#[test]
fn lets_as_many_probes_through_as_allowed_in_every_round() {
    let mut bench = half_open(4, &time(10, 1));
    for wait_ms in [10_000, 0] {
        let probes: Vec<u64> = (0..4).map(|_| bench.admit()).collect();
        bench.play("xx");
        probes.iter().take(2).for_each(|epoch| assert!(bench.settle(*epoch, 'F')));
        assert_eq!(bench.machine.state(), State::Open);
        bench.pass(wait_ms);
    }
}

#[test]
fn a_call_that_comes_while_others_probe_is_told_to_come_again() {
    let mut bench = half_open(1, &time(10, 1));
    bench.admit();
    assert_eq!(bench.machine.acquire(bench.now), Err(Refused { retry_after: Some(WHILE_PROBING) }));
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
    bench.pass(5_000);
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
    bench.pass(10_000).play("x");
    assert_eq!(bench.machine.state(), State::Open);
    assert_eq!(bench.cause(), Some(Cause::HalfOpenTimeout));
    assert!(!bench.settle(lost[0], 'S'));
    bench.pass(10_000).admit();
    assert_eq!(bench.machine.state(), State::HalfOpen);
}

#[test]
fn a_round_that_lost_a_probe_goes_on_without_it() {
    let mut bench = half_open(5, &Config { half_open_timeout_ms: 10_000, ..time(10, 1) });
    let lost = bench.admit();
    bench.play("SS");
    assert_eq!(bench.pass(10_000).play("S"), State::Closed);
    assert!(!bench.settle(lost, 'F'));
}

#[test]
fn an_operator_decides_over_it() {
    let mut bench = Bench::new(time(10, 1));
    bench.machine.set_mode(Mode::ForcedOpen, bench.now);
    bench.pass(3_600_000);
    assert_eq!(bench.machine.acquire(bench.now), Err(Refused { retry_after: None }));

    bench.machine.set_mode(Mode::Disabled, bench.now);
    assert_eq!(bench.play("FFFF"), State::Disabled);
    assert_eq!(bench.machine.counts(bench.now), Counts::default());

    bench.machine.open_for(Duration::from_hours(2), bench.now);
    bench.pass(3_600_000).play("x");
    bench.pass(3_600_000).admit();
    assert_eq!(bench.machine.state(), State::HalfOpen);

    bench.machine.set_mode(Mode::Active, bench.now);
    assert_eq!(bench.machine.state(), State::Closed);
    bench.machine.set_mode(Mode::Active, bench.now);
    assert_eq!(bench.cause(), None, "what changes nothing is no transition");
}

#[test]
fn closing_by_hand_forgets_the_failed_rounds() {
    let mut bench = Bench::new(Config { open_ms: 5_000, probes: 1, ..time(10, 1) });
    bench.play("F");
    bench.pass(5_000).play("F");
    bench.machine.set_mode(Mode::Active, bench.now);
    bench.play("F");
    assert_eq!(bench.machine.remaining(bench.now), Some(Duration::from_secs(5)));
}

#[test]
fn metrics_only_lets_all_through_and_reports_once() {
    let mut bench = Bench::new(Config { mode: Mode::MetricsOnly, ..time(10, 1) });
    assert_eq!(bench.play("FFFF"), State::MetricsOnly);
    assert_eq!(bench.machine.counts(bench.now).failed, 4);
    let would_open = Transition { from: State::MetricsOnly, to: State::MetricsOnly, cause: Cause::FailureRate };
    assert_eq!(bench.machine.take_transition(), Some(would_open));
    bench.play("F");
    assert_eq!(bench.machine.take_transition(), None);
}

#[test]
fn begins_in_the_configured_mode() {
    for (mode, state) in [
        (Mode::Active, State::Closed),
        (Mode::MetricsOnly, State::MetricsOnly),
        (Mode::Disabled, State::Disabled),
        (Mode::ForcedOpen, State::ForcedOpen),
    ] {
        assert_eq!(Bench::new(Config { mode, ..Config::default() }).machine.state(), state);
    }
}
