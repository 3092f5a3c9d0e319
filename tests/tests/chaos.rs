//! Failing networks and slow services between real processes: breakers open and close, retries stay few, deadlines hold, nothing leaks.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::future::{join, join_all};
use palisade_tests::{
    Answer, Client, Shop, eventually,
    fault_proxy::{FaultProxy, Mode},
    servers::free_port,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{accepted, confirmed, eventually_left, order, settled, create_product},
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

/// How long an attempt at products may take.
const ATTEMPT: Duration = Duration::from_secs(1);
/// How long a breaker stays open, however often its probes failed.
const OPEN: Duration = Duration::from_secs(2);
/// Calls that a breaker must see before it opens.
const MIN_CALLS: usize = 20;
/// What a busy machine may add to any of the above.
const SLACK: Duration = Duration::from_secs(4);

/// The three services apart, with a proxy before products for both of its callers.
async fn shop(configure: impl Fn(&str, &mut Command)) -> (Shop, FaultProxy) {
    let products = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let proxy = FaultProxy::connect_to(products).await;
    let shop = Shop::separate_with(None, None, |service, command| {
        if service == "products" {
            command.env("PALISADE_LISTEN", products.to_string());
        } else {
            let settings = [
                ("URL", format!("http://{}", proxy.address())),
                ("ATTEMPT_TIMEOUT_MS", ATTEMPT.as_millis().to_string()),
                ("CALL_TIMEOUT_MS", (2 * ATTEMPT).as_millis().to_string()),
                ("BREAKER__MIN_CALLS", MIN_CALLS.to_string()),
                ("BREAKER__OPEN_MS", OPEN.as_millis().to_string()),
                ("BREAKER__MAX_OPEN_MS", OPEN.as_millis().to_string()),
            ];
            command.envs(settings.map(|(key, value)| (format!("PALISADE_UPSTREAMS__PRODUCTS__{key}"), value)));
        }
        configure(service, command);
    });
    shop.ready().await;
    (shop, proxy)
}

/// Products can be told to fail; nobody's breaker hides what the layers around it do about that.
fn injecting(service: &str, command: &mut Command) {
    match service {
        "products" => command.env("PALISADE_SERVER__FAULTS__ENABLED", "true"),
        _ => command.env("PALISADE_UPSTREAMS__PRODUCTS__BREAKER__MODE", "disabled"),
    };
}

/// Tells products to.
async fn inject(shop: &Shop, rate: f64, kind: Value) {
    shop.program("products").faults("products", "palisade.products.v1.ProductsService/*", rate, Some(kind)).await;
}

/// The lines of a service's metrics that begin with `name` and have all these labels.
async fn series(shop: &Shop, service: &str, name: &str, labels: &[&str]) -> Vec<String> {
    let metrics = Client::new(shop.admin_url(service), None).get("/metrics").attempt().await.unwrap().text();
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let found = metrics.lines().filter(of_name).filter(|line| labels.iter().all(|label| line.contains(label)));
    found.map(str::to_owned).collect()
}

/// Whether the gateway's breaker for products lets calls through: 0 yes, 1 no, 2 some.
async fn breaker(shop: &Shop) -> String {
    let state = series(shop, "gateway", "palisade_breaker_state", &[r#"target="products""#]).await;
    state[0].rsplit(' ').next().unwrap().to_owned()
}

/// Nothing is in flight anywhere, soon after the last answer.
async fn nothing_is_left(shop: &Shop) {
    for service in ["gateway", "products", "orders"] {
        for name in ["palisade_concurrency_in_use", "http_server_active_requests", "palisade_rpc_server_active_calls"] {
            let idle = eventually(async || {
                let series = series(shop, service, name, &[]).await;
                series.iter().all(|line| line.ends_with(" 0")).then_some(series.len())
            });
            let idle = timeout(SLACK, idle).await.unwrap_or_else(|_| panic!("{name} of {service} does not come to rest"));
            assert!(idle > 0 || name != "palisade_concurrency_in_use", "{service} tells nothing of {name}");
        }
    }
}

/// Asks the same again and again, so many at once, until `enough` says so of the number of answers; each answer with its time.
async fn ask(client: &Client, path: &str, at_once: usize, enough: impl Fn(usize) -> bool) -> Vec<(Answer, Duration)> {
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

/// The time that all but one in a hundred of the caller's order lists take.
async fn p99(buyer: &Client) -> Duration {
    let answers = ask(buyer, "/orders", 4, |count| count >= 400).await;
    let mut times: Vec<_> = answers.into_iter().map(|(answer, time)| (answer.ok(200), time).1).collect();
    times.sort();
    times[times.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread")]
async fn while_products_is_silent_the_breaker_is_open_and_orders_is_well() {
    let (shop, proxy) = shop(|_, _| {}).await;
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 10).await;
    let path = format!("/products/{product}");
    confirmed(&buyer, &[(&product, 1)]).await;
    let healthy = p99(&buyer).await;

    proxy.set(Mode::Blackhole);
    let silence = Instant::now();
    let opened = async {
        eventually(async || (breaker(&shop).await == "1").then_some(())).await;
        silence.elapsed()
    };
    let (answers, opened) = join(ask(&seller, &path, MIN_CALLS, |count| count > 0), opened).await;
    assert!(opened < ATTEMPT + SLACK, "it took {opened:?}");
    for (answer, _) in answers {
        assert!([503, 504].contains(&answer.status.as_u16()), "{answer:?}");
    }
    // Its wait has only begun.
    for (refusal, time) in ask(&seller, &path, 1, |count| count >= 20).await {
        refusal.problem(503, "upstream_unavailable");
        assert!(refusal.header("retry-after").is_some() && time < ATTEMPT / 2, "{time:?}");
    }

    let over = AtomicBool::new(false);
    let pressure = ask(&seller, &path, 10, |_| over.load(Ordering::Relaxed));
    let business = async {
        let harmed = p99(&buyer).await;
        let answer = order(&buyer, &[(&product, 2)]).await;
        over.store(true, Ordering::Relaxed);
        (harmed, answer)
    };
    let (_, (harmed, answer)) = join(pressure, business).await;
    // A list that waited for products would take an attempt's time.
    assert!(harmed < (healthy * 10).max(ATTEMPT / 4), "{harmed:?}, healthy {healthy:?}");
    assert_eq!(answer.ok(202)["status"], "PENDING");

    proxy.set(Mode::Pass);
    let healed = Instant::now();
    eventually(async || {
        seller.get(&path).await;
        (breaker(&shop).await == "0").then_some(())
    })
    .await;
    assert!(healed.elapsed() < OPEN + SLACK, "it took {:?}", healed.elapsed());
    assert_eq!(settled(&buyer, &accepted(&answer)).await["status"], "CONFIRMED");
    eventually_left(&seller, &product, 7).await;
    nothing_is_left(&shop).await;
    for service in ["products", "orders"] {
        shop.invariants(service).await;
    }
}

/// Attempts that the gateway made at finding a product, and how many of them products saw.
async fn attempts(shop: &Shop) -> (f64, f64) {
    const FIND: &str = "palisade.products.v1.ProductsService/FindOne";
    let made = shop.counted("gateway", "grpc_client_attempt_started_total", &[FIND]).await;
    (made, shop.counted("products", "rpc_server_call_duration_seconds_count", &[FIND]).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_upstream_that_hangs_leaves_room_for_the_other() {
    // No breaker comes to the rescue: what one target may take of the gateway must be bounded by itself.
    let (shop, proxy) = shop(|service, command| {
        if service == "gateway" {
            command.env("PALISADE_UPSTREAMS__PRODUCTS__BREAKER__MODE", "disabled");
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
        ask(&buyer, "/orders", 4, |count| count >= 100).await
    };
    let (hung, beside) = join(ask(&seller, &path, 400, |count| count > 0), beside).await;
    for (answer, time) in beside {
        answer.ok(200);
        assert!(time < (10 * healthy).max(ATTEMPT), "{time:?}, and {healthy:?} when all is well");
    }
    for (answer, _) in hung {
        assert!([503, 504].contains(&answer.status.as_u16()), "{answer:?}");
    }
    proxy.set(Mode::Pass);
    nothing_is_left(&shop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flapping_connection_is_not_answered_with_a_storm() {
    let (shop, proxy) = shop(|service, command| {
        if service == "gateway" {
            command.env("PALISADE_UPSTREAMS__PRODUCTS__BREAKER__OPEN_MS", "500");
        }
    })
    .await;
    let seller = shop.client("seller", ALL_SCOPES);
    let path = format!("/products/{}", create_product(&seller, 1).await);
    let mut calls = 0_u32;
    for _ in 0..6 {
        proxy.set(Mode::Refuse);
        for (answer, _) in ask(&seller, &path, 8, |count| count >= 80).await {
            answer.problem(503, "upstream_unavailable");
            calls += 1;
        }
        let mut well = 0;
        proxy.set(Mode::Pass);
        eventually(async || {
            calls += 1;
            well += u32::from(seller.get(&path).await.status == 200);
            (well == 10).then_some(())
        })
        .await;
    }
    nothing_is_left(&shop).await;
    let (made, seen) = attempts(&shop).await;
    // Without the breaker 1.4 per call: what could not be sent is tried again at once.
    assert!(made <= 1.3 * f64::from(calls) + 20.0, "{made} attempts for {calls} calls");
    assert!(seen <= f64::from(calls), "{seen} seen of {calls} calls");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_refuses_everything_is_not_asked_much_more_than_before() {
    let (shop, _proxy) = shop(injecting).await;
    let seller = shop.client("seller", ALL_SCOPES);
    let path = format!("/products/{}", create_product(&seller, 1).await);
    inject(&shop, 1.0, json!({ "error": "not_ready" })).await;
    for (answer, _) in ask(&seller, &path, 8, |count| count >= 400).await {
        answer.problem(503, "not_ready");
    }
    nothing_is_left(&shop).await;
    let (made, seen) = attempts(&shop).await;
    assert!(made <= 1.3 * 400.0, "{made} attempts for 400 calls");
    assert!((made - seen).abs() < f64::EPSILON, "{made} attempts, {seen} seen");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_half_of_the_calls_are_slow_deadlines_hold_and_reach_the_last_service() {
    let (shop, _proxy) = shop(injecting).await;
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
    // Fewer or more of 60 fair draws come up once in ten million runs.
    assert!((10..=50).contains(&late), "{late} of 60");
    // What was delayed for half a minute is over with its deadline.
    nothing_is_left(&shop).await;
    let injected = shop.counted("products", "palisade_faults_injected_total", &[r#"kind="latency""#]).await;
    assert!(injected >= f64::from(late), "{injected} injected, {late} late");

    assert_eq!(Client::new(shop.admin_url("products"), None).delete("/faults").attempt().await.unwrap().status, 204);
    for (answer, _) in ask(&seller, &path, 10, |count| count >= 20).await {
        answer.ok(200);
    }
    assert!(shop.counted("products", "palisade_faults_active", &[]).await.abs() < f64::EPSILON);
}
