use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU32, Ordering},
};

use metrics_exporter_prometheus::PrometheusBuilder;
use parking_lot::Mutex;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn breaker(config: &Config) -> Arc<Breaker> {
    Breaker::new("products", &Config { min_calls: 1, probes: 1, ..config.clone() })
}

fn half_open() -> (Arc<Breaker>, Permit) {
    let breaker = breaker(&Config::default());
    BreakerHandle(breaker.clone()).open_for(Duration::ZERO);
    let probe = breaker.acquire(Instant::now(), None).unwrap();
    assert!(breaker.acquire(Instant::now(), None).is_err());
    (breaker, probe)
}

#[tokio::test(start_paused = true)]
async fn dropped_permit_returns_slot_and_records_nothing() {
    let (breaker, probe) = half_open();
    drop(probe);
    assert!(breaker.acquire(Instant::now(), None).is_ok());
}

#[tokio::test(start_paused = true)]
async fn permit_dropped_after_deadline_is_a_failure() {
    let breaker = breaker(&Config::default());
    let permit = breaker.acquire(Instant::now(), Some(TimeLimit::operator(Instant::now(), SECOND))).unwrap();
    tokio::time::advance(SECOND).await;
    drop(permit);
    assert_eq!(BreakerHandle(breaker).state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn permit_dropped_after_a_callers_time_is_neutral() {
    let breaker = breaker(&Config::default());
    let permit = breaker.acquire(Instant::now(), Some(TimeLimit::caller(Instant::now(), SECOND, 9 * SECOND))).unwrap();
    tokio::time::advance(SECOND).await;
    drop(permit);
    assert_eq!((breaker.handle().state(), breaker.handle().counts().total), (State::Closed, 0));
}

#[tokio::test(start_paused = true)]
async fn idle_breaker_becomes_half_open_by_time() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let breaker = metrics::with_local_recorder(&recorder, || breaker(&Config { open_ms: 1_000, ..Config::default() }));
    let gauge = || {
        crate::metrics::collect();
        let text = recorder.handle().render();
        text.lines().find(|line| line.starts_with("palisade_breaker_state")).and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
    };
    breaker.acquire(Instant::now(), None).unwrap().report(CallOutcome::Failure.into(), None, Instant::now());
    assert_eq!(gauge().as_deref(), Some("1"));
    // Without any call, the gauge follows.
    tokio::time::advance(2 * SECOND).await;
    assert_eq!(gauge().as_deref(), Some("2"));
    assert_eq!((breaker.handle().state(), breaker.handle().remaining()), (State::HalfOpen, None));
    tokio::time::advance(3_600 * SECOND).await;
    assert_eq!(gauge().as_deref(), Some("2"), "without a probe there is no further verdict");
    breaker.acquire(Instant::now(), None).unwrap().report(CallOutcome::Success.into(), None, Instant::now());
    assert_eq!(gauge().as_deref(), Some("0"));
}

#[tokio::test(start_paused = true)]
async fn lost_probes_time_out_without_a_call() {
    let breaker = breaker(&Config { open_ms: 1_000, half_open_timeout_ms: 1_000, ..Config::default() });
    BreakerHandle(breaker.clone()).open_for(Duration::ZERO);
    let probe = breaker.acquire(Instant::now(), None).unwrap();
    tokio::time::advance(SECOND).await;
    assert_eq!(breaker.handle().state(), State::Open);
    drop(probe);
}

#[tokio::test(start_paused = true)]
async fn slow_dropped_permit_is_slow_but_no_failure() {
    let breaker = breaker(&Config { slow_call_ms: 100, min_calls: 1, slow_rate: 1.0, ..Config::default() });
    let permit = breaker.acquire(Instant::now(), None).unwrap();
    tokio::time::advance(SECOND).await;
    drop(permit);
    let handle = BreakerHandle(breaker);
    assert_eq!(handle.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn panic_in_call_is_a_failure() {
    let (breaker, probe) = half_open();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _probe = probe;
        panic!("a bug");
    }));
    assert!(panicked.is_err());
    assert_eq!(BreakerHandle(breaker).state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn timeout_counts_only_with_enough_time() {
    for (millis, state) in [(3, State::Closed), (2_000, State::Open)] {
        let breaker = breaker(&Config::default());
        let now = Instant::now();
        let permit = breaker.acquire(now, Some(TimeLimit::operator(now, Duration::from_millis(millis)))).unwrap();
        permit.report(Classification::TimedOut, None, now);
        assert_eq!(BreakerHandle(breaker).state(), state, "{millis} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn connect_backoff_is_a_failure() {
    let breaker = breaker(&Config::default());
    breaker.acquire(Instant::now(), None).unwrap().report(Classification::ConnectBackoff, None, Instant::now());
    assert_eq!(breaker.handle().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn only_time_to_head_makes_a_call_slow() {
    let breaker = breaker(&Config { slow_call_ms: 100, ..Config::default() });
    let permit = breaker.acquire(Instant::now(), None).unwrap().headers_received(Instant::now());
    tokio::time::advance(SECOND).await;
    permit.report(CallOutcome::Success.into(), None, Instant::now());
    let handle = BreakerHandle(breaker);
    assert_eq!((handle.counts().total, handle.counts().slow), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn result_of_earlier_epoch_is_ignored() {
    let breaker = breaker(&Config::default());
    let straggler = breaker.acquire(Instant::now(), None).unwrap();
    let handle = BreakerHandle(breaker.clone());
    handle.set_mode(Mode::Disabled);
    handle.set_mode(Mode::Active);
    straggler.report(CallOutcome::Failure.into(), None, Instant::now());
    assert_eq!(handle.state(), State::Closed);
    assert_eq!(handle.counts().total, 0);
}

#[tokio::test(start_paused = true)]
async fn breaker_admits_no_excess_probes_under_contention() {
    let breaker = Breaker::new("products", &Config { probes: 5, ..Config::default() });
    BreakerHandle(breaker.clone()).open_for(Duration::ZERO);
    let now = Instant::now();
    let permits = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    permits.lock().extend(breaker.acquire(now, None).ok());
                }
            });
        }
    });
    let permits = permits.into_inner();
    assert_eq!(permits.len(), 5);
    for permit in permits {
        permit.report(CallOutcome::Success.into(), None, now);
    }
    assert_eq!(BreakerHandle(breaker).state(), State::Closed);
}

/// Permanently half-open: every admitted call is a probe, and none succeeds.
#[test]
fn probe_slots_are_conserved_across_rounds() {
    const PROBES: u32 = 3;
    const DAY_MS: u64 = 86_400_000;
    let config =
        Config { probes: PROBES, failure_rate: 1.0, open_ms: 1, max_open_ms: 1, half_open_timeout_ms: DAY_MS, ..Config::default() };
    let breaker = Breaker::new("products", &config);
    let (start, ticks) = (Instant::now(), AtomicU32::new(0));
    // Longer than the open time of the breaker.
    let now = || start + Duration::from_millis(2) * ticks.fetch_add(1, Ordering::Relaxed);
    let open = || breaker.with(|machine| machine.open_for(Duration::ZERO, now()));
    open();
    let taken: Mutex<HashMap<u64, u32>> = Mutex::default();
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (breaker, taken, now) = (&breaker, &taken, &now);
            scope.spawn(move || {
                let mut last = 0;
                for round in 0..3_000 {
                    let Ok(permit) = breaker.acquire(now(), None) else { continue };
                    assert!(permit.epoch >= last, "epoch decreased");
                    last = permit.epoch;
                    // Counted late and uncounted early, so that a race in this test cannot look
                    // like one in the breaker.
                    let mut slots = taken.lock();
                    let slots_taken = slots.entry(permit.epoch).or_default();
                    *slots_taken += 1;
                    assert!(*slots_taken <= PROBES);
                    if (round + thread) % 3 == 0 {
                        drop(slots);
                        permit.report(CallOutcome::Failure.into(), None, now());
                    } else {
                        *slots_taken -= 1;
                        drop(slots);
                        drop(permit);
                    }
                }
            });
        }
        scope.spawn(|| (0..500).for_each(|_| open()));
    });
    let probes: Vec<_> = std::iter::from_fn(|| breaker.acquire(now(), None).ok()).collect();
    let settled = taken.lock().get(&probes[0].epoch).copied().unwrap_or(0);
    assert_eq!(u32::try_from(probes.len()).unwrap() + settled, PROBES);
}

