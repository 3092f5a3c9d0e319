//! Load balancing, outlier ejection and discovery of the client stack, against real servers on
//! loopback ports.
#![expect(clippy::unwrap_used, reason = "an unwrap in a test is an assertion")]

#[path = "support/health_server.rs"]
mod health_server;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::join_all;
use health_server::{CHECK, Seen, check, dead_port, hanging, serve, server, serving, unavailable};
use palisade_middleware::{
    circuit_breaker::{self, Mode, State},
    client::{self, Client, Config, balance::EndpointStatus},
    retry::{self, MethodContracts},
    task,
};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckResponse;
use tower::layer::util::Identity;

/// Test timeout, long enough for a busy machine.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Short decay, so that a failed endpoint is picked again soon, and long open times, so that its
/// breaker stays open.
fn config(addresses: &[SocketAddr]) -> Config {
    let urls: Vec<_> = addresses.iter().map(|address| format!("http://{address}")).collect();
    let mut config = Config::at(urls.join(","));
    config.attempt_timeout_ms = 30_000;
    config.call_timeout_ms = 30_000;
    config.balance.decay_ms = 10;
    config.outlier_detection.open_ms = 60_000;
    config.outlier_detection.max_open_ms = 60_000;
    // Isolates the endpoint breakers from the target's breaker.
    config.circuit_breaker.mode = Mode::Disabled;
    config
}

/// Shortens the open times, so that breakers probe soon.
fn with_short_open_times(mut config: Config) -> Config {
    config.outlier_detection.open_ms = 50;
    config.outlier_detection.max_open_ms = 100;
    config
}

fn connect(config: &Config) -> Client {
    client::connect("health", config, [CHECK].into_iter().collect(), Identity::new()).unwrap()
}

/// Client without idempotent methods.
fn connect_for_writes(config: &Config) -> Client {
    client::connect("health", config, MethodContracts::default(), Identity::new()).unwrap()
}

fn endpoints(client: &Client) -> Vec<EndpointStatus> {
    client.endpoints().unwrap().status()
}

fn state(client: &Client, index: usize) -> State {
    endpoints(client)[index].breaker.unwrap()
}

/// Calls until `done`; every call must succeed.
async fn call_until(client: &Client, done: impl Fn() -> bool) {
    let calls = async {
        while !done() {
            check(client).await.unwrap();
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, calls).await.expect("condition met in time");
}

async fn until(done: impl Fn() -> bool) {
    let polling = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, polling).await.expect("condition met in time");
}

fn start(client: &Client) -> JoinHandle<Result<HealthCheckResponse, Status>> {
    let client = client.clone();
    task::spawn(async move { check(&client).await })
}

fn count(seen: &Seen) -> usize {
    seen.lock().len()
}

#[tokio::test]
async fn p2c_spreads_calls_and_dropped_calls_free_load() {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(server(std::future::pending).await);
    }
    let addresses: Vec<_> = servers.iter().map(|(address, _)| *address).collect();
    let mut config = config(&addresses);
    config.balance.decay_ms = 10_000;
    let client = connect(&config);
    let calls: Vec<_> = (0..60).map(|_| start(&client)).collect();
    until(|| servers.iter().map(|(_, seen)| count(seen)).sum::<usize>() == 60).await;
    for (address, seen) in &servers {
        assert!((16..=24).contains(&count(seen)), "{} of 20 at {address}", count(seen));
    }
    assert_eq!(endpoints(&client).iter().map(|endpoint| endpoint.in_flight).sum::<u32>(), 60);
    for call in calls {
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
    }
    assert!(endpoints(&client).iter().all(|endpoint| endpoint.in_flight == 0 && endpoint.breaker == Some(State::Closed)));
}

#[tokio::test]
async fn slow_endpoint_gets_few_calls() {
    let (slow, slow_seen) = server(async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        serving().await
    })
    .await;
    let (fast, _) = server(serving).await;
    let mut config = config(&[slow, fast]);
    config.balance.decay_ms = 10_000;
    let client = connect(&config);
    for _ in 0..100 {
        check(&client).await.unwrap();
    }
    assert!(count(&slow_seen) <= 2, "{} of 100", count(&slow_seen));
}

