//! The admin ports: alive, ready and why not, metrics, invariants.

use palisade_tests::{
    Answer, Client, Shop, eventually, servers,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{accepted, confirmed, eventually_left, order, product, settled, create_product},
    unique,
};
use serde_json::{Value, json};

const SERVICES: [&str; 3] = ["gateway", "products", "orders"];

async fn admin(shop: &Shop, service: &str, path: &str) -> Answer {
    Client::new(shop.admin_url(service), None).get(path).attempt().await.unwrap()
}

/// Waits until a service says it is ready, or not; gives what it says about its dependencies.
async fn readiness(shop: &Shop, service: &str, status: u16) -> Value {
    let client = Client::new(shop.admin_url(service), None);
    eventually(async || client.get("/readyz").attempt().await.ok().filter(|answer| answer.status == status)).await.json()
}

/// What a readiness report says about one dependency.
fn dependency(report: &Value, name: &str) -> Value {
    let dependencies = report["dependencies"].as_array().unwrap();
    dependencies.iter().find(|dependency| dependency["name"] == name).unwrap_or_else(|| panic!("{report}")).clone()
}

#[tokio::test]
async fn every_service_has_an_admin_port_without_tokens() {
    let shop = Shop::shared();
    shop.ready().await;
    let caller = shop.client("caller", ALL_SCOPES);
    create_product(&caller, 1).await;
    for service in SERVICES {
        assert_eq!(admin(shop, service, "/livez").await.status, 200, "{service}");
        assert!(admin(shop, service, "/readyz").await.json().is_object(), "{service}");
        let metrics = admin(shop, service, "/metrics").await;
        assert_eq!(metrics.status, 200);
        assert!(metrics.header("content-type").unwrap().starts_with("text/plain"));
        assert_eq!(metrics_without_meaning(&metrics.text()), Vec::<String>::new(), "{service}");
    }
    shop.anonymous().get("/livez").await;
    shop.anonymous().get("/readyz").await;
}

/// Every metric is in a catalogue, which gives it its meaning and its unit.
fn metrics_without_meaning(text: &str) -> Vec<String> {
    let named = |prefix: &'static str| text.lines().filter_map(move |line| line.strip_prefix(prefix)?.split(' ').next());
    assert!(named("# TYPE ").count() > 0, "{text}");
    named("# TYPE ").filter(|name| named("# HELP ").all(|told| told != *name)).map(str::to_owned).collect()
}

#[tokio::test]
async fn random_paths_make_no_new_series() {
    let shop = Shop::shared();
    let caller = shop.client("caller", ALL_SCOPES);
    let visit = async || {
        for _ in 0..20 {
            caller.get(format!("/{}", unique("nowhere"))).await.problem(404, "not_found");
            caller.get(format!("/products/{}", uuid::Uuid::new_v4())).await.problem(404, "not_found");
        }
        admin(shop, "gateway", "/metrics").await.text()
    };
    visit().await;
    let metrics = visit().await;
    assert!(!metrics.contains("nowhere-"), "a path of the caller's is in a label");
}

#[tokio::test]
async fn the_services_check_their_own_invariants() {
    let shop = Shop::all_in_one();
    shop.ready().await;
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 5).await;
    confirmed(&buyer, &[(&product, 2)]).await;
    for service in ["products", "orders"] {
        shop.invariants(service).await;
    }
}

#[tokio::test]
async fn while_a_service_is_down_its_callers_say_so_and_recover_by_themselves() {
    let mut shop = Shop::separate(None, None);
    shop.ready().await;
    let caller = shop.client("caller", ALL_SCOPES);
    let buyer = shop.client("buyer", CUSTOMER);
    let product_id = create_product(&caller, 10).await;

    shop.program_mut("products").kill();
    let why = dependency(&readiness(&shop, "gateway", 503).await, "products");
    assert_eq!((&why["ok"], why["reason"].is_string()), (&json!(false), true), "{why}");
    assert_eq!(admin(&shop, "gateway", "/livez").await.status, 200);
    caller.get("/products").await.problem(503, "upstream_unavailable");
    caller.post("/products", &product(1)).await.problem(503, "upstream_unavailable");
    // Orders are taken all the same, and finished later: that service says what it lacks and stays ready.
    eventually(async || (dependency(&admin(&shop, "orders", "/readyz").await.json(), "products")["ok"] == json!(false)).then_some(()))
        .await;
    readiness(&shop, "orders", 200).await;
    let answer = order(&buyer, &[(&product_id, 4)]).await;
    let pending = answer.ok(202);
    assert_eq!(pending["status"], "PENDING");
    assert!(answer.header("retry-after").is_some() && answer.header("location").is_some());

    shop.program_mut("products").restart();
    shop.ready().await;
    assert_eq!(settled(&buyer, &accepted(&answer)).await["status"], "CONFIRMED");
    eventually(async || (caller.get(format!("/products/{product_id}")).await.status == 200).then_some(())).await;
    eventually_left(&caller, &product_id, 6).await;
}

#[tokio::test]
async fn a_service_starts_before_its_database_and_is_ready_once_it_is_there() {
    let mut postgres = servers::durable_postgres();
    let mut mongo = servers::durable_mongo();
    let (orders, products) = (postgres.url("orders"), mongo.url("products"));
    postgres.kill();
    mongo.kill();
    let shop = Shop::separate(Some(&products), Some(&orders));
    for service in ["products", "orders"] {
        readiness(&shop, service, 503).await;
        assert_eq!(admin(&shop, service, "/livez").await.status, 200, "{service}");
    }
    what_may_happen_is_shown_before_it_does(&shop).await;
    postgres.restart();
    mongo.restart();
    shop.ready().await;
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 5).await;
    confirmed(&buyer, &[(&product, 5)]).await;

    postgres.kill();
    readiness(&shop, "orders", 503).await;
    order(&buyer, &[(&product, 1)]).await.problem(503, "upstream_unavailable");
    postgres.restart();
    shop.ready().await;
    order(&buyer, &[(&product, 1)]).await.problem(409, "insufficient_stock");
}

/// A rate sees no event that made its series.
async fn what_may_happen_is_shown_before_it_does(shop: &Shop) {
    for (service, metric, labels) in [
        ("orders", "palisade_orders_total", r#"outcome="cancelled""#),
        ("orders", "palisade_saga_finished_total", r#"outcome="failed""#),
        ("orders", "palisade_saga_step_duration_seconds_count", r#"step="reserve_stock",outcome="unknown""#),
        ("orders", "palisade_saga_in_flight", r#"state="PENDING""#),
        ("orders", "palisade_outbox_pending", ""),
        ("orders", "palisade_invariant_violations", ""),
        ("orders", "db_client_operation_duration_seconds_count", r#"db_collection_name="orders",db_operation_name="create""#),
        ("orders", "db_client_connection_wait_time_seconds_count", r#"db_client_connection_pool_name="orders-postgresql""#),
        ("products", "palisade_idempotency_requests_total", r#"outcome="conflict""#),
        ("products", "palisade_stock_reservations_total", r#"outcome="insufficient""#),
        ("products", "palisade_stock_units", r#"state="available""#),
        ("products", "db_client_operation_duration_seconds_count", r#"db_operation_name="reserve""#),
        ("products", "db_client_connection_timeouts_total", r#"db_client_connection_pool_name="products-mongodb""#),
    ] {
        let text = admin(shop, service, "/metrics").await.text();
        let shown =
            text.lines().find(|line| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(labels));
        assert_eq!(shown.and_then(|line| line.rsplit(' ').next()), Some("0"), "{service}: {metric} {labels}");
    }
}
