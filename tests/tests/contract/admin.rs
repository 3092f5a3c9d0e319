//! Admin ports: liveness, readiness with reasons, metrics, invariants.

use palisade_tests::{
    Client, Response, Shop, eventually, servers,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{
        accepted_id, create_product, order_request, place_confirmed_order, product_body, wait_for_quantity, wait_until_settled,
    },
    unique,
};
use serde_json::{Value, json};

const SERVICES: [&str; 3] = ["gateway", "products", "orders"];

async fn admin(shop: &Shop, service: &str, path: &str) -> Response {
    Client::new(shop.admin_url(service), None).get(path).attempt().await.unwrap()
}

/// Waits until `/readyz` returns this status and returns the report.
async fn readiness(shop: &Shop, service: &str, status: u16) -> Value {
    let client = Client::new(shop.admin_url(service), None);
    eventually(async || client.get("/readyz").attempt().await.ok().filter(|answer| answer.status == status)).await.json()
}

/// Returns one dependency of a readiness report.
fn dependency(report: &Value, name: &str) -> Value {
    let dependencies = report["dependencies"].as_array().unwrap();
    dependencies.iter().find(|dependency| dependency["name"] == name).unwrap_or_else(|| panic!("{report}")).clone()
}

#[tokio::test]
async fn admin_ports_need_no_token() {
    let shop = Shop::shared();
    let caller = shop.client("caller", ALL_SCOPES);
    create_product(&caller, 1).await;
    for service in SERVICES {
        assert_eq!(admin(shop, service, "/livez").await.status, 200, "{service}");
        assert!(admin(shop, service, "/readyz").await.json().is_object(), "{service}");
        let metrics = admin(shop, service, "/metrics").await;
        assert_eq!(metrics.status, 200);
        assert!(metrics.header("content-type").unwrap().starts_with("text/plain"));
        assert_eq!(metrics_without_help(&metrics.text()), Vec::<String>::new(), "{service}");
    }
    shop.anonymous().get("/livez").await;
    shop.anonymous().get("/readyz").await;
}

#[tokio::test]
async fn admin_ports_reject_other_hosts_and_origins() {
    let shop = Shop::all_in_one_with(|command| {
        command.env("PALISADE_GATEWAY__ADMIN_HOSTS", "gateway.internal");
    });
    for service in SERVICES {
        let url = shop.admin_url(service);
        let client = Client::new(url.clone(), None);
        for path in ["/livez", "/readyz", "/metrics", "/faults", "/breakers", "/log-level", "/nothing"] {
            let rejected = client.get(path).header("host", "evil.example").attempt().await.unwrap();
            rejected.problem(421, "misdirected_request");
            let rejected = client.get(path).header("origin", "http://evil.example").attempt().await.unwrap();
            rejected.problem(421, "misdirected_request");
        }
        let port = url.rsplit(':').next().unwrap();
        for host in [format!("localhost:{port}"), format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
            assert_eq!(client.get("/livez").header("host", host).attempt().await.unwrap().status, 200);
        }
        assert_eq!(client.get("/livez").header("origin", &url).attempt().await.unwrap().status, 200);
        let configured = client.get("/livez").header("host", "Gateway.Internal").attempt().await.unwrap();
        assert_eq!(configured.status == 200, service == "gateway");
    }
}

#[tokio::test]
async fn log_level_is_changed_at_run_time() {
    let shop = Shop::separate(None, None);
    let admin = Client::new(shop.admin_url("gateway"), None);
    assert_eq!(admin.get("/log-level").attempt().await.unwrap().json()["filter"], "info");
    let set = async |body: &Value| admin.put("/log-level", body).attempt().await.unwrap();
    for invalid in [json!({ "filter": "palisade_gateway=loud" }), json!({ "level": "debug" }), json!("debug")] {
        set(&invalid).await.problem(400, "invalid_body");
    }
    shop.anonymous().get("/nowhere").await.problem(404, "not_found");
    assert_eq!(set(&json!({ "filter": "debug" })).await.json()["filter"], "debug");
    let rejected = shop.anonymous().get("/nowhere").await;
    let id = rejected.header("x-request-id").unwrap().to_owned();
    // Only since the change, with the ids of the request first.
    let line = eventually(async || shop.program("gateway").log().lines().find(|line| line.contains(&id)).map(str::to_owned)).await;
    let order: Vec<usize> = ["timestamp", "level", "service", "message", "request_id", "route", "reason"]
        .map(|member| line.find(&format!("\"{member}\":")).unwrap_or_else(|| panic!("{member}: {line}")))
        .to_vec();
    assert!(order.is_sorted(), "{line}");
    let log = shop.program("gateway").log();
    assert!(!["h2", "hyper", "tower"].iter().any(|library| log.contains(&format!("\"target\":\"{library}"))), "{log}");
    assert_eq!(set(&json!({ "filter": "info" })).await.status, 200);
}

/// Returns the metrics without help text. Every metric must come from a catalogue, which defines
/// help and unit.
fn metrics_without_help(text: &str) -> Vec<String> {
    let named = |prefix: &'static str| text.lines().filter_map(move |line| line.strip_prefix(prefix)?.split(' ').next());
    assert!(named("# TYPE ").count() > 0, "{text}");
    named("# TYPE ").filter(|name| named("# HELP ").all(|documented| documented != *name)).map(str::to_owned).collect()
}