#[tokio::test(start_paused = true)]
async fn metrics_show_state_transitions_and_calls() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let breaker = metrics::with_local_recorder(&recorder, || breaker(&Config { open_ms: 1_000, ..Config::default() }));
    let handle = BreakerHandle(breaker.clone());
    // Metric name, label value and value. The label of a transition is its new state and cause.
    let assert_series = |expected: &[(&str, &str, u32)]| {
        crate::metrics::collect();
        let text = recorder.handle().render();
        for (name, label, value) in expected {
            let is_it = |line: &str| line.starts_with(&format!("palisade_breaker_{name}{{")) && line.contains(&format!("\"{label}\""));
            let line = text.lines().find(|line| is_it(line)).unwrap_or_else(|| panic!("no {name} {label} in\n{text}"));
            assert!(line.ends_with(&format!(" {value}")), "{line}");
        }
    };
    assert_series(&[("state", "products", 0), ("rejected", "products", 0)]);
    let (opened, probing, proved) = ("open\",reason=\"failure_rate", "half_open\",reason=\"wait_over", "closed\",reason=\"probe_succeeded");
    let (forced, only_watched, would_open) =
        ("forced_open\",reason=\"manual", "metrics_only\",reason=\"manual", "would_open\",reason=\"failure_rate");
    for transition in [opened, probing, proved, forced, only_watched, would_open, "disabled\",reason=\"manual"] {
        assert_series(&[("transitions", transition, 0)]);
    }
    for outcome in ["success", "slow_success", "failure", "slow_failure", "neutral", "cancelled", "stale"] {
        assert_series(&[("calls", outcome, 0)]);
    }

    let call = |finding: Classification| breaker.acquire(Instant::now(), None).unwrap().report(finding, None, Instant::now());
    let straggler = breaker.acquire(Instant::now(), None).unwrap();
    call(CallOutcome::Neutral.into());
    call(CallOutcome::Failure.into());
    assert_series(&[("state", "products", 1), ("transitions", opened, 1), ("calls", "neutral", 1), ("calls", "failure", 1)]);
    for _ in 0..2 {
        assert!(breaker.acquire(Instant::now(), None).is_err());
    }
    straggler.report(CallOutcome::Success.into(), None, Instant::now());
    assert_series(&[("rejected", "products", 2), ("calls", "stale", 1), ("calls", "success", 0)]);

    tokio::time::advance(2 * SECOND).await;
    let probe = breaker.acquire(Instant::now(), None).unwrap();
    assert_series(&[("state", "products", 2), ("transitions", probing, 1)]);
    drop(probe);
    call(CallOutcome::Success.into());
    assert_series(&[("state", "products", 0), ("transitions", proved, 1), ("calls", "cancelled", 1), ("calls", "success", 1)]);
    call(CallOutcome::Success.into());
    assert_series(&[("window_calls", "products", 1), ("failure_ratio", "products", 0)]);
    tokio::time::advance(11 * SECOND).await;
    assert_eq!(handle.counts().total, 0);

    handle.set_mode(Mode::ForcedOpen);
    assert_series(&[("state", "products", 1), ("transitions", forced, 1)]);
    handle.set_mode(Mode::MetricsOnly);
    call(CallOutcome::Failure.into());
    assert_series(&[("state", "products", 0), ("transitions", only_watched, 1), ("transitions", would_open, 1)]);
}
