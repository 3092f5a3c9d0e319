//! Operator actions.

use super::*;

#[test]
fn operator_mode_overrides_state() {
    let mut bench = Bench::new(time(10, 1));
    bench.machine.set_mode(Mode::ForcedOpen, bench.now);
    bench.advance(3_600_000);
    assert_eq!(bench.machine.acquire(bench.now), Err(CallNotPermitted { retry_after: None }));

    bench.machine.set_mode(Mode::Disabled, bench.now);
    assert_eq!(bench.play("FFFF"), State::Disabled);
    assert_eq!(bench.machine.counts(bench.now), Counts::default());

    bench.machine.open_for(Duration::from_hours(2), bench.now);
    bench.advance(3_600_000).play("x");
    bench.advance(3_600_000).admit();
    assert_eq!(bench.machine.state(), State::HalfOpen);

    bench.machine.set_mode(Mode::Active, bench.now);
    assert_eq!(bench.machine.state(), State::Closed);
    bench.machine.set_mode(Mode::Active, bench.now);
    assert_eq!(bench.cause(), None, "no change, no transition");
}

type Prepare = fn(&mut Bench);

#[test]
fn set_mode_works_in_any_state_and_clears_counts() {
    use State::{Closed, Disabled, ForcedOpen, HalfOpen, MetricsOnly, Open};
    let to: [(State, Prepare); 6] = [
        (Closed, |bench| bench.machine.set_mode(Mode::Active, bench.now)),
        (Open, |bench| bench.machine.open_for(Duration::from_secs(1), bench.now)),
        (HalfOpen, |bench| {
            bench.machine.open_for(Duration::ZERO, bench.now);
            bench.admit();
        }),
        (ForcedOpen, |bench| bench.machine.set_mode(Mode::ForcedOpen, bench.now)),
        (Disabled, |bench| bench.machine.set_mode(Mode::Disabled, bench.now)),
        (MetricsOnly, |bench| bench.machine.set_mode(Mode::MetricsOnly, bench.now)),
    ];
    for (from, prepare) in to {
        for (mode, state) in
            [(Mode::Active, Closed), (Mode::MetricsOnly, MetricsOnly), (Mode::Disabled, Disabled), (Mode::ForcedOpen, ForcedOpen)]
        {
            let mut bench = Bench::new(time(10, 5));
            bench.play("FFF");
            prepare(&mut bench);
            bench.machine.take_transition();
            let epoch = bench.machine.epoch();
            bench.machine.set_mode(mode, bench.now);
            let expected = (from != state).then_some(Transition { from, to: state, cause: Cause::Manual });
            assert_eq!(bench.machine.take_transition(), expected, "{from:?} to {mode:?}");
            assert_eq!(bench.machine.counts(bench.now), Counts::default(), "{from:?} to {mode:?}");
            assert!(!bench.settle(epoch, 'F'), "a call of an earlier epoch must not count");
        }
    }
}

#[test]
fn manual_close_resets_backoff() {
    let mut bench = Bench::new(Config { open_ms: 5_000, probes: 1, ..time(10, 1) });
    bench.play("F");
    bench.advance(5_000).play("F");
    bench.machine.set_mode(Mode::Active, bench.now);
    bench.play("F");
    assert_eq!(bench.machine.remaining(bench.now), Some(Duration::from_secs(5)));
}

#[test]
fn metrics_only_admits_all_and_reports_once() {
    let mut bench = Bench::new(Config { mode: Mode::MetricsOnly, ..time(10, 1) });
    assert_eq!(bench.play("FFFF"), State::MetricsOnly);
    assert_eq!(bench.machine.counts(bench.now).failed, 4);
    let would_open = Transition { from: State::MetricsOnly, to: State::MetricsOnly, cause: Cause::FailureRate };
    assert_eq!(bench.machine.take_transition(), Some(would_open));
    bench.play("F");
    assert_eq!(bench.machine.take_transition(), None);
}

#[test]
fn machine_starts_in_configured_mode() {
    for (mode, state) in [
        (Mode::Active, State::Closed),
        (Mode::MetricsOnly, State::MetricsOnly),
        (Mode::Disabled, State::Disabled),
        (Mode::ForcedOpen, State::ForcedOpen),
    ] {
        assert_eq!(Bench::new(Config { mode, ..Config::default() }).machine.state(), state);
    }
}
