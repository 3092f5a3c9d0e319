//! Maximum total of an order: it fails if the prices at the reservation exceed it.

use palisade_tests::{
    Client, Shop,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{accepted_id, available_quantity, create_product, order_body, product_body, wait_until_settled, with_changes},
    unique,
};
use serde_json::{Value, json};

/// Order of two units at 19.99.
fn body(product: &str, max_total: &Value) -> Value {
    with_changes(order_body(&[(product, 2)]), &json!({ "maxTotal": max_total }))
}

fn clients() -> (Client, Client) {
    let shop = Shop::shared();
    (shop.client("admin", ALL_SCOPES), shop.client(&unique("alice"), CUSTOMER))
}

#[tokio::test]
async fn order_above_its_maximum_total_fails() {
    let (admin, alice) = clients();
    let product = create_product(&admin, 10).await;
    let problem = alice.post("/orders", &body(&product, &json!(39.97))).await.problem(409, "price_changed");
    let id = problem["orderId"].as_str().unwrap();
    let order = alice.get(format!("/orders/{id}")).await.ok(200);
    assert_eq!((&order["status"], &order["failureReason"], &order["total"]), (&json!("FAILED"), &json!("price_changed"), &Value::Null));
    assert_eq!(available_quantity(&admin, &product).await, 10);

    for max_total in [json!(39.98), json!(9_999_999_999.99)] {
        let id = accepted_id(&alice.post("/orders", &body(&product, &max_total)).await);
        let order = wait_until_settled(&alice, &id).await;
        assert_eq!((&order["status"], &order["total"]), (&json!("CONFIRMED"), &json!(39.98)), "{max_total}");
        assert_eq!(order.get("maxTotal"), None);
    }
    let change = with_changes(product_body(6), &json!({ "price": 20.0 }));
    admin.put(format!("/products/{product}"), &change).await.ok(200);
    alice.post("/orders", &body(&product, &json!(39.98))).await.problem(409, "price_changed");
    assert_eq!(available_quantity(&admin, &product).await, 6);
}

#[tokio::test]
async fn free_order_is_within_a_maximum_of_zero() {
    let (admin, alice) = clients();
    let free = with_changes(product_body(5), &json!({ "price": 0 }));
    let product = palisade_tests::shop_helpers::id_of(&admin.post("/products", &free).await.ok(201));
    let id = accepted_id(&alice.post("/orders", &body(&product, &json!(0))).await);
    assert_eq!(wait_until_settled(&alice, &id).await["status"], "CONFIRMED");
}

#[tokio::test]
async fn maximum_total_is_part_of_the_idempotency_key() {
    let (admin, alice) = clients();
    let product = create_product(&admin, 10).await;
    let key = unique("key");
    let send = |max_total: Value| alice.post("/orders", &body(&product, &max_total)).header("idempotency-key", &key);
    let first = send(json!(1)).await.problem(409, "price_changed");
    let again = send(json!(1.00)).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.problem(409, "price_changed")["orderId"], first["orderId"]);
    send(json!(2)).await.problem(422, "idempotency_key_reused");
    send(Value::Null).await.problem(422, "idempotency_key_reused");
}

#[tokio::test]
async fn invalid_maximum_total_is_rejected() {
    let (admin, alice) = clients();
    let product = create_product(&admin, 10).await;
    for max_total in ["-0.01", "0.001", "10000000000", "1e2", "99999999999999999999"] {
        let text = body(&product, &Value::Null).to_string().replace("]}", &format!("],\"maxTotal\":{max_total}}}"));
        let request = alice.request(reqwest::Method::POST, "/orders").json(text);
        assert_eq!(request.await.assert_violations(), ["maxTotal"], "{max_total}");
    }
    // All violations at once.
    let request = alice.request(reqwest::Method::POST, "/orders").json(r#"{"items":[],"maxTotal":-1}"#);
    let mut violations = request.await.assert_violations();
    violations.sort();
    assert_eq!(violations, ["items", "maxTotal"]);
    assert_eq!(available_quantity(&admin, &product).await, 10);
}
