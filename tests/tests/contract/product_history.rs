//! History of a product: who changed its catalogue fields, when, from what to what.

use palisade_proto::products::v1::{FindHistoryRequest, PatchProductRequest, ProductPatch, products_service_client::ProductsServiceClient};
use palisade_tests::{
    Client, Shop,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{create_product, id_of, place_confirmed_order, product_body, with_changes},
    unique,
};
use reqwest::Method;
use serde_json::{Value, json};
use tonic::{Code, Request};

fn path(product: &str) -> String {
    format!("/products/{product}/history")
}

async fn history(client: &Client, product: &str) -> Vec<Value> {
    let history = client.get(path(product)).await.ok(200);
    history["items"].as_array().unwrap().clone()
}

/// Returns version, actor and changes of each entry.
fn summary(history: &[Value]) -> Vec<Value> {
    history.iter().map(|entry| json!([entry["version"], entry["actor"], entry["changes"]])).collect()
}

#[tokio::test]
async fn history_has_actor_time_and_values() {
    let shop = Shop::shared();
    let (alice_name, bob_name) = (unique("alice"), unique("bob"));
    let (alice, bob) = (shop.client(&alice_name, ALL_SCOPES), shop.client(&bob_name, ALL_SCOPES));
    let lamp = json!({ "name": "Lamp", "description": "warm", "price": 24.5, "quantity": 10, "category": "lighting" });
    let created = alice.post("/products", &lamp).await.ok(201);
    let id = id_of(&created);
    let product = format!("/products/{id}");
    let changed = with_changes(lamp.clone(), &json!({ "name": "Lantern", "price": 19.99, "isActive": false, "quantity": 7 }));
    let updated = bob.put(&product, &changed).await.ok(200);
    // A repetition changes nothing, and the stock is in the ledger.
    bob.put(&product, &changed).await.ok(200);
    alice.request(Method::PATCH, &product).json(r#"{"quantity": 8}"#).await.ok(200);
    let patched = alice.request(Method::PATCH, &product).json(r#"{"description": null, "category": "garden"}"#).await.ok(200);

    let listed = history(&alice, &id).await;
    let creation = json!({
        "name": { "from": null, "to": "Lamp" }, "description": true, "price": { "from": null, "to": 24.5 },
        "category": { "from": null, "to": "lighting" }, "isActive": { "from": null, "to": true },
    });
    let update = json!({
        "name": { "from": "Lamp", "to": "Lantern" }, "price": { "from": 24.5, "to": 19.99 }, "isActive": { "from": true, "to": false },
    });
    let patch = json!({ "description": true, "category": { "from": "lighting", "to": "garden" } });
    let expected = [json!([5, alice_name, patch]), json!([2, bob_name, update]), json!([1, alice_name, creation])];
    assert_eq!(summary(&listed), expected);
    let times: Vec<_> = listed.iter().map(|entry| &entry["time"]).collect();
    assert_eq!(times, [&patched["updatedAt"], &updated["updatedAt"], &created["createdAt"]]);
    assert_eq!(history(&bob, &id).await, listed);

    // An order changes the version and the quantity, and no catalogue field.
    bob.request(Method::PATCH, &product).json(r#"{"isActive": true}"#).await.ok(200);
    place_confirmed_order(&shop.client(&unique("buyer"), CUSTOMER), &[(&id, 2)]).await;
    let last = &history(&alice, &id).await[0];
    assert_eq!(summary(std::slice::from_ref(last)), [json!([6, bob_name, { "isActive": { "from": false, "to": true } }])]);
}

#[tokio::test]
async fn history_requires_the_write_scope() {
    let shop = Shop::shared();
    let id = create_product(&shop.client("seller", ALL_SCOPES), 1).await;
    let reader = shop.client("reader", "products:read orders:admin");
    reader.get(path(&id)).await.problem(403, "insufficient_scope");
    shop.anonymous().get(path(&id)).await.problem(401, "unauthenticated");
    let writer = shop.client("writer", "products:write");
    let answer = writer.get(path(&id)).await;
    assert_eq!((answer.ok(200)["items"].as_array().unwrap().len(), answer.header("cache-control")), (1, Some("no-store")));
    writer.get(path(&id)).header("if-none-match", "*").await.empty(304);
}

#[tokio::test]
async fn missing_product_has_no_history() {
    let seller = Shop::shared().client("seller", ALL_SCOPES);
    let id = id_of(&seller.post("/products", &product_body(0)).await.ok(201));
    assert_eq!(history(&seller, &id).await.len(), 1);
    seller.delete(format!("/products/{id}")).await.empty(204);
    seller.get(path(&id)).await.problem(404, "not_found");
    seller.get(path(&uuid::Uuid::now_v7().to_string())).await.problem(404, "not_found");
    seller.get(path("7")).await.problem(400, "invalid_parameter");
}

#[tokio::test]
async fn direct_grpc_call_is_recorded() {
    let shop = Shop::shared();
    let seller = shop.client("seller", ALL_SCOPES);
    let id = create_product(&seller, 1).await;
    let mut client = ProductsServiceClient::new(shop.grpc_channel("products"));
    let carol = unique("carol");
    let bearer = |scopes: &str| format!("Bearer {}", shop.service_token("products", &carol, scopes)).parse().unwrap();
    let patch = ProductPatch { price_minor: Some(7), ..ProductPatch::default() };
    let mut patch = Request::new(PatchProductRequest { id: id.clone(), patch: Some(patch), preconditions: None });
    patch.metadata_mut().insert("authorization", bearer("products:write"));
    client.patch_product(patch).await.unwrap();
    let find = |scopes: &str| {
        let mut find = Request::new(FindHistoryRequest { id: id.clone() });
        find.metadata_mut().insert("authorization", bearer(scopes));
        let mut client = client.clone();
        async move { client.find_history(find).await }
    };
    assert_eq!(find("products:read").await.unwrap_err().code(), Code::PermissionDenied);
    let items = find("products:write").await.unwrap().into_inner().items;
    let last = &items[0];
    assert_eq!((items.len(), last.version, &last.actor, last.price.unwrap().to_minor), (2, 2, &carol, 7));
    assert_eq!(history(&seller, &id).await[0]["actor"], json!(carol));
}