#[tokio::test]
async fn failing_endpoint_is_ejected_without_call_errors() {
    let (failing, bad_seen) = server(unavailable).await;
    let (healthy, _) = server(serving).await;
    let client = connect(&config(&[failing, healthy]));
    call_until(&client, || state(&client, 0) == State::Open).await;
    assert_eq!(count(&bad_seen), 5);
    for _ in 0..100 {
        check(&client).await.unwrap();
    }
    assert_eq!(count(&bad_seen), 5);
}

#[tokio::test]
async fn retry_uses_untried_endpoint() {
    let (bad, bad_seen) = server(unavailable).await;
    let (good, _) = server(serving).await;
    let mut config = config(&[bad, good]);
    config.outlier_detection.mode = Mode::Disabled;
    config.balance.decay_ms = 1;
    config.retry.max_attempts = 2;
    let client = connect(&config);
    call_until(&client, || count(&bad_seen) >= 20).await;
}

#[tokio::test]
async fn hanging_endpoint_is_ejected_without_call_errors() {
    let (bad, bad_seen) = server(hanging).await;
    let (good, _) = server(serving).await;
    let mut config = config(&[bad, good]);
    config.attempt_timeout_ms = 250;
    let client = connect(&config);
    call_until(&client, || state(&client, 0) == State::Open).await;
    assert_eq!(count(&bad_seen), 5);
}

#[tokio::test]
async fn non_idempotent_calls_survive_dead_endpoint() {
    let (good, seen) = server(serving).await;
    let client = connect_for_writes(&config(&[dead_port(), good]));
    call_until(&client, || state(&client, 0) == State::Open).await;
    let calls = count(&seen);
    for _ in 0..50 {
        check(&client).await.unwrap();
    }
    assert_eq!(count(&seen), calls + 50);
}

#[tokio::test]
async fn recovered_endpoint_is_readmitted() {
    let (dead, (healthy, _)) = (dead_port(), server(serving).await);
    let client = connect(&with_short_open_times(config(&[dead, healthy])));
    call_until(&client, || state(&client, 0) == State::Open).await;
    let seen = serve(TcpListener::bind(dead).await.unwrap(), serving);
    call_until(&client, || state(&client, 0) == State::Closed).await;
    let probes = count(&seen);
    call_until(&client, || count(&seen) > probes + 20).await;
}

