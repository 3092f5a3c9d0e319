//! Orders: computed fields, validation, and status transitions.

use palisade_tests::{
    Client, Shop,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{
        accepted_id, available_quantity, create_product, id_of, order_body, order_request, place_confirmed_order, product_body, set_status,
        wait_for_quantity, wait_until_settled, with_changes,
    },
    unique,
};
use serde_json::{Value, json};

/// Returns a seller, who is also an admin, and a buyer, both unique to the test.
fn seller_and_buyer() -> (Client, Client) {
    let shop = Shop::shared();
    (shop.client(&unique("admin"), ALL_SCOPES), shop.client(&unique("buyer"), CUSTOMER))
}

#[tokio::test]
async fn order_copies_names_and_prices_and_totals() {
    let (seller, buyer) = seller_and_buyer();
    let goods = seller.post("/products", &with_changes(product_body(10), &json!({ "price": 2.5 }))).await.ok(201);
    let (dear, cheap) = (create_product(&seller, 10).await, id_of(&goods));
    let answer = order_request(&buyer, &[(&dear, 2), (&cheap, 3), (&dear, 1)]).await;
    let id = accepted_id(&answer);
    assert_eq!(answer.header("location"), Some(format!("/orders/{id}").as_str()));
    let order = wait_until_settled(&buyer, &id).await;
    assert_eq!(order["status"], "CONFIRMED");
    assert!(order["failureReason"].is_null());
    assert_eq!(order["total"].as_f64(), Some(67.47));
    let items = order["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "lines of one product must be merged: {order}");
    assert_eq!(items[0]["productId"], dear);
    assert_eq!((&items[0]["quantity"], items[0]["subtotal"].as_f64()), (&json!(3), Some(59.97)));
    assert_eq!((&items[1]["name"], items[1]["unitPrice"].as_f64()), (&goods["name"], Some(2.5)));
    assert_eq!((available_quantity(&seller, &dear).await, available_quantity(&seller, &cheap).await), (7, 7));

    seller.put(format!("/products/{cheap}"), &with_changes(product_body(7), &json!({ "price": 99 }))).await.ok(200);
    assert_eq!(buyer.get(format!("/orders/{id}")).await.ok(200), order, "a price change must not affect existing orders");
}

#[tokio::test]
async fn order_validation_reports_all_violations() {
    let (seller, buyer) = seller_and_buyer();
    let product = create_product(&seller, 1_000_000_000).await;
    let lines: Vec<_> = (0..101).map(|_| (product.as_str(), 1)).collect();
    let cases = [
        (order_body(&[]), vec!["items"]),
        (order_body(&lines), vec!["items"]),
        (
            order_body(&[(&product, 0), (&product, -1), (&product, 1_000_001)]),
            vec!["items[0].quantity", "items[1].quantity", "items[2].quantity"],
        ),
        (order_body(&[("not-a-uuid", 1), ("", 0)]), vec!["items[0].productId", "items[1].productId", "items[1].quantity"]),
    ];
    for (body, fields) in cases {
        assert_eq!(buyer.post("/orders", &body).await.assert_violations(), fields, "{body}");
    }
    let merged_is_too_much = buyer.post("/orders", &order_body(&[(&product, 1_000_000), (&product, 1)])).await.assert_violations();
    assert!(merged_is_too_much.iter().all(|field| field.starts_with("items")), "{merged_is_too_much:?}");
    assert_eq!(available_quantity(&seller, &product).await, 1_000_000_000);
}

#[tokio::test]
async fn server_managed_fields_are_rejected() {
    let (seller, buyer) = seller_and_buyer();
    let product = create_product(&seller, 5).await;
    for change in [json!({ "status": "CONFIRMED" }), json!({ "total": 0.01 }), json!({ "id": "x" }), json!({ "role": "admin" })] {
        buyer.post("/orders", &with_changes(order_body(&[(&product, 1)]), &change)).await.problem(400, "invalid_body");
    }
    let mut priced = order_body(&[(&product, 1)]);
    priced["items"][0]["unitPrice"] = json!(0.01);
    buyer.post("/orders", &priced).await.problem(400, "invalid_body");
    assert_eq!(available_quantity(&seller, &product).await, 5);
}

#[tokio::test]
async fn unsellable_order_fails_and_holds_no_stock() {
    let (seller, buyer) = seller_and_buyer();
    let plenty = create_product(&seller, 10).await;
    let scarce = create_product(&seller, 2).await;
    let inactive = id_of(&seller.post("/products", &with_changes(product_body(5), &json!({ "isActive": false }))).await.ok(201));
    let missing = uuid::Uuid::new_v4().to_string();
    for (bad, status, reason) in
        [(&scarce, 409, "insufficient_stock"), (&missing, 422, "unknown_product"), (&inactive, 422, "product_inactive")]
    {
        let problem = order_request(&buyer, &[(&plenty, 3), (bad, 3)]).await.problem(status, reason);
        let id = problem["orderId"].as_str().unwrap();
        let failed = buyer.get(format!("/orders/{id}")).await.ok(200);
        assert_eq!((&failed["status"], &failed["failureReason"]), (&json!("FAILED"), &json!(reason)));
        assert_eq!(available_quantity(&seller, &plenty).await, 10, "{reason}");

        let refusal = set_status(&buyer, id, "CANCELLED").await.problem(409, "illegal_transition");
        assert_eq!(refusal["allowed"], json!([]));
        buyer.delete(format!("/orders/{id}")).await.empty(204);
        buyer.get(format!("/orders/{id}")).await.problem(404, "not_found");
    }
    assert_eq!(available_quantity(&seller, &scarce).await, 2);
}

#[tokio::test]
async fn owner_cancellation_releases_stock() {
    let (seller, buyer) = seller_and_buyer();
    let product = create_product(&seller, 5).await;
    let id = id_of(&place_confirmed_order(&buyer, &[(&product, 5)]).await);
    order_request(&buyer, &[(&product, 1)]).await.problem(409, "insufficient_stock");
    buyer.delete(format!("/orders/{id}")).await.problem(409, "order_in_progress");
    let cancelled = set_status(&buyer, &id, "CANCELLED").await.ok(200);
    assert_eq!(cancelled["status"], "CANCELLED");
    assert_eq!(set_status(&buyer, &id, "CANCELLED").await.ok(200), cancelled, "repeating a status change must be idempotent");
    wait_for_quantity(&seller, &product, 5).await;
    place_confirmed_order(&buyer, &[(&product, 5)]).await;
    buyer.delete(format!("/orders/{id}")).await.empty(204);
    buyer.delete(format!("/orders/{id}")).await.problem(404, "not_found");
}

#[tokio::test]
async fn only_admin_completes_order_and_it_is_terminal() {
    let (admin, buyer) = seller_and_buyer();
    let product = create_product(&admin, 5).await;
    let id = id_of(&place_confirmed_order(&buyer, &[(&product, 2)]).await);
    set_status(&buyer, &id, "COMPLETED").await.problem(403, "insufficient_scope");
    assert_eq!(set_status(&admin, &id, "COMPLETED").await.ok(200)["status"], "COMPLETED");
    for (who, status) in [(&buyer, "CANCELLED"), (&admin, "CANCELLED"), (&admin, "CONFIRMED"), (&admin, "PENDING")] {
        let refusal = set_status(who, &id, status).await.problem(409, "illegal_transition");
        assert_eq!(refusal["allowed"], json!([]), "{status}");
    }
    assert_eq!(available_quantity(&admin, &product).await, 3, "completed orders must keep their stock");
    buyer.delete(format!("/orders/{id}")).await.empty(204);
}

#[tokio::test]
async fn saga_transitions_are_illegal_for_clients() {
    let (admin, buyer) = seller_and_buyer();
    let product = create_product(&admin, 5).await;
    let id = id_of(&place_confirmed_order(&buyer, &[(&product, 1)]).await);
    let allowed = |problem: &Value| {
        let mut allowed: Vec<_> = problem["allowed"].as_array().unwrap().iter().map(|status| status.as_str().unwrap().to_owned()).collect();
        allowed.sort();
        allowed
    };
    for status in ["PENDING", "PRODUCT_RESERVED", "FAILED"] {
        assert_eq!(allowed(&set_status(&buyer, &id, status).await.problem(409, "illegal_transition")), ["CANCELLED"], "{status}");
        assert_eq!(
            allowed(&set_status(&admin, &id, status).await.problem(409, "illegal_transition")),
            ["CANCELLED", "COMPLETED"],
            "{status}"
        );
    }
    assert_eq!(set_status(&buyer, &id, "CONFIRMED").await.ok(200)["status"], "CONFIRMED");
    for status in ["", "confirmed", "SHIPPED"] {
        set_status(&buyer, &id, status).await.any_problem(400);
    }
    set_status(&buyer, &uuid::Uuid::new_v4().to_string(), "CANCELLED").await.problem(404, "not_found");
}

#[tokio::test]
async fn only_admin_orders_for_other_users() {
    let (admin, buyer) = seller_and_buyer();
    let product = create_product(&admin, 5).await;
    let other = unique("other");
    let body = with_changes(order_body(&[(&product, 1)]), &json!({ "userId": other }));
    buyer.post("/orders", &body).await.problem(403, "insufficient_scope");
    let id = accepted_id(&admin.post("/orders", &body).await);
    let theirs = Shop::shared().client(&other, CUSTOMER).get(format!("/orders/{id}")).await.ok(200);
    assert_eq!(theirs["userId"], other);
}

#[tokio::test]
async fn concurrent_orders_never_oversell() {
    let (seller, buyer) = seller_and_buyer();
    let product = create_product(&seller, 10).await;
    let attempts = (0..50).map(|_| async { order_request(&buyer, &[(&product, 1)]).await });
    let answers = futures_util::future::join_all(attempts).await;
    let mut sold = 0;
    for answer in answers {
        match answer.status.as_u16() {
            409 => drop(answer.problem(409, "insufficient_stock")),
            _ => sold += i64::from(wait_until_settled(&buyer, &accepted_id(&answer)).await["status"] == "CONFIRMED"),
        }
    }
    assert_eq!((sold, available_quantity(&seller, &product).await), (10, 0));
}
