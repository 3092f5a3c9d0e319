//! Common steps of shop tests: create a product, order it, wait until the order is settled.

use serde_json::{Value, json};

use crate::{
    client::{Client, Request, Response},
    eventually, unique,
};

/// Valid product body with a unique name.
pub fn product_body(quantity: i64) -> Value {
    json!({
        "name": unique("Lamp"),
        "description": "A lamp.",
        "price": 19.99,
        "quantity": quantity,
        "category": "lighting",
        "isActive": true,
    })
}

/// Returns the body with some members replaced, or removed where the value is null.
pub fn with_changes(mut body: Value, changes: &Value) -> Value {
    let members = body.as_object_mut().expect("a body is an object");
    for (name, value) in changes.as_object().expect("changes are an object") {
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    body
}

/// Creates a product with this many units and returns its ID.
pub async fn create_product(seller: &Client, quantity: i64) -> String {
    id_of(&seller.post("/products", &product_body(quantity)).await.ok(201))
}

/// Returns the number of available units of a product.
pub async fn available_quantity(client: &Client, product: &str) -> i64 {
    client.get(format!("/products/{product}")).await.ok(200)["quantity"].as_i64().expect("quantity is an integer")
}

/// Valid order body.
pub fn order_body(lines: &[(&str, i64)]) -> Value {
    let lines: Vec<_> = lines.iter().map(|(product, quantity)| json!({ "productId": product, "quantity": quantity })).collect();
    json!({ "items": lines })
}

/// Creates an order request.
pub fn order_request(buyer: &Client, lines: &[(&str, i64)]) -> Request {
    buyer.post("/orders", &order_body(lines))
}

/// Places an order and returns it once confirmed. A slow machine may respond 202 first.
#[track_caller]
pub fn place_confirmed_order(buyer: &Client, lines: &[(&str, i64)]) -> impl Future<Output = Value> {
    let (buyer, request) = (buyer.clone(), order_request(buyer, lines));
    async move {
        let order = wait_until_settled(&buyer, &accepted_id(&request.await)).await;
        assert_eq!(order["status"], "CONFIRMED", "{order}");
        order
    }
}

/// Asserts that an order was accepted, confirmed (201) or pending (202), and returns its ID.
#[track_caller]
pub fn accepted_id(answer: &Response) -> String {
    let status = if answer.status == 202 { 202 } else { 201 };
    id_of(&answer.ok(status))
}

/// Waits until the order is neither PENDING nor `PRODUCT_RESERVED` and has no pending revision, and
/// returns it.
pub async fn wait_until_settled(buyer: &Client, order: &str) -> Value {
    eventually(async || {
        let order = buyer.get(format!("/orders/{order}")).attempt().await.ok().filter(|answer| answer.status == 200)?.json();
        is_settled(&order).then_some(order)
    })
    .await
}

/// Returns whether the saga has finished the order.
pub fn is_settled(order: &Value) -> bool {
    order["status"] != "PENDING" && order["status"] != "PRODUCT_RESERVED" && order.get("revision").is_none()
}

/// Creates a request to change the status.
pub fn set_status(client: &Client, order: &str, status: &str) -> Request {
    client.put(format!("/orders/{order}/status"), &json!({ "status": status }))
}

/// Returns every item of a paginated list.
pub async fn all_items(client: &Client, path: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client.get(format!("{path}{cursor}")).await.ok(200);
        items.extend(page["items"].as_array().expect("items is an array").iter().cloned());
        let Some(next) = page["nextCursor"].as_str() else { return items };
        cursor = format!("{}cursor={next}", if path.contains('?') { "&" } else { "?" });
    }
}

/// Returns the `id` member.
#[track_caller]
pub fn id_of(value: &Value) -> String {
    value["id"].as_str().unwrap_or_else(|| panic!("no id in {value}")).to_owned()
}

/// Waits until this number of units is available. Cancelled orders release their stock
/// asynchronously.
pub async fn wait_for_quantity(client: &Client, product: &str, quantity: i64) {
    eventually(async || (available_quantity(client, product).await == quantity).then_some(())).await;
}
