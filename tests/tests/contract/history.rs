//! History of an order: every change with its actor, for its owner and for administrators.

use palisade_proto::orders::v1::{RemoveRequest, UpdateStatusRequest, orders_service_client::OrdersServiceClient};
use palisade_tests::{
    Client, Shop, eventually,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{create_product, id_of, order_body, place_confirmed_order, set_status, wait_until_settled, with_changes},
    unique,
};
use serde_json::{Value, json};
use tonic::Request;

async fn history(client: &Client, order: &str) -> Vec<Value> {
    let history = client.get(format!("/orders/{order}/history")).await.ok(200);
    history["items"].as_array().unwrap().clone()
}

/// Returns version, statuses, reason, and the role, user and service of the actor.
fn summary(entry: &Value) -> Value {
    let actor = &entry["actor"];
    json!([entry["version"], entry["from"], entry["to"], entry["reason"], actor["role"], actor["subject"], actor["service"]])
}

#[tokio::test]
async fn history_has_every_change_and_its_actor() {
    let shop = Shop::shared();
    let (admin_name, alice_name) = (unique("admin"), unique("alice"));
    let (admin, alice) = (shop.client(&admin_name, ALL_SCOPES), shop.client(&alice_name, CUSTOMER));
    let product = create_product(&admin, 10).await;
    let id = id_of(&place_confirmed_order(&alice, &[(&product, 1)]).await);
    set_status(&admin, &id, "COMPLETED").await.ok(200);
    alice.delete(format!("/orders/{id}")).await.empty(204);

    alice.get(format!("/orders/{id}/history")).await.problem(404, "not_found");
    let entries = history(&admin, &id).await;
    let actual: Vec<_> = entries.iter().map(summary).collect();
    assert_eq!(
        actual,
        [
            json!([1, null, "PENDING", null, "owner", alice_name, "gateway"]),
            json!([2, "PENDING", "PRODUCT_RESERVED", null, "saga", null, "orders"]),
            json!([3, "PRODUCT_RESERVED", "CONFIRMED", null, "saga", null, "orders"]),
            json!([4, "CONFIRMED", "COMPLETED", null, "admin", admin_name, "gateway"]),
            json!([4, "COMPLETED", "COMPLETED", "removed", "owner", alice_name, "gateway"]),
        ]
    );
    let times: Vec<_> = entries.iter().map(|entry| entry["time"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[tokio::test]
async fn history_names_the_creator_and_the_reason() {
    let shop = Shop::shared();
    let (admin_name, alice_name) = (unique("admin"), unique("alice"));
    let (admin, alice) = (shop.client(&admin_name, ALL_SCOPES), shop.client(&alice_name, CUSTOMER));
    let product = create_product(&admin, 1).await;
    let body = with_changes(order_body(&[(&product, 2)]), &json!({ "userId": alice_name }));
    admin.post("/orders", &body).await;
    let order = eventually(async || alice.get("/orders").await.ok(200)["items"].get(0).cloned()).await;
    let id = id_of(&wait_until_settled(&alice, &id_of(&order)).await);
    let actual: Vec<_> = history(&alice, &id).await.iter().map(summary).collect();
    assert_eq!(
        actual,
        [
            json!([1, null, "PENDING", null, "admin", admin_name, "gateway"]),
            json!([2, "PENDING", "FAILED", "insufficient_stock", "saga", null, "orders"]),
        ]
    );
}

#[tokio::test]
async fn direct_grpc_call_has_no_calling_service() {
    let shop = Shop::shared();
    let admin = shop.client("admin", ALL_SCOPES);
    let alice_name = unique("alice");
    let alice = shop.client(&alice_name, CUSTOMER);
    let product = create_product(&admin, 10).await;
    let id = id_of(&place_confirmed_order(&alice, &[(&product, 1)]).await);
    let mut client = OrdersServiceClient::new(shop.grpc_channel("orders"));
    let bearer = format!("Bearer {}", shop.service_token("orders", &alice_name, CUSTOMER));
    let cancelled = palisade_proto::orders::v1::OrderStatus::Cancelled.into();
    let mut update = Request::new(UpdateStatusRequest { id: id.clone(), status: cancelled, ..Default::default() });
    update.metadata_mut().insert("authorization", bearer.parse().unwrap());
    client.update_status(update).await.unwrap();
    let mut remove = Request::new(RemoveRequest { id: id.clone(), ..Default::default() });
    remove.metadata_mut().insert("authorization", bearer.parse().unwrap());
    client.remove(remove).await.unwrap();
    let entries = history(&admin, &id).await;
    let last: Vec<_> = entries.iter().rev().take(2).map(summary).collect();
    assert_eq!(
        last,
        [
            json!([4, "CANCELLED", "CANCELLED", "removed", "owner", alice_name, null]),
            json!([4, "CONFIRMED", "CANCELLED", null, "owner", alice_name, null]),
        ]
    );
}
