use super::*;
use crate::client::{
    address::Address,
    balance::{outlier_ejection::EjectionLimit, peak_ewma::PeakEwma},
    connector::ConnectParams,
};
use palisade_resilience::circuit_breaker::{self, BreakerHandle, Config, State};

const SECOND: Duration = Duration::from_secs(1);

fn node() -> (Arc<BalancedEndpoint>, BreakerHandle) {
    let address = Address::parse("http://127.0.0.1:1").unwrap();
    let node = BalancedEndpoint::new(address, ConnectParams::plain(SECOND), PeakEwma::new(SECOND * 10, SECOND * 5, Instant::now()));
    let config = Config { consecutive_failures: 2, ..circuit_breaker::Config::default() };
    let node = Arc::new(node.with_breaker("products", None, &config, EjectionLimit::new("products")));
    let breaker = node.breaker().unwrap();
    (node, breaker)
}

fn call(node: &Arc<BalancedEndpoint>) -> Call {
    call_within(node, TimeLimit::operator(Instant::now(), SECOND))
}

fn call_within(node: &Arc<BalancedEndpoint>, limit: TimeLimit) -> Call {
    let now = Instant::now();
    Call::start("products", node.clone(), node.acquire(now, Some(limit)), now, Some(limit))
}

fn millis(node: &BalancedEndpoint) -> f64 {
    (node.cost(Instant::now()) * 1_000.0).round()
}

#[tokio::test(start_paused = true)]
async fn call_is_in_flight_until_dropped() {
    let (node, breaker) = node();
    let started = call(&node).headers_received(Instant::now());
    let dropped = call(&node);
    assert_eq!(node.load().in_flight(), 2);
    drop(dropped);
    started.report(CallOutcome::Success.into(), None, Instant::now());
    assert_eq!((node.load().in_flight(), breaker.counts().total), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn latency_ends_at_response_headers() {
    let (node, _) = node();
    tokio::time::advance(SECOND * 100).await;
    let stream = call(&node);
    tokio::time::advance(SECOND / 10).await;
    let streaming = stream.headers_received(Instant::now());
    streaming.report(CallOutcome::Success.into(), None, Instant::now() + SECOND * 3_600);
    assert!((millis(&node) - 100.0).abs() < 1.0, "{}", millis(&node));
}

#[tokio::test(start_paused = true)]
async fn connect_backoff_is_not_another_failure() {
    let (node, breaker) = node();
    for _ in 0..10 {
        call(&node).report(Classification::ConnectBackoff, None, Instant::now());
    }
    assert_eq!((breaker.state(), breaker.counts().total), (State::Closed, 0));
    assert!((millis(&node) - 30.0).abs() < 1.0);
    call(&node).report(CallOutcome::Failure.into(), None, Instant::now());
    call(&node).report(Classification::ConnectBackoff, None, Instant::now());
    assert_eq!(breaker.state(), State::Closed);
    call(&node).report(CallOutcome::Failure.into(), None, Instant::now());
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn call_dropped_at_deadline_is_slow_and_failed() {
    let (node, breaker) = node();
    let hung_calls = [call(&node), call(&node).headers_received(Instant::now())];
    tokio::time::advance(SECOND).await;
    drop(hung_calls);
    assert_eq!(breaker.state(), State::Open);
    assert!((millis(&node) - 1_000.0).abs() < 1.0, "{}", millis(&node));
}

#[tokio::test(start_paused = true)]
async fn expiry_of_a_callers_time_leaves_load_and_breaker() {
    let (node, breaker) = node();
    let limit = || TimeLimit::caller(Instant::now(), SECOND / 2, 9 * SECOND);
    let before = millis(&node);
    let calls = [call_within(&node, limit()), call_within(&node, limit()).headers_received(Instant::now())];
    let reported = call_within(&node, limit());
    tokio::time::advance(SECOND / 2).await;
    drop(calls);
    reported.report(Classification::TimedOut, None, Instant::now());
    assert_eq!((breaker.state(), breaker.counts().total), (State::Closed, 0));
    assert!(millis(&node) <= before, "{}", millis(&node));
}

#[tokio::test(start_paused = true)]
async fn neutral_outcome_raises_load_not_failures() {
    let (node, breaker) = node();
    call(&node).report(CallOutcome::Neutral.into(), None, Instant::now());
    assert_eq!(breaker.counts().total, 0);
    assert!((millis(&node) - 5_000.0).abs() < 1.0);
}
