//! Pending orders: listed as stuck, retried, and resumed after a client disconnect.

use std::future::IntoFuture;

use futures_util::future::join_all;
use palisade_tests::{
    Client, Shop, eventually, servers,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{accepted_id, create_product, order_request, place_confirmed_order, wait_until_settled},
};
use serde_json::{Value, json};

#[tokio::test]
async fn stuck_order_is_listed_and_retried() {
    let mut shop = Shop::separate(None, None);
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 3).await;
    let tools = Client::new(shop.admin_url("orders"), None);

    shop.program_mut("products").kill();
    let ask = || order_request(&buyer, &[(&product, 2)]).header("idempotency-key", "once");
    let first = ask().await;
    let body = first.ok(202);
    let id = accepted_id(&first);
    let listed = eventually(async || {
        let stuck = tools.get("/saga/stuck").attempt().await.unwrap().ok(200);
        stuck["items"].as_array().unwrap().iter().find(|item| item["orderId"] == json!(id)).cloned()
    });
    let listed: Value = listed.await;
    assert_eq!((&listed["status"], listed["attempts"].as_u64() >= Some(5)), (&json!("PENDING"), true), "{listed}");

    shop.program_mut("products").restart();
    let retry = async || tools.post(format!("/saga/retry/{id}"), &json!({})).attempt().await.unwrap().status;
    assert_eq!(retry().await, 202);
    assert_eq!(wait_until_settled(&buyer, &id).await["status"], "CONFIRMED");
    assert_eq!(retry().await, 404, "a finished saga cannot be retried");
    let again = ask().await;
    assert_eq!((again.ok(202), again.header("idempotency-replayed")), (body, Some("true")));
}

/// Regression test: after an outage of products, orders wait neither for a long backoff nor for the
/// open time of the circuit breaker.
#[tokio::test(flavor = "multi_thread")]
async fn orders_settle_soon_after_products_returns() {
    const ORDERS: usize = 40;
    // Longer than any wait of a test.
    const OPEN_MS: &str = "3600000";
    let mut shop = Shop::separate_with(None, None, |service, command| {
        if service != "products" {
            for key in ["OPEN_MS", "MAX_OPEN_MS"] {
                command.env(format!("PALISADE_UPSTREAMS__PRODUCTS__CIRCUIT_BREAKER__{key}"), OPEN_MS);
            }
        }
    });
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 100).await;
    shop.program_mut("products").kill();
    let accepted = join_all((0..ORDERS).map(|_| order_request(&buyer, &[(&product, 1)]).into_future())).await;
    let accepted: Vec<_> = accepted.iter().map(accepted_id).collect();
    let breaker = async || shop.counted("orders", "palisade_breaker_state", &[r#"target="products""#, r#"scope="target""#]).await;
    let products_up = async || shop.counted("orders", "palisade_dependency_up", &[r#"dependency="products""#]).await;
    let is_down = async || products_up().await < 0.5 && (breaker().await - 1.0).abs() < 0.5;
    eventually(async || is_down().await.then_some(())).await;

    shop.program_mut("products").restart();
    for id in &accepted {
        assert_eq!(wait_until_settled(&buyer, id).await["status"], "CONFIRMED");
    }
}

/// Regression test: the order must not wait for the lease of an abandoned request to expire.
#[tokio::test]
async fn order_completes_after_client_disconnects() {
    let postgres = servers::postgres();
    let shop = Shop::separate_with(None, Some(&postgres.url("orders")), |service, command| {
        if service == "orders" {
            command.env("PALISADE_SAGA__LEASE_MS", "600000");
        }
    });
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 3).await;
    buyer.get("/orders").await.ok(200);
    postgres.pause();
    let creating = async || shop.counted("orders", "palisade_rpc_server_active_calls", &["CreateOrder"]).await > 0.0;
    let ordering = order_request(&buyer, &[(&product, 2)]).attempt();
    let under_way = eventually(async || creating().await.then_some(()));
    tokio::select! {
        answer = ordering => panic!("response without a store: {answer:?}"),
        () = under_way => {}
    }
    eventually(async || (!creating().await).then_some(())).await;
    postgres.resume();
    let id = eventually(async || {
        let orders = buyer.get("/orders").attempt().await.ok()?;
        orders.json()["items"][0]["id"].as_str().map(str::to_owned)
    });
    assert_eq!(wait_until_settled(&buyer, &id.await).await["status"], "CONFIRMED");
}

#[tokio::test]
async fn services_fetch_caller_jwks_by_url() {
    let gateway_admin = format!("127.0.0.1:{}", servers::free_port());
    let orders_admin = format!("127.0.0.1:{}", servers::free_port());
    let shop = Shop::separate_with(None, None, |service, command| {
        match service {
            "gateway" => command.env("PALISADE_ADMIN_LISTEN", &gateway_admin),
            "orders" => command.env("PALISADE_ADMIN_LISTEN", &orders_admin),
            _ => command,
        };
        for (caller, address) in [("GATEWAY", &gateway_admin), ("ORDERS", &orders_admin)] {
            let key = |name: &str| format!("PALISADE_AUTH__ISSUERS__{caller}__{name}");
            let trusts = matches!((service, caller), ("orders", "GATEWAY") | ("products", _));
            if trusts {
                command.env_remove(key("JWKS_FILE")).env(key("JWKS_URL"), format!("http://{address}/jwks.json"));
            }
        }
    });
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 3).await;
    place_confirmed_order(&buyer, &[(&product, 2)]).await;
    // JWKS requests are instrumented like other HTTP calls.
    let went_well = &[r#"http_response_status_code="200""#];
    assert!(shop.program("products").metric_value("products", "http_client_request_duration_seconds_count", went_well).await >= 2.0);
}
