//! Background work: it survives bad settings, crashes, full disks and replicas without a broker,
//! and the audit reports what it could not check.
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::{
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use async_nats::jetstream;
use palisade_tests::{
    Client, Shop, eventually,
    process::run,
    servers,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{available_quantity, create_product, id_of, order_body, order_request, place_confirmed_order, wait_until_settled},
};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

/// Admin port of a service of the shop.
fn admin(shop: &Shop, service: &str) -> Client {
    Client::new(shop.admin_url(service), None)
}

#[test]
fn huge_durations_are_rejected_by_key() {
    for (service, key) in [
        ("orders", "saga.event_retention_hours"),
        ("orders", "saga.lease_ms"),
        ("orders", "saga.deadline_ms"),
        ("products", "reservations.hold_ttl_ms"),
        ("gateway", "cache.ttl_ms"),
        ("palisade", "orders.saga.lease_ms"),
    ] {
        let flag = format!("--{}=1000000000000000", key.replace(['.', '_'], "-"));
        let output = run(service, &["--check-config", &flag]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(78) && text.contains(key), "{service} {flag}: {output:?}");
    }
}

/// Regression test: the only process that can use an embedded store takes over at once what it left
/// behind when it was killed, and its idempotency keys answer.
#[tokio::test]
async fn embedded_orders_are_taken_up_after_a_crash() {
    let mut shop = Shop::all_in_one_with(|command| {
        // Longer than any wait of a test.
        command.env("PALISADE_ORDERS__SAGA__LEASE_MS", "3600000").env("PALISADE_PRODUCTS__SERVER__FAULT_INJECTION__ENABLED", "true");
    });
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 5).await;
    let reserve = "palisade.products.v1.ProductsService/ReserveStock";
    shop.program("products").set_faults("products", reserve, 1.0, Some(json!("hang"))).await;
    let body = order_body(&[(&product, 2)]);
    let order = || buyer.post("/orders", &body).header("idempotency-key", "crash");
    let accepted = async || (!buyer.get("/orders").attempt().await.ok()?.json()["items"].as_array()?.is_empty()).then_some(());
    tokio::select! {
        answer = order().attempt() => panic!("response without products: {answer:?}"),
        () = eventually(accepted) => {}
    }
    shop.program_mut("palisade").kill();
    shop.program_mut("palisade").restart();
    shop.ready().await;
    let again = eventually(async || order().attempt().await.ok().filter(|answer| matches!(answer.status.as_u16(), 201 | 202))).await;
    assert_eq!(wait_until_settled(&buyer, &id_of(&again.json())).await["status"], "CONFIRMED");
    assert_eq!(available_quantity(&seller, &product).await, 3);
}

/// Runs the same program with SIGXFSZ ignored, so that a write beyond the file size limit fails
/// instead of ending the process.
fn ignore_file_size_signal(command: &mut Command) {
    let mut wrapped = Command::new("sh");
    wrapped.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    *command = wrapped;
}

/// Lets the process write files only up to this size, bytes.
fn limit_file_size(process: u32, bytes: Option<u64>) {
    let process = Pid::from_raw(i32::try_from(process).unwrap());
    prlimit(process, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

#[tokio::test]
async fn unwritable_store_is_not_ready_until_it_is_writable() {
    let shop = Shop::separate_with(None, None, |service, command| {
        if service != "gateway" {
            ignore_file_size_signal(command);
        }
    });
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 5).await;
    place_confirmed_order(&buyer, &[(&product, 1)]).await;
    for service in ["products", "orders"] {
        let readiness =
            async |status: u16| admin(&shop, service).get("/readyz").attempt().await.ok().filter(|answer| answer.status == status);
        let process = shop.program(service).id();
        limit_file_size(process, Some(1));
        let report = eventually(async || readiness(503).await).await.json();
        let store = report["dependencies"].as_array().unwrap().iter().find(|dependency| dependency["name"] == "sqlite").unwrap();
        assert_eq!(store["ok"], false, "{service}: {report}");
        limit_file_size(process, None);
        eventually(async || readiness(200).await).await;
    }
    place_confirmed_order(&buyer, &[(&product, 1)]).await;
    assert_eq!(available_quantity(&seller, &product).await, 3);
}

#[tokio::test]
async fn replica_without_a_broker_publishes_nothing_of_the_others() {
    const ORDERS: usize = 6;
    let (postgres, mongo, nats) = (servers::postgres(), servers::mongo(), servers::nats());
    let started = AtomicUsize::new(0);
    let shop = Shop::replicated(&mongo.url("products"), &postgres.url("orders"), |service, command| {
        // One replica of orders has the broker.
        if service == "orders" && started.fetch_add(1, Ordering::Relaxed) == 0 {
            command.env("PALISADE_EVENTS__NATS_URL", nats.url());
        }
    });
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 50).await;
    for _ in 0..ORDERS {
        place_confirmed_order(&buyer, &[(&product, 1)]).await;
    }
    let client = async_nats::ConnectOptions::new().retry_on_initial_connect().connect(nats.url()).await.unwrap();
    let context = jetstream::new(client);
    let stream = eventually(async || context.get_stream("PALISADE_ORDERS").await.ok()).await;
    // PENDING, PRODUCT_RESERVED and CONFIRMED of each order.
    eventually(async || (stream.get_info().await.ok()?.state.messages == 3 * ORDERS as u64).then_some(())).await;
}

