//! What every test of the shop does: put something on the shelf, order it, wait until the order is settled.

use serde_json::{Value, json};

use crate::{
    client::{Answer, Client, Request},
    eventually, unique,
};

/// A good product body; the name is nobody else's.
pub fn product(quantity: i64) -> Value {
    json!({
        "name": unique("Lamp"),
        "description": "A lamp.",
        "price": 19.99,
        "quantity": quantity,
        "category": "lighting",
        "isActive": true,
    })
}

/// The same body with some members set, or removed where the value is null.
pub fn with(mut body: Value, changes: &Value) -> Value {
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

/// Creates a product with this many units and gives its id.
pub async fn create_product(seller: &Client, quantity: i64) -> String {
    id_of(&seller.post("/products", &product(quantity)).await.ok(201))
}

/// How many units of a product can still be sold.
pub async fn available_quantity(client: &Client, product: &str) -> i64 {
    client.get(format!("/products/{product}")).await.ok(200)["quantity"].as_i64().expect("quantity is an integer")
}

/// A good order body.
pub fn order_body(lines: &[(&str, i64)]) -> Value {
    let lines: Vec<_> = lines.iter().map(|(product, quantity)| json!({ "productId": product, "quantity": quantity })).collect();
    json!({ "items": lines })
}

/// A request that orders.
pub fn order(buyer: &Client, lines: &[(&str, i64)]) -> Request {
    buyer.post("/orders", &order_body(lines))
}

/// Orders, and gives the order once the saga is through with it: a slow machine may answer 202 first.
#[track_caller]
pub fn confirmed(buyer: &Client, lines: &[(&str, i64)]) -> impl Future<Output = Value> {
    let (buyer, request) = (buyer.clone(), order(buyer, lines));
    async move {
        let order = settled(&buyer, &accepted(&request.await)).await;
        assert_eq!(order["status"], "CONFIRMED", "{order}");
        order
    }
}

/// The id of an order that was accepted, be it confirmed (201) or on its way (202).
#[track_caller]
pub fn accepted(answer: &Answer) -> String {
    let status = if answer.status == 202 { 202 } else { 201 };
    id_of(&answer.ok(status))
}

/// The order, once it is neither PENDING nor `PRODUCT_RESERVED`.
pub async fn settled(buyer: &Client, order: &str) -> Value {
    eventually(async || {
        let order = buyer.get(format!("/orders/{order}")).attempt().await.ok().filter(|answer| answer.status == 200)?.json();
        is_settled(&order).then_some(order)
    })
    .await
}

/// Whether the saga is through with it.
pub fn is_settled(order: &Value) -> bool {
    order["status"] != "PENDING" && order["status"] != "PRODUCT_RESERVED"
}

/// Asks for another status.
pub fn set_status(client: &Client, order: &str, status: &str) -> Request {
    client.put(format!("/orders/{order}/status"), &json!({ "status": status }))
}

/// Every item of a list, page after page.
pub async fn all(client: &Client, path: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client.get(format!("{path}{cursor}")).await.ok(200);
        items.extend(page["items"].as_array().expect("items is an array").iter().cloned());
        let Some(next) = page["nextCursor"].as_str() else { return items };
        cursor = format!("{}cursor={next}", if path.contains('?') { "&" } else { "?" });
    }
}

/// The `id` member.
#[track_caller]
pub fn id_of(thing: &Value) -> String {
    thing["id"].as_str().unwrap_or_else(|| panic!("no id in {thing}")).to_owned()
}

/// Waits until so many units of a product can be sold: what a cancelled order gives back comes a moment later.
pub async fn eventually_left(client: &Client, product: &str, quantity: i64) {
    eventually(async || (available_quantity(client, product).await == quantity).then_some(())).await;
}