#[tokio::test]
async fn ejection_is_limited_to_half() {
    let mut servers = Vec::new();
    for _ in 0..4 {
        servers.push(server(unavailable).await);
    }
    let addresses: Vec<_> = servers.iter().map(|(address, _)| *address).collect();
    let retry = retry::Config { enabled: false, ..retry::Config::default() };
    let client = connect(&Config { retry, ..config(&addresses) });
    let all_open = || (0..4).all(|index| state(&client, index) == State::Open);
    let calls = async {
        while !all_open() {
            assert_eq!(check(&client).await.unwrap_err().message(), "not now");
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, calls).await.expect("all breakers open in time");
    assert_eq!(endpoints(&client).iter().filter(|endpoint| endpoint.ejected).count(), 2);
    let before: Vec<_> = servers.iter().map(|(_, seen)| count(seen)).collect();
    for _ in 0..50 {
        assert_eq!(check(&client).await.unwrap_err().message(), "not now");
    }
    for ((endpoint, (_, seen)), before) in endpoints(&client).iter().zip(&servers).zip(before) {
        assert_eq!(endpoint.ejected, count(seen) == before, "{}", endpoint.address);
    }
}

#[tokio::test]
async fn all_dead_endpoints_fail_fast_then_recover() {
    let dead = [dead_port(), dead_port()];
    let mut config = with_short_open_times(config(&dead));
    config.circuit_breaker = circuit_breaker::Config { open_ms: 100, max_open_ms: 100, ..circuit_breaker::Config::default() };
    let client = connect(&config);
    let refusals = async {
        while client.breaker().state() != State::Open {
            assert_eq!(check(&client).await.unwrap_err().code(), Code::Unavailable);
        }
        assert_eq!(check(&client).await.unwrap_err().message(), "circuit open: health");
    };
    tokio::time::timeout(TEST_TIMEOUT, refusals).await.expect("calls fail fast");
    let mut seen = Vec::new();
    for address in dead {
        seen.push(serve(TcpListener::bind(address).await.unwrap(), serving));
    }
    let all_closed = || client.breaker().state() == State::Closed && (0..2).all(|index| state(&client, index) == State::Closed);
    let recovery = async {
        while !all_closed() {
            let _ = check(&client).await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, recovery).await.expect("all breakers close in time");
    call_until(&client, || seen.iter().all(|seen| count(seen) > 5)).await;
}

#[tokio::test]
async fn removed_endpoint_finishes_its_calls() {
    let permits = Arc::new(Semaphore::new(0));
    let handler = {
        let gate = permits.clone();
        move || {
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                serving().await
            }
        }
    };
    let ((first, first_seen), (second, second_seen)) = (server(handler.clone()).await, server(handler).await);
    let client = connect_for_writes(&config(&[first, second]));
    let calls = [start(&client), start(&client)];
    until(|| (count(&first_seen), count(&second_seen)) == (1, 1)).await;
    client.endpoints().unwrap().set([format!("http://{second}").as_str()]).unwrap();
    permits.add_permits(12);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    for _ in 0..10 {
        check(&client).await.unwrap();
    }
    assert_eq!((count(&first_seen), count(&second_seen)), (1, 11));
}

#[tokio::test]
async fn added_endpoint_receives_calls() {
    let ((first, _), (second, seen)) = (server(serving).await, server(serving).await);
    let client = connect(&config(&[first]));
    check(&client).await.unwrap();
    client.endpoints().unwrap().set([format!("http://{first}").as_str(), format!("http://{second}").as_str()]).unwrap();
    call_until(&client, || count(&seen) > 5).await;
}

#[tokio::test]
async fn unresolved_target_rejects_calls_without_attempts() {
    // Nothing listens there, so that only the test sets addresses.
    let client = connect(&Config { circuit_breaker: circuit_breaker::Config::default(), ..Config::at("etcd://127.0.0.1:1/health") });
    for refusal in join_all((0..100).map(|_| check(&client))).await {
        let refusal = refusal.unwrap_err();
        assert_eq!((refusal.code(), refusal.message()), (Code::Unavailable, "no endpoint of an upstream service is known yet"));
    }
    assert_eq!(client.breaker().state(), State::Closed);
    let (address, seen) = server(serving).await;
    client.endpoints().unwrap().set([format!("http://{address}").as_str()]).unwrap();
    check(&client).await.unwrap();
    assert_eq!(count(&seen), 1);
}

#[tokio::test]
async fn call_waits_for_the_first_endpoint() {
    let client = connect_for_writes(&Config { call_timeout_ms: 60_000, ..Config::at("etcd://127.0.0.1:1/health") });
    let (address, _) = server(serving).await;
    let mut waiting = tokio_test::task::spawn(check(&client));
    assert!(waiting.poll().is_pending());
    client.endpoints().unwrap().set([format!("http://{address}").as_str()]).unwrap();
    tokio::time::timeout(TEST_TIMEOUT, waiting).await.unwrap().unwrap();
}

#[tokio::test]
async fn call_waits_while_all_endpoints_are_in_connect_backoff() {
    let addresses = [dead_port(), dead_port()];
    let mut config = config(&addresses);
    config.connection.connect_backoff_ms = 500;
    config.connection.max_connect_backoff_ms = 500;
    let client = connect_for_writes(&config);
    for _ in 0..2 {
        assert_eq!(check(&client).await.unwrap_err().code(), Code::Unavailable);
    }
    let listener = TcpListener::bind(addresses[0]).await.unwrap();
    serve(listener, serving);
    for _ in 0..10 {
        check(&client).await.unwrap();
    }
}

#[tokio::test]
async fn discovery_stops_with_the_last_client_clone() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let client = connect(&Config::at("dns://health.test:1?server=127.0.0.1:1"));
    let clone = client.clone();
    drop(client);
    tokio::task::yield_now().await;
    assert!(tasks() > before);
    drop(clone);
    until(|| tasks() == before).await;
}
