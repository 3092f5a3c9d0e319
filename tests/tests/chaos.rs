//! Chaos tests: network faults and slow services between real processes. Breakers open and close,
//! retries stay bounded, deadlines hold, no permit leaks.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::future::{join, join_all};
use palisade_tests::{
    Client, Response, Shop, eventually,
    fault_proxy::{FaultProxy, Mode},
    servers::free_port,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{accepted_id, create_product, order_request, place_confirmed_order, wait_for_quantity, wait_until_settled},
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

/// Attempt timeout for calls to products.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);
/// Open time of the breaker, regardless of failed probes.
const OPEN_TIME: Duration = Duration::from_secs(2);
/// Minimum number of calls before the breaker opens.
const MIN_CALLS: usize = 20;
/// Tolerance for a busy machine.
const SLACK: Duration = Duration::from_secs(4);

/// Starts three separate services, with a proxy between products and both of its callers.
async fn shop(configure: impl Fn(&str, &mut Command)) -> (Shop, FaultProxy) {
    let products = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let proxy = FaultProxy::connect_to(products).await;
    let shop = Shop::separate_with(None, None, |service, command| {
        if service == "products" {
            command.env("PALISADE_LISTEN", products.to_string());
        } else {
            let settings = [
                ("URL", format!("http://{}", proxy.address())),
                ("ATTEMPT_TIMEOUT_MS", ATTEMPT_TIMEOUT.as_millis().to_string()),
                ("CALL_TIMEOUT_MS", (2 * ATTEMPT_TIMEOUT).as_millis().to_string()),
                ("CIRCUIT_BREAKER__MIN_CALLS", MIN_CALLS.to_string()),
                ("CIRCUIT_BREAKER__OPEN_MS", OPEN_TIME.as_millis().to_string()),
                ("CIRCUIT_BREAKER__MAX_OPEN_MS", OPEN_TIME.as_millis().to_string()),
            ];
            command.envs(settings.map(|(key, value)| (format!("PALISADE_UPSTREAMS__PRODUCTS__{key}"), value)));
        }
        configure(service, command);
    });
    (shop, proxy)
}

/// Enables fault injection in products and disables the callers' breakers, so that they do not hide
/// the other layers.
fn with_fault_injection(service: &str, command: &mut Command) {
    match service {
        "products" => command.env("PALISADE_SERVER__FAULT_INJECTION__ENABLED", "true"),
        _ => command.env("PALISADE_UPSTREAMS__PRODUCTS__CIRCUIT_BREAKER__MODE", "disabled"),
    };
}

/// Injects a fault into products.
async fn inject(shop: &Shop, rate: f64, kind: Value) {
    shop.program("products").set_faults("products", "palisade.products.v1.ProductsService/*", rate, Some(kind)).await;
}

/// Returns the lines of a service's metric `name` with all these labels.
async fn series(shop: &Shop, service: &str, name: &str, labels: &[&str]) -> Vec<String> {
    let metrics = Client::new(shop.admin_url(service), None).get("/metrics").attempt().await.unwrap().text();
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let found = metrics.lines().filter(of_name).filter(|line| labels.iter().all(|label| line.contains(label)));
    found.map(str::to_owned).collect()
}

/// Returns the state of the gateway's breaker for products: 0 closed, 1 open, 2 half-open.
async fn breaker_state(shop: &Shop) -> String {
    let state = series(shop, "gateway", "palisade_breaker_state", &[r#"target="products""#]).await;
    state[0].rsplit(' ').next().unwrap().to_owned()
}

/// Asserts that no request is in flight shortly after the last response.
async fn assert_nothing_in_flight(shop: &Shop) {
    for service in ["gateway", "products", "orders"] {
        for name in ["palisade_concurrency_in_use", "http_server_active_requests", "palisade_rpc_server_active_calls"] {
            let idle = eventually(async || {
                let series = series(shop, service, name, &[]).await;
                series.iter().all(|line| line.ends_with(" 0")).then_some(series.len())
            });
            let idle = timeout(SLACK, idle).await.unwrap_or_else(|_| panic!("{name} of {service} does not return to 0"));
            assert!(idle > 0 || name != "palisade_concurrency_in_use", "{service} does not expose {name}");
        }
    }
}

/// Repeats a request, `at_once` at a time, until `enough` accepts the number of responses. Returns
/// the responses with their durations.
async fn repeat_request(client: &Client, path: &str, at_once: usize, enough: impl Fn(usize) -> bool) -> Vec<(Response, Duration)> {
    let (mut answers, enough) = (Vec::new(), &enough);
    while !enough(answers.len()) {
        let one = async || {
            let start = Instant::now();
            (client.get(path).await, start.elapsed())
        };
        answers.extend(join_all((0..at_once).map(|_| one())).await);
    }
    answers
}

/// 99th percentile of the duration of the caller's order lists.
async fn p99(buyer: &Client) -> Duration {
    let answers = repeat_request(buyer, "/orders", 4, |count| count >= 400).await;
    let mut times: Vec<_> = answers.into_iter().map(|(answer, time)| (answer.ok(200), time).1).collect();
    times.sort();
    times[times.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread")]
async fn blackhole_opens_breaker_and_spares_orders() {
    let (shop, proxy) = shop(|_, _| {}).await;
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 10).await;
    let path = format!("/products/{product}");
    place_confirmed_order(&buyer, &[(&product, 1)]).await;
    let healthy = p99(&buyer).await;

    proxy.set(Mode::Blackhole);
    let silence = Instant::now();
    let opened = async {
        eventually(async || (breaker_state(&shop).await == "1").then_some(())).await;
        silence.elapsed()
    };
    let (answers, opened) = join(repeat_request(&seller, &path, MIN_CALLS, |count| count > 0), opened).await;
    assert!(opened < ATTEMPT_TIMEOUT + SLACK, "breaker opened after {opened:?}");
    for (answer, _) in answers {
        assert!([503, 504].contains(&answer.status.as_u16()), "{answer:?}");
    }
    // The open time has just started.
    for (refusal, time) in repeat_request(&seller, &path, 1, |count| count >= 20).await {
        refusal.problem(503, "upstream_unavailable");
        assert!(refusal.header("retry-after").is_some() && time < ATTEMPT_TIMEOUT / 2, "{time:?}");
    }

    let finished = AtomicBool::new(false);
    let pressure = repeat_request(&seller, &path, 10, |_| finished.load(Ordering::Relaxed));
    let business = async {
        let harmed = p99(&buyer).await;
        let answer = order_request(&buyer, &[(&product, 2)]).await;
        finished.store(true, Ordering::Relaxed);
        (harmed, answer)
    };
    let (_, (harmed, answer)) = join(pressure, business).await;
    // A list that waited for products would take as long as an attempt.
    assert!(harmed < (healthy * 10).max(ATTEMPT_TIMEOUT / 4), "{harmed:?}, healthy {healthy:?}");
    assert_eq!(answer.ok(202)["status"], "PENDING");

    proxy.set(Mode::Pass);
    let healed = Instant::now();
    eventually(async || {
        seller.get(&path).await;
        (breaker_state(&shop).await == "0").then_some(())
    })
    .await;
    assert!(healed.elapsed() < OPEN_TIME + SLACK, "breaker closed after {:?}", healed.elapsed());
    assert_eq!(wait_until_settled(&buyer, &accepted_id(&answer)).await["status"], "CONFIRMED");
    wait_for_quantity(&seller, &product, 7).await;
    assert_nothing_in_flight(&shop).await;
    for service in ["products", "orders"] {
        shop.invariants(service).await;
    }
}

/// Returns the number of attempts that the gateway made to find a product, and how many of them
/// products received.
async fn attempts(shop: &Shop) -> (f64, f64) {
    const FIND: &str = "palisade.products.v1.ProductsService/FindOne";
    let made = shop.counted("gateway", "grpc_client_attempt_started_total", &[FIND]).await;
    (made, shop.counted("products", "rpc_server_call_duration_seconds_count", &[FIND]).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_upstream_does_not_starve_the_other() {
    // Without the breaker, the bulkhead alone must bound the permits of one target.
    let (shop, proxy) = shop(|service, command| {
        if service == "gateway" {
            command.env("PALISADE_UPSTREAMS__PRODUCTS__CIRCUIT_BREAKER__MODE", "disabled");
        }
    })
    .await;
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 10).await;
    let path = format!("/products/{product}");
    let healthy = p99(&buyer).await;

    proxy.set(Mode::Blackhole);
    let beside = async {
        let hanging =
            async || (shop.counted("gateway", "palisade_concurrency_in_use", &[r#"limiter="products""#]).await > 100.0).then_some(());
        eventually(hanging).await;
        repeat_request(&buyer, "/orders", 4, |count| count >= 100).await
    };
    let (hung, beside) = join(repeat_request(&seller, &path, 400, |count| count > 0), beside).await;
    for (answer, time) in beside {
        answer.ok(200);
        assert!(time < (10 * healthy).max(ATTEMPT_TIMEOUT), "{time:?}, and {healthy:?} without the fault");
    }
    for (answer, _) in hung {
        // 429: one caller does not get all permits of an upstream.
        assert!([429, 503, 504].contains(&answer.status.as_u16()), "{answer:?}");
    }
    proxy.set(Mode::Pass);
    assert_nothing_in_flight(&shop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flapping_connection_causes_no_retry_storm() {
    let (shop, proxy) = shop(|service, command| {
        if service == "gateway" {
            command.env("PALISADE_UPSTREAMS__PRODUCTS__CIRCUIT_BREAKER__OPEN_MS", "500");
        }
    })
    .await;
    let seller = shop.client("seller", ALL_SCOPES);
    let path = format!("/products/{}", create_product(&seller, 1).await);
    let mut calls = 0_u32;
    for _ in 0..6 {
        proxy.set(Mode::Refuse);
        for (answer, _) in repeat_request(&seller, &path, 8, |count| count >= 80).await {
            answer.problem(503, "upstream_unavailable");
            calls += 1;
        }
        let mut successes = 0;
        proxy.set(Mode::Pass);
        eventually(async || {
            calls += 1;
            successes += u32::from(seller.get(&path).await.status == 200);
            (successes == 10).then_some(())
        })
        .await;
    }
    assert_nothing_in_flight(&shop).await;
    let (made, seen) = attempts(&shop).await;
    // Without the breaker 1.4 per call, because calls that could not be sent are retried
    // immediately.
    assert!(made <= 1.3 * f64::from(calls) + 20.0, "{made} attempts for {calls} calls");
    assert!(seen <= f64::from(calls), "{seen} seen of {calls} calls");
}

#[tokio::test(flavor = "multi_thread")]
async fn rejecting_service_gets_few_retries() {
    let (shop, _proxy) = shop(with_fault_injection).await;
    let seller = shop.client("seller", ALL_SCOPES);
    let path = format!("/products/{}", create_product(&seller, 1).await);
    inject(&shop, 1.0, json!({ "error": "not_ready" })).await;
    for (answer, _) in repeat_request(&seller, &path, 8, |count| count >= 400).await {
        answer.problem(503, "not_ready");
    }
    assert_nothing_in_flight(&shop).await;
    let (made, seen) = attempts(&shop).await;
    assert!(made <= 1.3 * 400.0, "{made} attempts for 400 calls");
    assert!((made - seen).abs() < f64::EPSILON, "{made} attempts, {seen} seen");
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_propagate_with_half_of_calls_slow() {
    let (shop, _proxy) = shop(with_fault_injection).await;
    let seller = shop.client("seller", ALL_SCOPES);
    let path = format!("/products/{}", create_product(&seller, 1).await);
    inject(&shop, 0.5, json!({ "latency": { "ms": 30_000 } })).await;
    assert!((shop.counted("products", "palisade_faults_active", &[]).await - 1.0).abs() < f64::EPSILON);

    let deadline = Duration::from_millis(300);
    let call = async || {
        let start = Instant::now();
        let answer = seller.get(&path).header("x-request-timeout", deadline.as_millis().to_string()).await;
        let took = start.elapsed();
        if answer.status == 200 {
            return 0;
        }
        answer.problem(504, "deadline_exceeded");
        assert!((deadline / 2..deadline + SLACK).contains(&took), "{took:?}");
        1
    };
    let mut late = 0;
    for _ in 0..6 {
        late += join_all((0..10).map(|_| call())).await.into_iter().sum::<u32>();
    }
    // Fewer or more of 60 fair draws occur once in ten million runs.
    assert!((10..=50).contains(&late), "{late} of 60");
    // Calls delayed for half a minute are cancelled at their deadline.
    assert_nothing_in_flight(&shop).await;
    let injected = shop.counted("products", "palisade_faults_injected_total", &[r#"kind="latency""#]).await;
    assert!(injected >= f64::from(late), "{injected} injected, {late} late");

    assert_eq!(Client::new(shop.admin_url("products"), None).delete("/faults").attempt().await.unwrap().status, 204);
    for (answer, _) in repeat_request(&seller, &path, 10, |count| count >= 20).await {
        answer.ok(200);
    }
    assert!(shop.counted("products", "palisade_faults_active", &[]).await.abs() < f64::EPSILON);
}
