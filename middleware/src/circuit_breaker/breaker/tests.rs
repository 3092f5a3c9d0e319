use std::panic::{AssertUnwindSafe, catch_unwind};

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
async fn a_permit_that_is_dropped_gives_its_slot_back_and_records_nothing() {
    let (breaker, probe) = half_open();
    drop(probe);
    assert!(breaker.acquire(Instant::now(), None).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_is_dropped_after_the_deadline_is_a_failure() {
    let breaker = breaker(&Config::default());
    let permit = breaker.acquire(Instant::now(), Some(Instant::now() + SECOND)).unwrap();
    tokio::time::advance(SECOND).await;
    drop(permit);
    assert_eq!(BreakerHandle(breaker).state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_is_dropped_when_it_was_slow_is_slow_but_no_failure() {
    let breaker = breaker(&Config { slow_call_ms: 100, min_calls: 1, slow_rate: 1.0, ..Config::default() });
    let permit = breaker.acquire(Instant::now(), None).unwrap();
    tokio::time::advance(SECOND).await;
    drop(permit);
    let handle = BreakerHandle(breaker);
    assert_eq!(handle.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_panic_below_is_a_failure() {
    let (breaker, probe) = half_open();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _probe = probe;
        panic!("a bug");
    }));
    assert!(panicked.is_err());
    assert_eq!(BreakerHandle(breaker).state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_counts_only_if_the_call_had_time_enough() {
    for (millis, state) in [(3, State::Closed), (2_000, State::Open)] {
        let breaker = breaker(&Config::default());
        let now = Instant::now();
        let permit = breaker.acquire(now, Some(now + Duration::from_millis(millis))).unwrap();
        permit.settle(Finding::TimedOut, None, now);
        assert_eq!(BreakerHandle(breaker).state(), state, "{millis} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_cannot_even_be_tried_has_failed() {
    let breaker = breaker(&Config::default());
    breaker.acquire(Instant::now(), None).unwrap().settle(Finding::NotTried, None, Instant::now());
    assert_eq!(breaker.handle().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn only_the_wait_for_the_head_is_slow() {
    let breaker = breaker(&Config { slow_call_ms: 100, ..Config::default() });
    let permit = breaker.acquire(Instant::now(), None).unwrap().begun(Instant::now());
    tokio::time::advance(SECOND).await;
    permit.settle(Verdict::Success.into(), None, Instant::now());
    let handle = BreakerHandle(breaker);
    assert_eq!((handle.counts().total, handle.counts().slow), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_result_of_an_earlier_epoch_is_ignored() {
    let breaker = breaker(&Config::default());
    let straggler = breaker.acquire(Instant::now(), None).unwrap();
    let handle = BreakerHandle(breaker.clone());
    handle.set_mode(Mode::Disabled);
    handle.set_mode(Mode::Active);
    straggler.settle(Verdict::Failure.into(), None, Instant::now());
    assert_eq!(handle.state(), State::Closed);
    assert_eq!(handle.counts().total, 0);
}

#[tokio::test(start_paused = true)]
async fn never_lets_more_probes_through_than_allowed_under_contention() {
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
        permit.settle(Verdict::Success.into(), None, now);
    }
    assert_eq!(BreakerHandle(breaker).state(), State::Closed);
}
