//! Revision of the items of a confirmed order (`PUT /orders/{id}`).

use palisade_tests::{
    Client, Shop,
    client::Request,
    eventually,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{
        accepted_id, available_quantity, create_product, id_of, order_body, order_request, place_confirmed_order, set_status,
        wait_until_settled, with_changes,
    },
    unique,
};
use serde_json::{Value, json};

fn revise(buyer: &Client, order: &str, lines: &[(&str, i64)]) -> Request {
    buyer.put(format!("/orders/{order}"), &order_body(lines))
}

/// Products and quantities of the items.
fn quantities<'a>(items: &'a Value) -> Vec<(&'a str, i64)> {
    let item = |item: &'a Value| (item["productId"].as_str().unwrap(), item["quantity"].as_i64().unwrap());
    items.as_array().unwrap().iter().map(item).collect()
}

#[tokio::test]
async fn difference_is_held_and_given_back() {
    let shop = Shop::all_in_one();
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client(&unique("buyer"), CUSTOMER));
    let [kept, more, gone, new] = [
        create_product(&seller, 10).await,
        create_product(&seller, 10).await,
        create_product(&seller, 10).await,
        create_product(&seller, 10).await,
    ];
    let order = place_confirmed_order(&buyer, &[(&kept, 2), (&more, 1), (&gone, 4)]).await;
    let id = id_of(&order);
    for product in [&kept, &more] {
        let path = format!("/products/{product}");
        let current = seller.get(&path).await.ok(200);
        let writable = ["name", "description", "quantity", "category", "isActive"].map(|field| (field.to_owned(), current[field].clone()));
        let body = with_changes(Value::Object(writable.into_iter().collect()), &json!({ "price": 30.0 }));
        seller.put(&path, &body).await.ok(200);
    }
    let before = buyer.get(format!("/orders/{id}")).await;
    let tag = before.header("etag").unwrap().to_owned();

    let lines = [(kept.as_str(), 2), (more.as_str(), 3), (new.as_str(), 5)];
    let answer = revise(&buyer, &id, &lines).header("if-match", &tag).await;
    let revised = answer.ok(200);
    assert_eq!(quantities(&revised["items"]), lines);
    let prices: Vec<f64> = revised["items"].as_array().unwrap().iter().map(|item| item["unitPrice"].as_f64().unwrap()).collect();
    assert_eq!(prices, [19.99, 30.0, 19.99], "an unchanged line keeps its price");
    assert_eq!(revised["total"].to_string(), "229.93");
    assert_eq!((revised["status"].as_str(), revised.get("revision")), (Some("CONFIRMED"), None));
    assert_ne!(answer.header("etag"), Some(tag.as_str()));
    assert_eq!(buyer.get(format!("/orders/{id}")).await.ok(200), revised);
    for (product, available) in [(&kept, 8), (&more, 7), (&gone, 10), (&new, 5)] {
        assert_eq!(available_quantity(&seller, product).await, available);
    }

    // A repetition changes nothing, with the tag of before too.
    for conditions in [None, Some(&tag)] {
        let again = revise(&buyer, &id, &lines);
        let again = if let Some(tag) = conditions { again.header("if-match", tag) } else { again };
        assert_eq!(again.await.ok(200), revised);
    }
    revise(&buyer, &id, &[(&new, 1)]).header("if-match", &tag).await.problem(412, "version_mismatch");
    assert_eq!(available_quantity(&seller, &new).await, 5);

    // Items of the same product are merged. The cancellation gives everything back.
    let merged = revise(&buyer, &id, &[(&new, 1), (&new, 2)]).await.ok(200);
    assert_eq!(quantities(&merged["items"]), [(new.as_str(), 3)]);
    set_status(&buyer, &id, "CANCELLED").await.ok(200);
    for product in [&kept, &more, &gone, &new] {
        palisade_tests::shop_helpers::wait_for_quantity(&seller, product, 10).await;
    }
    for service in ["products", "orders"] {
        shop.invariants(service).await;
    }
}

#[tokio::test]
async fn refused_revision_leaves_the_order_as_it_was() {
    let shop = Shop::all_in_one();
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client(&unique("buyer"), CUSTOMER));
    let (first, second) = (create_product(&seller, 5).await, create_product(&seller, 5).await);
    let order = place_confirmed_order(&buyer, &[(&first, 3)]).await;
    let id = id_of(&order);
    let missing = uuid::Uuid::now_v7().to_string();
    let inactive = create_product(&seller, 5).await;
    let path = format!("/products/{inactive}");
    let body = json!({ "name": "off", "price": 1, "quantity": 5, "category": "c", "isActive": false });
    seller.put(&path, &body).await.ok(200);
    revise(&buyer, &id, &[(&first, 1), (&second, 6)]).await.problem(409, "insufficient_stock");
    revise(&buyer, &id, &[(&first, 1), (&missing, 1)]).await.problem(422, "unknown_product");
    revise(&buyer, &id, &[(&inactive, 1)]).await.problem(422, "product_inactive");
    assert_eq!(buyer.get(format!("/orders/{id}")).await.ok(200), order);
    assert_eq!((available_quantity(&seller, &first).await, available_quantity(&seller, &second).await), (2, 5));
    // All units of the order and the rest: what it has counts.
    revise(&buyer, &id, &[(&first, 5)]).await.ok(200);
    for service in ["products", "orders"] {
        shop.invariants(service).await;
    }
}

