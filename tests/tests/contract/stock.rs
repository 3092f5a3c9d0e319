//! Stock adjustments and the ledger.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use palisade_tests::{
    Client, Shop, eventually,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{all_items, available_quantity, create_product, id_of, place_confirmed_order, product_body, set_status, with_changes},
    unique,
};
use serde_json::{Value, json};

fn seller() -> Client {
    Shop::shared().client("seller", ALL_SCOPES)
}

fn adjustments(product: &str) -> String {
    format!("/products/{product}/stock-adjustments")
}

fn adjustment(delta: i64) -> Value {
    json!({ "delta": delta, "reason": "damaged" })
}

/// Returns the ledger, newest entry first.
async fn ledger(client: &Client, product: &str) -> Vec<Value> {
    all_items(client, &format!("{}?limit=2", adjustments(product))).await
}

/// Returns kind, delta and quantity after of each entry.
fn changes(ledger: &[Value]) -> Vec<(&str, i64, i64)> {
    let number = |entry: &Value, member: &str| entry[member].as_i64().unwrap();
    ledger.iter().map(|entry| (entry["kind"].as_str().unwrap(), number(entry, "delta"), number(entry, "quantityAfter"))).collect()
}

#[tokio::test]
async fn adjustment_changes_the_stock_and_is_listed() {
    let seller = seller();
    let product = create_product(&seller, 10).await;
    let before = seller.get(format!("/products/{product}")).await;
    let entry = seller.post(adjustments(&product), &json!({ "delta": -3, "reason": "  damaged \u{1f4a5} " })).await.ok(201);
    assert_eq!((&entry["productId"], &entry["kind"]), (&json!(product), &json!("adjustment")));
    assert_eq!((&entry["delta"], &entry["quantityAfter"]), (&json!(-3), &json!(7)));
    assert_eq!((&entry["reason"], &entry["actor"]), (&json!("damaged \u{1f4a5}"), &json!("seller")));
    assert!(entry["createdAt"].is_string() && entry.get("orderId").is_none(), "{entry}");

    let after = seller.get(format!("/products/{product}")).await;
    assert_eq!(after.ok(200)["quantity"], 7);
    assert_ne!(after.header("etag"), before.header("etag"));
    assert!(after.json()["version"].as_i64() > before.json()["version"].as_i64());
    let listed = ledger(&seller, &product).await;
    assert_eq!(listed[0], entry);
    assert_eq!(changes(&listed), [("adjustment", -3, 7), ("opening", 10, 10)]);
    // It names the users who changed the stock.
    let reader = Shop::shared().client("reader", "products:read");
    reader.get(adjustments(&product)).await.problem(403, "insufficient_scope");
    reader.post(adjustments(&product), &adjustment(1)).await.problem(403, "insufficient_scope");
}

