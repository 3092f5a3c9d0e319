//! Open time and backoff.

use super::*;

#[test]
fn open_breaker_rejects_until_open_time_is_over() {
    let mut bench = Bench::new(Config { open_ms: 5_000, ..time(10, 1) });
    assert_eq!(bench.play("F"), State::Open);
    let refusal = |bench: &mut Bench| bench.machine.acquire(bench.now).unwrap_err().retry_after;
    assert_eq!(refusal(&mut bench), Some(Duration::from_secs(5)));
    bench.advance(3_000);
    assert_eq!(refusal(&mut bench), Some(Duration::from_secs(2)));
    assert_eq!(bench.machine.state(), State::Open);
    bench.advance(2_000);
    assert_eq!(bench.machine.remaining(bench.now), Some(Duration::ZERO));
    bench.admit();
    assert_eq!(bench.machine.state(), State::HalfOpen);
    assert_eq!(bench.machine.remaining(bench.now), None);
    assert_eq!(bench.machine.counts(bench.now), Counts::default());
}

#[test]
fn ended_open_time_lets_probes_decide() {
    let mut bench = Bench::new(Config { open_ms: 5_000, probes: 1, ..time(10, 1) });
    assert_eq!(bench.play("F"), State::Open);
    bench.advance(1_000);
    bench.machine.end_open_time(bench.now);
    assert_eq!(bench.machine.state(), State::HalfOpen);
    assert_eq!(bench.play("F"), State::Open);
    assert_eq!(bench.machine.remaining(bench.now), Some(Duration::from_secs(10)), "a failed probe doubles the open time");
    bench.machine.end_open_time(bench.now);
    assert_eq!(bench.play("S"), State::Closed);
    bench.machine.end_open_time(bench.now);
    assert_eq!(bench.machine.state(), State::Closed, "only an open breaker has an open time");
}

#[test]
fn open_time_doubles_up_to_the_maximum() {
    let mut bench = Bench::new(Config { open_ms: 5_000, max_open_ms: 30_000, probes: 1, ..time(10, 1) });
    bench.play("F");
    for wait_ms in [5_000, 10_000, 20_000, 30_000, 30_000] {
        bench.advance(wait_ms - 1).play("x");
        assert_eq!(bench.advance(1).play("F"), State::Open);
    }
}

#[test]
fn backoff_decays_one_level_per_healthy_window() {
    let mut bench = Bench::new(Config { open_ms: 5_000, max_open_ms: 60_000, probes: 1, ..time(10, 1) });
    bench.play("F");
    bench.advance(5_000).play("F");
    bench.advance(10_000).play("F");
    assert_eq!(bench.advance(20_000).play("S"), State::Closed);
    // Two rounds failed and one window was healthy: one doubling is left.
    bench.advance(10_000).play("S");
    assert_eq!(bench.advance(9_999).play("F"), State::Open);
    assert_eq!(bench.machine.remaining(bench.now), Some(Duration::from_secs(10)));
}

#[test]
fn backoff_level_is_capped_at_max_open_time() {
    let mut bench = Bench::new(Config { open_ms: 5_000, max_open_ms: 20_000, probes: 1, ..time(10, 1) });
    bench.play("F");
    for _ in 0..100 {
        bench.advance(20_000).play("F");
    }
    assert_eq!(bench.advance(20_000).play("S"), State::Closed);
    // 5 s, 10 s, 20 s: two healthy windows reset the backoff.
    assert_eq!(bench.advance(20_000).play("F"), State::Open);
    assert_eq!(bench.machine.remaining(bench.now), Some(Duration::from_secs(5)));
}

#[test]
fn open_time_is_jittered() {
    for (draw, wait_ms) in [((|| 0.0) as RandomFn, 4_000), (|| 0.25, 4_500), (|| 0.75, 5_500)] {
        let now = Instant::now();
        let mut machine = StateMachine::new(Config { open_ms: 5_000, ..time(10, 1) }, draw, now);
        let epoch = machine.acquire(now).unwrap();
        machine.record(epoch, Observation { outcome: CallOutcome::Failure, slow: false, retry_after: None }, now);
        assert_eq!(machine.remaining(now), Some(Duration::from_millis(wait_ms)));
    }
}

#[test]
fn open_time_follows_server_hint_up_to_maximum() {
    for (max_retry_after_ms, hint_secs, wait_secs) in [(60_000, 1, 5), (60_000, 20, 20), (60_000, 3_600, 60), (10_000, 20, 10), (0, 20, 5)]
    {
        let mut bench = Bench::new(Config { open_ms: 5_000, max_retry_after_ms, ..time(10, 1) });
        let epoch = bench.admit();
        let hint = Some(Duration::from_secs(hint_secs));
        bench.machine.record(epoch, Observation { outcome: CallOutcome::Failure, slow: false, retry_after: hint }, bench.now);
        assert_eq!(bench.machine.remaining(bench.now), Some(Duration::from_secs(wait_secs)));
    }
}