#[tokio::test]
async fn only_a_confirmed_order_of_the_caller_is_revised() {
    let shop = Shop::all_in_one();
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client(&unique("buyer"), CUSTOMER));
    let product = create_product(&seller, 10).await;
    let id = id_of(&place_confirmed_order(&buyer, &[(&product, 1)]).await);
    let stranger = shop.client(&unique("stranger"), CUSTOMER);
    let body = revise(&stranger, &id, &[(&product, 2)]).await.problem(404, "not_found");
    let missing = uuid::Uuid::now_v7().to_string();
    let other = revise(&stranger, &missing, &[(&product, 2)]).await.problem(404, "not_found");
    assert_eq!(body["detail"], other["detail"]);
    revise(&shop.client("reader", "orders:read"), &id, &[(&product, 2)]).await.problem(403, "insufficient_scope");
    revise(&shop.client(&unique("admin"), "orders:admin"), &id, &[(&product, 2)]).await.ok(200);

    for (body, code) in [
        (json!({}), "validation_failed"),
        (json!({ "items": [] }), "validation_failed"),
        (json!({ "items": [{ "productId": product, "quantity": 0 }] }), "validation_failed"),
        (json!({ "items": [{ "productId": "x", "quantity": 1 }] }), "validation_failed"),
        (json!({ "items": [{ "productId": product, "quantity": 1, "price": 1 }] }), "invalid_body"),
        (json!({ "items": [{ "productId": product, "quantity": 1 }], "status": "COMPLETED" }), "invalid_body"),
    ] {
        buyer.put(format!("/orders/{id}"), &body).await.problem(400, code);
    }
    buyer.put("/orders/nonsense", &order_body(&[(&product, 1)])).await.any_problem(400);

    set_status(&buyer, &id, "CANCELLED").await.ok(200);
    let illegal = revise(&buyer, &id, &[(&product, 3)]).await.problem(409, "illegal_transition");
    assert_eq!(illegal["allowed"], json!([]));
    let failed = order_request(&buyer, &[(&product, 99)]).await.problem(409, "insufficient_stock");
    revise(&buyer, failed["orderId"].as_str().unwrap(), &[(&product, 1)]).await.problem(409, "illegal_transition");
}

/// Lets calls of a method of products fail from now on, or succeed again.
async fn break_products(shop: &Shop, is_broken: bool) {
    let faults = Client::new(shop.admin_url("products"), None);
    let method = "palisade.products.v1.ProductsService/ReviseReservation";
    let rules =
        if is_broken { json!([{ "name": "revise", "method": method, "rate": 1.0, "kind": { "error": "not_ready" } }]) } else { json!([]) };
    assert_eq!(faults.put("/faults", &json!({ "rules": rules })).attempt().await.unwrap().status, 200);
}

#[tokio::test]
async fn pending_revision_is_shown_and_ended_by_a_worker() {
    let shop = Shop::separate_with(None, None, |_, command| {
        command.env("PALISADE_SERVER__FAULT_INJECTION__ENABLED", "true");
    });
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client(&unique("buyer"), CUSTOMER));
    let product = create_product(&seller, 10).await;
    let [id, cancelled] =
        [id_of(&place_confirmed_order(&buyer, &[(&product, 1)]).await), id_of(&place_confirmed_order(&buyer, &[(&product, 1)]).await)];
    break_products(&shop, true).await;
    for order in [&id, &cancelled] {
        let answer = revise(&buyer, order, &[(&product, 3)]).await;
        let pending = answer.ok(202);
        assert_eq!((answer.header("location"), answer.header("retry-after")), (Some(format!("/orders/{order}").as_str()), Some("1")));
        assert_eq!(accepted_id(&answer), *order);
        assert_eq!(
            (quantities(&pending["items"]), quantities(&pending["revision"]["items"])),
            (vec![(product.as_str(), 1)], vec![(product.as_str(), 3)])
        );
        let shown = buyer.get(format!("/orders/{order}")).await;
        assert_eq!(shown.ok(200)["revision"], pending["revision"]);
        assert_eq!(shown.header("etag"), answer.header("etag"));
    }
    assert_eq!(revise(&buyer, &id, &[(&product, 3)]).await.status, 202, "the same revision");
    let busy = revise(&buyer, &id, &[(&product, 4)]).await;
    busy.problem(409, "revision_in_progress");
    assert_eq!(busy.header("retry-after"), Some("1"));
    let illegal = set_status(&shop.client("boss", "orders:admin"), &id, "COMPLETED").await.problem(409, "illegal_transition");
    assert_eq!(illegal["allowed"], json!(["CANCELLED"]));
    let order = set_status(&buyer, &cancelled, "CANCELLED").await.ok(200);
    assert_eq!((order["status"].as_str(), order.get("revision")), (Some("CANCELLED"), None));

    break_products(&shop, false).await;
    let tools = Client::new(shop.admin_url("orders"), None);
    tools.post(format!("/saga/retry/{id}"), &json!({})).attempt().await.unwrap();
    let revised = wait_until_settled(&buyer, &id).await;
    assert_eq!((quantities(&revised["items"]), revised.get("revision")), (vec![(product.as_str(), 3)], None));
    eventually(async || (available_quantity(&seller, &product).await == 7).then_some(())).await;
    for service in ["products", "orders"] {
        shop.invariants(service).await;
    }
}