#[tokio::test]
async fn random_paths_create_no_series() {
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
    assert!(!metrics.contains("nowhere-"), "a request path leaked into a label");
}

#[tokio::test]
async fn services_report_no_invariant_violations() {
    let shop = Shop::all_in_one();
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 5).await;
    place_confirmed_order(&buyer, &[(&product, 2)]).await;
    for service in ["products", "orders"] {
        shop.invariants(service).await;
    }
}

#[tokio::test]
async fn callers_report_down_dependency_and_recover() {
    let mut shop = Shop::separate(None, None);
    let caller = shop.client("caller", ALL_SCOPES);
    let buyer = shop.client("buyer", CUSTOMER);
    let product_id = create_product(&caller, 10).await;

    shop.program_mut("products").kill();
    let why = dependency(&readiness(&shop, "gateway", 503).await, "products");
    assert_eq!((&why["ok"], why["reason"].is_string()), (&json!(false), true), "{why}");
    assert_eq!(admin(&shop, "gateway", "/livez").await.status, 200);
    caller.get("/products").await.problem(503, "upstream_unavailable");
    caller.post("/products", &product_body(1)).await.problem(503, "upstream_unavailable");
    // Orders are accepted and completed later: the orders service reports the failed dependency but
    // stays ready.
    eventually(async || (dependency(&admin(&shop, "orders", "/readyz").await.json(), "products")["ok"] == json!(false)).then_some(()))
        .await;
    readiness(&shop, "orders", 200).await;
    let answer = order_request(&buyer, &[(&product_id, 4)]).await;
    let pending = answer.ok(202);
    assert_eq!(pending["status"], "PENDING");
    assert!(answer.header("retry-after").is_some() && answer.header("location").is_some());

    shop.program_mut("products").restart();
    shop.ready().await;
    assert_eq!(wait_until_settled(&buyer, &accepted_id(&answer)).await["status"], "CONFIRMED");
    eventually(async || (caller.get(format!("/products/{product_id}")).await.status == 200).then_some(())).await;
    wait_for_quantity(&caller, &product_id, 6).await;
}

#[tokio::test]
async fn service_waits_for_its_database() {
    let mut postgres = servers::durable_postgres();
    let mut mongo = servers::durable_mongo();
    let (orders, products) = (postgres.url("orders"), mongo.url("products"));
    postgres.kill();
    mongo.kill();
    let shop = Shop::start_separate_with(Some(&products), Some(&orders), |_, _| {});
    for service in ["products", "orders"] {
        readiness(&shop, service, 503).await;
        assert_eq!(admin(&shop, service, "/livez").await.status, 200, "{service}");
    }
    assert_series_preregistered(&shop).await;
    postgres.restart();
    mongo.restart();
    shop.ready().await;
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 5).await;
    place_confirmed_order(&buyer, &[(&product, 5)]).await;

    postgres.kill();
    readiness(&shop, "orders", 503).await;
    order_request(&buyer, &[(&product, 1)]).await.problem(503, "upstream_unavailable");
    postgres.restart();
    shop.ready().await;
    order_request(&buyer, &[(&product, 1)]).await.problem(409, "insufficient_stock");
}

#[tokio::test]
async fn products_waits_for_its_file_and_for_dns() {
    let directory = tempfile::TempDir::new().unwrap();
    let later = directory.path().join("later");
    let shop = Shop::start_separate_with(Some(&format!("sqlite://{}/products.db", later.display())), None, |_, _| {});
    let report = readiness(&shop, "products", 503).await;
    assert_eq!(dependency(&report, "sqlite")["ok"], json!(false));
    assert_eq!(admin(&shop, "products", "/livez").await.status, 200);
    std::fs::create_dir(&later).unwrap();
    shop.ready().await;
    create_product(&shop.client("seller", ALL_SCOPES), 1).await;

    let unresolvable = shop.additional_products("mongodb+srv://app:hunter2@db.palisade.invalid/products", |_| {});
    let client = Client::new(unresolvable.admin_url("products"), None);
    let report = eventually(async || client.get("/readyz").attempt().await.ok().filter(|answer| answer.status == 503)).await.json();
    assert_eq!(dependency(&report, "mongodb")["ok"], json!(false));
    assert_eq!(client.get("/livez").attempt().await.unwrap().status, 200);
    eventually(async || unresolvable.log().contains("cannot open the store").then_some(())).await;
    assert!(!unresolvable.log().contains("hunter2"), "{}", unresolvable.log());
}

/// Series must exist before their first event: `rate()` does not see the event that creates a
/// series.
async fn assert_series_preregistered(shop: &Shop) {
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
        // Gauges of a store that was not read are unknown.
        let of_store = ["palisade_saga_", "palisade_outbox_", "palisade_invariant_", "palisade_stock_units"];
        let is_gauge =
            !metric.ends_with("_total") && !metric.ends_with("_count") && of_store.iter().any(|prefix| metric.starts_with(prefix));
        let value = if is_gauge { "NaN" } else { "0" };
        assert_eq!(shown.and_then(|line| line.rsplit(' ').next()), Some(value), "{service}: {metric} {labels}");
    }
}
