//! A completed order: its units leave the stock for good, and its products can be deleted.

use palisade_tests::{
    Client, Shop, eventually,
    shop::ALL_SCOPES,
    shop_helpers::{available_quantity, create_product, id_of, place_confirmed_order, set_status},
    unique,
};
use serde_json::json;

/// Returns the stock totals of products.
async fn invariants(shop: &Shop, service: &str) -> serde_json::Value {
    Client::new(shop.admin_url(service), None).get("/invariants").attempt().await.unwrap().ok(200)
}

#[tokio::test]
async fn product_of_completed_orders_can_be_deleted() {
    let shop = Shop::all_in_one();
    let seller = shop.client(&unique("admin"), ALL_SCOPES);
    let product = create_product(&seller, 10).await;
    let path = format!("/products/{product}");
    let (first, second) = (place_confirmed_order(&seller, &[(&product, 3)]).await, place_confirmed_order(&seller, &[(&product, 2)]).await);
    seller.delete(&path).await.problem(409, "product_in_use");
    set_status(&seller, &id_of(&first), "COMPLETED").await.ok(200);
    eventually(async || (invariants(&shop, "products").await["confirmedUnits"] == 2).then_some(())).await;
    assert_eq!(available_quantity(&seller, &product).await, 5, "what is delivered cannot be sold again");
    seller.delete(&path).await.problem(409, "product_in_use");
    set_status(&seller, &id_of(&second), "COMPLETED").await.ok(200);
    // A repeated request queues nothing further.
    set_status(&seller, &id_of(&second), "COMPLETED").await.ok(200);
    eventually(async || (seller.delete(&path).await.status == 204).then_some(())).await;
    for service in ["products", "orders"] {
        let report = invariants(&shop, service).await;
        assert_eq!(report["ok"], json!(true), "{service}: {report}");
    }
    let products = invariants(&shop, "products").await;
    assert_eq!((&products["heldUnits"], &products["confirmedUnits"]), (&json!(0), &json!(0)));
}

#[tokio::test]
async fn fulfilment_survives_an_outage_of_products() {
    let shop = Shop::separate_with(None, None, |_, command| {
        command.env("PALISADE_SERVER__FAULT_INJECTION__ENABLED", "true");
    });
    let seller = shop.client(&unique("admin"), ALL_SCOPES);
    let product = create_product(&seller, 10).await;
    let order = id_of(&place_confirmed_order(&seller, &[(&product, 3)]).await);
    let faults = Client::new(shop.admin_url("products"), None);
    let rule = json!({ "name": "fulfil", "method": "palisade.products.v1.ProductsService/FulfilReservation", "rate": 1.0, "kind": { "error": "not_ready" } });
    assert_eq!(faults.put("/faults", &json!({ "rules": [rule] })).attempt().await.unwrap().status, 200);
    set_status(&seller, &order, "COMPLETED").await.ok(200);
    let stuck = Client::new(shop.admin_url("orders"), None);
    eventually(async || {
        let listed = stuck.get("/saga/stuck").attempt().await.unwrap().ok(200);
        // Listed after five attempts.
        listed["items"].as_array().unwrap().iter().any(|item| item["orderId"] == order.as_str()).then_some(())
    })
    .await;
    seller.delete(format!("/products/{product}")).await.problem(409, "product_in_use");
    assert_eq!(faults.put("/faults", &json!({ "rules": [] })).attempt().await.unwrap().status, 200);
    assert_eq!(stuck.post(format!("/saga/retry/{order}"), &json!({})).attempt().await.unwrap().status, 202);
    eventually(async || (seller.delete(format!("/products/{product}")).await.status == 204).then_some(())).await;
}