#[tokio::test]
async fn ledger_has_every_change_of_the_supply() {
    let shop = Shop::shared();
    let seller = seller();
    let buyer = shop.client(&unique("buyer"), CUSTOMER);
    let product = create_product(&seller, 10).await;
    let path = format!("/products/{product}");
    seller.put(&path, &product_body(12)).await.ok(200);
    seller.put(&path, &product_body(12)).await.ok(200);
    seller.request(reqwest::Method::PATCH, &path).json(r#"{"quantity": 20}"#).await.ok(200);
    let (kept, cancelled) = (place_confirmed_order(&buyer, &[(&product, 4)]).await, place_confirmed_order(&buyer, &[(&product, 1)]).await);
    set_status(&buyer, &id_of(&cancelled), "CANCELLED").await.ok(200);
    eventually(async || (available_quantity(&seller, &product).await == 16).then_some(())).await;
    set_status(&seller, &id_of(&kept), "COMPLETED").await.ok(200);
    let listed = eventually(async || {
        let listed = ledger(&seller, &product).await;
        (listed.len() == 4).then_some(listed)
    })
    .await;
    assert_eq!(changes(&listed), [("fulfilment", -4, 16), ("set", 8, 20), ("set", 2, 12), ("opening", 10, 10)]);
    assert_eq!((&listed[0]["orderId"], &listed[0]["actor"]), (&kept["id"], &Value::Null));
    assert_eq!(listed[1]["actor"], "seller");
}

#[tokio::test]
async fn impossible_adjustments_are_rejected() {
    let seller = seller();
    let product = create_product(&seller, 5).await;
    let path = adjustments(&product);
    assert_eq!(seller.post(&path, &adjustment(-6)).await.problem(409, "insufficient_stock")["productId"], json!(product));
    assert_eq!(seller.post(&path, &adjustment(1_000_000_000)).await.assert_violations(), ["delta"]);
    assert_eq!(seller.post(&path, &json!({})).await.assert_violations(), ["delta", "reason"]);
    assert_eq!(seller.post(&path, &json!({ "delta": 0, "reason": " " })).await.assert_violations(), ["delta", "reason"]);
    for (body, field) in [
        (json!({ "delta": 1_000_000_001, "reason": "x" }), "delta"),
        (json!({ "delta": -1_000_000_001, "reason": "x" }), "delta"),
        (json!({ "delta": 1, "reason": "x".repeat(201) }), "reason"),
        (json!({ "delta": 1, "reason": "nul \u{0}" }), "reason"),
    ] {
        assert_eq!(seller.post(&path, &body).await.assert_violations(), [field], "{body}");
    }
    for body in [
        json!({ "delta": "1", "reason": "x" }),
        json!({ "delta": 1.5, "reason": "x" }),
        json!({ "delta": null, "reason": "x" }),
        json!({ "delta": 1, "reason": "x", "quantityAfter": 99 }),
        json!([1, "x"]),
    ] {
        seller.post(&path, &body).await.problem(400, "invalid_body");
    }
    let missing = adjustments(&uuid::Uuid::now_v7().to_string());
    seller.post(&missing, &adjustment(1)).await.problem(404, "not_found");
    seller.get(&missing).await.problem(404, "not_found");
    seller.get(adjustments("7")).await.problem(400, "invalid_parameter");
    assert_eq!(available_quantity(&seller, &product).await, 5);
    assert_eq!(changes(&ledger(&seller, &product).await), [("opening", 5, 5)]);

    seller.post(&path, &json!({ "delta": -5.0, "reason": "x".repeat(200) })).await.ok(201);
    seller.post(&path, &adjustment(1_000_000_000)).await.ok(201);
    assert_eq!(available_quantity(&seller, &product).await, 1_000_000_000);
    seller.delete(format!("/products/{product}")).await.empty(204);
    seller.get(&path).await.problem(404, "not_found");
}

#[tokio::test]
async fn repeated_adjustment_has_one_effect() {
    let seller = Shop::shared().client(&unique("seller"), ALL_SCOPES);
    let (product, other) = (create_product(&seller, 10).await, create_product(&seller, 10).await);
    let key = unique("key");
    let post = |product: &str, body: &Value| seller.post(adjustments(product), body).header("idempotency-key", &key);
    // A rejected body does not use the key.
    post(&product, &adjustment(0)).await.assert_violations();
    let first = post(&product, &adjustment(-3)).await;
    first.ok(201);
    assert_eq!(first.header("idempotency-replayed"), None);
    let again = post(&product, &json!({ "reason": " damaged", "delta": -3.0 })).await;
    assert_eq!((again.ok(201), again.header("idempotency-replayed")), (first.json(), Some("true")));
    post(&product, &adjustment(-2)).await.problem(422, "idempotency_key_reused");
    post(&product, &json!({ "delta": -3, "reason": "lost" })).await.problem(422, "idempotency_key_reused");
    post(&other, &adjustment(-3)).await.problem(422, "idempotency_key_reused");
    // Keys belong to a user.
    let stranger = Shop::shared().client(&unique("seller"), ALL_SCOPES);
    stranger.post(adjustments(&product), &adjustment(-3)).header("idempotency-key", &key).await.ok(201);
    assert_eq!(available_quantity(&seller, &product).await, 4);

    let key = unique("key");
    let post = |delta| seller.post(adjustments(&product), &adjustment(delta)).header("idempotency-key", &key);
    post(-5).await.problem(409, "insufficient_stock");
    seller.post(adjustments(&product), &adjustment(100)).await.ok(201);
    let again = post(-5).await;
    again.problem(409, "insufficient_stock");
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(available_quantity(&seller, &product).await, 104);
}

#[tokio::test]
async fn concurrent_adjustments_are_exact() {
    let seller = seller();
    let product = create_product(&seller, 26).await;
    let key = unique("key");
    let same = join_all((0..10).map(|_| async {
        let answer = seller.post(adjustments(&product), &adjustment(-1)).header("idempotency-key", &key).await;
        if answer.status == 409 { None } else { Some(id_of(&answer.ok(201))) }
    }));
    let buyers = join_all((0..10).map(|_| async { place_confirmed_order(&seller, &[(&product, 1)]).await }));
    let others = join_all((0..15).map(|_| async { seller.post(adjustments(&product), &adjustment(-1)).await.status.as_u16() }));
    let (same, orders, others) = tokio::join!(same, buyers, others);
    assert_eq!(same.into_iter().flatten().collect::<BTreeSet<_>>().len(), 1);
    let made = i64::try_from(others.iter().filter(|status| **status == 201).count()).unwrap();
    assert!(others.iter().all(|status| [201, 409].contains(status)), "{others:?}");
    let sold = i64::try_from(orders.len()).unwrap();
    assert_eq!(available_quantity(&seller, &product).await, 26 - 1 - made - sold);
    let supply: i64 = changes(&ledger(&seller, &product).await).iter().map(|(_, delta, _)| delta).sum();
    assert_eq!(supply, 26 - 1 - made);
}

#[tokio::test]
async fn ledger_is_paginated() {
    let seller = seller();
    let product = create_product(&seller, 100).await;
    let path = adjustments(&product);
    for delta in 1..=4 {
        seller.post(&path, &adjustment(delta)).await.ok(201);
    }
    let page = seller.get(format!("{path}?limit=2")).await.ok(200);
    let cursor = page["nextCursor"].as_str().unwrap();
    // Later entries do not shift the pages.
    seller.post(&path, &adjustment(50)).await.ok(201);
    let next = seller.get(format!("{path}?limit=2&cursor={cursor}")).await.ok(200);
    let deltas = |page: &Value| changes(page["items"].as_array().unwrap()).iter().map(|(_, delta, _)| *delta).collect::<Vec<_>>();
    assert_eq!((deltas(&page), deltas(&next)), (vec![4, 3], vec![2, 1]));
    let last = seller.get(format!("{path}?cursor={}", next["nextCursor"].as_str().unwrap())).await.ok(200);
    assert_eq!((deltas(&last), &last["nextCursor"]), (vec![100], &Value::Null));

    let other = adjustments(&create_product(&seller, 1).await);
    let flipped = if cursor.starts_with('A') { cursor.replacen('A', "B", 1) } else { format!("A{}", &cursor[1..]) };
    for path in [format!("{other}?cursor={cursor}"), format!("{path}?cursor={flipped}"), format!("/products?cursor={cursor}")] {
        seller.get(path).await.problem(400, "invalid_cursor");
    }
    for query in ["limit=0", "limit=101", "limit=x", "offset=1"] {
        seller.get(format!("{path}?{query}")).await.problem(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn conditions_apply_to_the_collection() {
    let seller = seller();
    let product = create_product(&seller, 5).await;
    let path = adjustments(&product);
    for (name, value) in [("if-match", "\"1\""), ("if-match", ","), ("if-none-match", "*")] {
        seller.post(&path, &adjustment(1)).header(name, value).await.problem(412, "version_mismatch");
    }
    assert_eq!(available_quantity(&seller, &product).await, 5);
    seller.post(&path, &adjustment(1)).header("if-match", "*").header("if-none-match", "\"1\"").await.ok(201);
    seller.get(&path).header("if-none-match", "*").await.empty(304);
    seller.get(&path).header("if-match", "\"1\"").await.problem(412, "version_mismatch");
    let writer = Shop::shared().client("writer", "products:write");
    writer.post(&path, &adjustment(1)).header("if-match", "\"1\"").await.problem(412, "version_mismatch");
}

#[tokio::test]
async fn inactive_product_can_be_adjusted() {
    let seller = seller();
    let body = with_changes(product_body(1), &json!({ "isActive": false }));
    let product = id_of(&seller.post("/products", &body).await.ok(201));
    assert_eq!(seller.post(adjustments(&product), &adjustment(4)).await.ok(201)["quantityAfter"], 5);
}
