//! Test traffic: successful, rejected, retried, slow and failing requests.

use std::process::Command;

use palisade_tests::{
    Client, Shop, eventually,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{accepted_id, create_product, order_request, place_confirmed_order, set_status, wait_until_settled},
    unique,
};
use serde_json::{Value, json};

/// Enables fault injection.
pub(crate) fn with_faults(command: &mut Command) {
    command.env("PALISADE_SERVER__FAULT_INJECTION__ENABLED", "true");
}

/// Enables the response cache with a TTL so short that most reads miss and some hit.
pub(crate) fn with_cache(command: &mut Command, redis: &str) {
    command.env("PALISADE_CACHE__TTL_MS", "20").env("PALISADE_CACHE__STALE_MS", "1000").env("PALISADE_CACHE__REDIS_URL", redis);
}

pub(crate) async fn mixed_traffic(shop: &Shop) {
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let (plenty, few) = (create_product(&seller, 10_000).await, create_product(&seller, 1).await);
    for _ in 0..2 {
        successful_requests(&seller, &buyer, &plenty).await;
        failing_requests(shop, &buyer, &few).await;
        for kind in [json!("abort"), json!({ "error": "overloaded" }), json!({ "latency": { "ms": 300 } })] {
            let rule = json!({ "name": "busy", "method": "palisade.products.v1.ProductsService/Find*", "rate": 0.5, "kind": kind });
            set_faults(shop, &[rule]).await;
            for _ in 0..10 {
                buyer.get(format!("/products/{plenty}")).attempt().await.unwrap();
            }
        }
        set_faults(shop, &[]).await;
        // The circuit breaker may be open.
        let product = || buyer.get(format!("/products/{plenty}"));
        eventually(async || product().attempt().await.ok().filter(|answer| answer.status == 200)).await;
    }
}

pub(crate) async fn successful_traffic(shop: &Shop) {
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    successful_requests(&seller, &buyer, &create_product(&seller, 100).await).await;
}

async fn set_faults(shop: &Shop, rules: &[Value]) {
    let mut set = 0;
    for replica in shop.replicas("products") {
        let admin = Client::new(replica.admin_url("products"), None);
        // A dead replica has none.
        if let Ok(answer) = admin.put("/faults", &json!({ "rules": rules })).attempt().await {
            assert_eq!(answer.status, 200);
            set += 1;
        }
    }
    assert!(set > 0, "no replica of products is running");
}

async fn successful_requests(seller: &Client, buyer: &Client, product: &str) {
    for _ in 0..5 {
        let id = place_confirmed_order(buyer, &[(product, 1)]).await["id"].as_str().unwrap().to_owned();
        buyer.get(format!("/orders/{id}")).await.ok(200);
        buyer.get("/orders").await.ok(200);
        buyer.get("/products?q=lamp").await.ok(200);
        set_status(buyer, &id, "CANCELLED").await.ok(200);
    }
    let key = unique("key");
    for _ in 0..2 {
        let request = order_request(buyer, &[(product, 1)]).header("idempotency-key", &key);
        wait_until_settled(buyer, &accepted_id(&request.await)).await;
    }
    seller.get("/orders").await.ok(200);
}

async fn failing_requests(shop: &Shop, buyer: &Client, few: &str) {
    shop.anonymous().get("/products").await.problem(401, "unauthenticated");
    buyer.get("/nowhere").await.problem(404, "not_found");
    buyer.post("/products", &json!({})).await.problem(403, "insufficient_scope");
    order_request(buyer, &[(few, 2)]).await.problem(409, "insufficient_stock");
    buyer.get("/products").header("x-request-timeout", "1").attempt().await.unwrap();
}