/// The report of the audit of orders, with its status.
async fn invariants(shop: &Shop) -> (u16, Value) {
    let answer = admin(shop, "orders").get("/invariants").attempt().await.unwrap();
    (answer.status.as_u16(), answer.json())
}

#[tokio::test]
async fn confirmed_order_without_reservation_is_reported() {
    let shop = Shop::all_in_one();
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 10).await;
    let kept = id_of(&place_confirmed_order(&buyer, &[(&product, 2)]).await);
    let lost = id_of(&place_confirmed_order(&buyer, &[(&product, 3)]).await);
    assert_eq!(invariants(&shop).await.1["ok"], true);

    let tools = admin(&shop, "products");
    let open = tools.get("/reservations").attempt().await.unwrap().ok(200);
    let ids: Vec<&str> = open["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
    assert!(ids.contains(&kept.as_str()) && ids.contains(&lost.as_str()), "{open}");
    let release = format!("/reservations/{lost}/release");
    let unsigned = tools.post(&release, &json!({ "operator": " ", "reason": "" })).attempt().await.unwrap();
    assert_eq!(unsigned.status, 400);
    let signed = json!({ "operator": "jane", "reason": "backup of orders restored" });
    let released = tools.post(&release, &signed).attempt().await.unwrap().ok(200);
    assert_eq!(released["previousState"], "CONFIRMED");
    assert_eq!(tools.post(&release, &signed).attempt().await.unwrap().status, 404, "it is released once");
    assert_eq!(available_quantity(&seller, &product).await, 8);
    let logged =
        |line: &str| (line.contains("operator released a reservation") && line.contains("jane") && line.contains(&lost)).then_some(());
    shop.program("products").wait_for_line(logged).unwrap();

    // Sold again: without the reservation, the units of the order are gone twice.
    let (status, report) = invariants(&shop).await;
    let violations = report["violations"].as_array().unwrap();
    assert_eq!((status, &report["ok"], violations.len()), (200, &json!(false), 1), "{report}");
    assert!(violations[0].as_str().unwrap().contains(&lost), "{report}");
}

#[tokio::test]
async fn audit_that_cannot_check_is_not_in_order() {
    let mut shop = Shop::separate(None, None);
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 10).await;
    order_request(&buyer, &[(&product, 2)]).attempt().await.unwrap().ok(201);
    let (status, report) = invariants(&shop).await;
    assert_eq!((status, &report["ok"], &report["status"]), (200, &json!(true), &json!("checked")), "{report}");
    shop.program_mut("products").kill();
    let (status, report) = invariants(&shop).await;
    assert_eq!((status, &report["ok"], &report["status"]), (503, &Value::Null, &json!("not_checked")), "{report}");
}

#[tokio::test]
async fn jobs_are_part_of_readiness_and_metrics() {
    let shop = Shop::shared();
    for (service, required) in [("products", "products.sweeper"), ("orders", "orders.worker")] {
        let report = admin(shop, service).get("/readyz").attempt().await.unwrap().ok(200);
        let job = report["dependencies"].as_array().unwrap().iter().find(|dependency| dependency["name"] == required).unwrap();
        assert_eq!((&job["required"], &job["ok"]), (&json!(true), &json!(true)), "{report}");
        let job = format!("name=\"{required}\"");
        let value = async |metric: &str| shop.program(service).metric_value(service, metric, &[&job]).await;
        eventually(async || (value("palisade_job_last_success_seconds").await > 1e9).then_some(())).await;
        assert!(value("palisade_job_restarts_total").await < 1.0);
    }
}
