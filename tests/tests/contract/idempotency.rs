//! Idempotency-Key: a repeated request has one effect and gets the stored response.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use palisade_tests::{
    Client, Shop,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{
        accepted_id, all_items, available_quantity, create_product, id_of, order_body, product_body, wait_until_settled, with_changes,
    },
    unique,
};
use serde_json::json;

fn seller_and_buyer() -> (Client, Client) {
    let shop = Shop::shared();
    (shop.client(&unique("seller"), ALL_SCOPES), shop.client(&unique("buyer"), CUSTOMER))
}

#[tokio::test]
async fn same_key_and_body_replay_response() {
    let (seller, buyer) = seller_and_buyer();
    let product_id = create_product(&seller, 10).await;
    let cases = [(&buyer, "/orders", order_body(&[(&product_id, 2)])), (&seller, "/products", product_body(1))];
    for (client, path, body) in cases {
        let key = unique("key");
        let first = client.post(path, &body).header("idempotency-key", &key).await;
        assert!(first.status.is_success(), "{}", first.text());
        assert_eq!(first.header("idempotency-replayed"), None);
        // A key quoted as an RFC 8941 string and different JSON white space are the same key and
        // body.
        let spaced = serde_json::to_string_pretty(&body).unwrap();
        let again = client.request(reqwest::Method::POST, path).json(spaced).header("idempotency-key", format!("\"{key}\"")).await;
        assert_eq!((again.status, again.json()), (first.status, first.json()), "{path}");
        assert_eq!(again.header("location"), first.header("location"));
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
    }
    assert_eq!(available_quantity(&seller, &product_id).await, 8);
}

#[tokio::test]
async fn definitive_failure_is_replayed() {
    let (seller, buyer) = seller_and_buyer();
    let product = create_product(&seller, 1).await;
    let key = unique("key");
    let ask = || buyer.post("/orders", &order_body(&[(&product, 5)])).header("idempotency-key", &key);
    let first = ask().await.problem(409, "insufficient_stock");
    let again = ask().await;
    assert_eq!(again.problem(409, "insufficient_stock")["orderId"], first["orderId"]);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(all_items(&buyer, "/orders").await.len(), 1);
}

#[tokio::test]
async fn key_with_different_body_is_rejected() {
    let (seller, buyer) = seller_and_buyer();
    let product_id = create_product(&seller, 10).await;
    let key = unique("key");
    accepted_id(&buyer.post("/orders", &order_body(&[(&product_id, 1)])).header("idempotency-key", &key).await);
    buyer.post("/orders", &order_body(&[(&product_id, 2)])).header("idempotency-key", &key).await.problem(422, "idempotency_key_reused");
    let body = product_body(1);
    seller.post("/products", &body).header("idempotency-key", &key).await.ok(201);
    let other = with_changes(body, &json!({ "price": 1 }));
    seller.post("/products", &other).header("idempotency-key", &key).await.problem(422, "idempotency_key_reused");
}

#[tokio::test]
async fn keys_are_scoped_per_user() {
    let (seller, alice) = seller_and_buyer();
    let bob = Shop::shared().client(&unique("bob"), CUSTOMER);
    let product = create_product(&seller, 10).await;
    let key = unique("key");
    let buy = async |who: &Client| accepted_id(&who.post("/orders", &order_body(&[(&product, 1)])).header("idempotency-key", &key).await);
    assert_ne!(buy(&alice).await, buy(&bob).await);
    assert_eq!(available_quantity(&seller, &product).await, 8);
}

#[tokio::test]
async fn invalid_body_does_not_consume_key() {
    let (seller, buyer) = seller_and_buyer();
    let product = create_product(&seller, 10).await;
    let key = unique("key");
    buyer.post("/orders", &order_body(&[(&product, 0)])).header("idempotency-key", &key).await.assert_violations();
    accepted_id(&buyer.post("/orders", &order_body(&[(&product, 1)])).header("idempotency-key", &key).await);
}

#[tokio::test]
async fn concurrent_requests_with_one_key_create_one_order() {
    let (seller, buyer) = seller_and_buyer();
    let product = create_product(&seller, 1_000).await;
    let key = unique("key");
    let calls = (0..100).map(|_| async { buyer.post("/orders", &order_body(&[(&product, 1)])).header("idempotency-key", &key).await });
    let mut orders = BTreeSet::new();
    for answer in join_all(calls).await {
        if answer.status == 409 {
            answer.problem(409, "request_in_progress");
            assert!(answer.header("retry-after").is_some());
        } else {
            orders.insert(accepted_id(&answer));
        }
    }
    assert_eq!(orders.len(), 1);
    wait_until_settled(&buyer, orders.first().unwrap()).await;
    assert_eq!(all_items(&buyer, "/orders").await.iter().map(id_of).collect::<BTreeSet<_>>(), orders);
    assert_eq!(available_quantity(&seller, &product).await, 999);
}

#[tokio::test]
async fn malformed_keys_are_rejected() {
    let (seller, buyer) = seller_and_buyer();
    let product_id = create_product(&seller, 10).await;
    let long = "k".repeat(256);
    for key in [&b""[..], b"a b\tc", "é".as_bytes(), b"\"", long.as_bytes()] {
        buyer.post("/orders", &order_body(&[(&product_id, 1)])).header("idempotency-key", key).await.any_problem(400);
        seller.post("/products", &product_body(1)).header("idempotency-key", key).await.any_problem(400);
    }
    let twice = buyer.post("/orders", &order_body(&[(&product_id, 1)])).header("idempotency-key", "a").header("idempotency-key", "b");
    twice.await.any_problem(400);
    accepted_id(&buyer.post("/orders", &order_body(&[(&product_id, 1)])).header("idempotency-key", &long[1..]).await);
    assert_eq!(available_quantity(&seller, &product_id).await, 9);
}
