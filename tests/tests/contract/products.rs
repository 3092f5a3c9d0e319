//! Products: fields, versions (`ETag`), and prices exact to the cent.

use palisade_tests::{
    Shop,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{
        available_quantity, create_product, id_of, place_confirmed_order, product_body, set_status, wait_for_quantity, with_changes,
    },
    unique,
};
use serde_json::json;

#[tokio::test]
async fn product_crud_works() {
    let seller = Shop::shared().client("seller", ALL_SCOPES);
    let body = product_body(5);
    let created = seller.post("/products", &body).await;
    let product = created.ok(201);
    let path = format!("/products/{}", id_of(&product));
    assert_eq!(created.header("location"), Some(path.as_str()));
    for member in ["name", "description", "price", "quantity", "category", "isActive"] {
        assert_eq!(product[member], body[member], "{member}");
    }
    assert_eq!(product.as_object().unwrap().len(), 10, "{product}");

    let read = seller.get(&path).await;
    assert_eq!(read.ok(200), product);
    assert_eq!(read.header("etag"), created.header("etag"));

    let replacement = with_changes(body, &json!({ "name": unique("Chair"), "isActive": null, "quantity": 0, "price": 0 }));
    let replaced = seller.put(&path, &replacement).await.ok(200);
    assert_eq!(replaced["name"], replacement["name"]);
    assert_eq!((&replaced["isActive"], &replaced["quantity"], &replaced["price"]), (&json!(true), &json!(0), &json!(0)));
    assert_eq!(replaced["createdAt"], product["createdAt"]);
    assert!(replaced["version"].as_i64() > product["version"].as_i64());

    seller.delete(&path).await.empty(204);
    seller.get(&path).await.problem(404, "not_found");
    seller.delete(&path).await.problem(404, "not_found");
    seller.put(&path, &replacement).await.problem(404, "not_found");
}

#[tokio::test]
async fn product_validation_reports_all_violations() {
    let seller = Shop::shared().client("seller", ALL_SCOPES);
    let everything = json!({ "name": "  ", "description": "d".repeat(4_001), "price": -0.01, "quantity": -1, "category": "c".repeat(101) });
    assert_eq!(seller.post("/products", &everything).await.assert_violations(), ["category", "description", "name", "price", "quantity"]);
    assert_eq!(seller.post("/products", &json!({})).await.assert_violations(), ["category", "name", "price", "quantity"]);
    let cases = [
        (json!({ "name": "n".repeat(201) }), "name"),
        (json!({ "name": "nul \u{0}" }), "name"),
        (json!({ "name": "right \u{202e} to left" }), "name"),
        (json!({ "description": "nul \u{0}" }), "description"),
        (json!({ "price": 10_000_000 }), "price"),
        (json!({ "price": 0.001 }), "price"),
        (json!({ "quantity": 1_000_000_001 }), "quantity"),
        (json!({ "category": " \t " }), "category"),
    ];
    let existing = format!("/products/{}", create_product(&seller, 1).await);
    for (change, field) in cases {
        let body = with_changes(product_body(1), &change);
        assert_eq!(seller.post("/products", &body).await.assert_violations(), [field], "{change}");
        assert_eq!(seller.put(&existing, &body).await.assert_violations(), [field], "{change}");
    }
}

#[tokio::test]
async fn maximum_values_are_accepted_and_text_is_unchanged() {
    let seller = Shop::shared().client("seller", ALL_SCOPES);
    for change in [
        json!({ "name": "é".repeat(200), "category": "c".repeat(100), "description": "d".repeat(4_000) }),
        json!({ "name": "  trimmed  ", "description": "", "quantity": 0 }),
        json!({ "name": "<script>alert(1)</script>", "description": "'; DROP TABLE products; -- {\"$ne\": null}\n\t😀" }),
        json!({ "quantity": 1_000_000_000, "isActive": false }),
    ] {
        let created = seller.post("/products", &with_changes(product_body(1), &change)).await.ok(201);
        for (member, value) in change.as_object().unwrap() {
            let expected = value.as_str().map_or(value.clone(), |text| json!(if member == "name" { text.trim() } else { text }));
            assert_eq!(created[member], expected, "{member}");
        }
    }
}

#[tokio::test]
async fn prices_are_exact_to_the_cent() {
    let seller = Shop::shared().client("seller", ALL_SCOPES);
    let buyer = Shop::shared().client(&unique("buyer"), CUSTOMER);
    // Prices are sent and received as text, so that the test itself does not round. Sums are for 3
    // units.
    for (price, sum) in
        [("0.01", "0.03"), ("0.1", "0.3"), ("0.29", "0.87"), ("1.10", "3.3"), ("19.99", "59.97"), ("9999999.99", "29999999.97")]
    {
        let text = product_body(3).to_string().replace("19.99", price);
        let created = seller.request(reqwest::Method::POST, "/products").json(text).await.ok(201);
        assert_eq!(created["price"].as_f64(), price.parse().ok());
        let order = place_confirmed_order(&buyer, &[(&id_of(&created), 3)]).await;
        let sum: serde_json::Value = serde_json::from_str(sum).unwrap();
        assert_eq!((order["total"].as_f64(), order["items"][0]["subtotal"].as_f64()), (sum.as_f64(), sum.as_f64()), "{price}");
    }
}

#[tokio::test]
async fn server_managed_fields_are_rejected() {
    let seller = Shop::shared().client("seller", ALL_SCOPES);
    let existing = format!("/products/{}", create_product(&seller, 1).await);
    for change in [
        json!({ "id": "0199aaaa-0000-7000-8000-000000000000" }),
        json!({ "version": 7 }),
        json!({ "createdAt": "2020-01-01T00:00:00Z" }),
        json!({ "taken": 0 }),
        json!({ "__proto__": {} }),
    ] {
        seller.post("/products", &with_changes(product_body(1), &change)).await.problem(400, "invalid_body");
        seller.put(&existing, &with_changes(product_body(1), &change)).await.problem(400, "invalid_body");
    }
}

#[tokio::test]
async fn stale_if_match_is_rejected() {
    let seller = Shop::shared().client("seller", ALL_SCOPES);
    let created = seller.post("/products", &product_body(3)).await;
    let path = format!("/products/{}", id_of(&created.ok(201)));
    let first = created.header("etag").unwrap().to_owned();

    let updated = seller.put(&path, &product_body(4)).header("if-match", &first).await;
    updated.ok(200);
    let second = seller.get(&path).await.header("etag").unwrap().to_owned();
    assert_ne!(first, second);
    for stale in [first.as_str(), "\"nonsense\"", &format!("W/{second}")] {
        seller.put(&path, &product_body(5)).header("if-match", stale).await.problem(412, "version_mismatch");
        seller.delete(&path).header("if-match", stale).await.problem(412, "version_mismatch");
    }
    seller.put(&path, &product_body(5)).header("if-match", "*").await.ok(200);
    let third = seller.get(&path).await.header("etag").unwrap().to_owned();
    seller.delete(&path).header("if-match", third).await.empty(204);
}

#[tokio::test]
async fn matching_if_none_match_returns_304() {
    let seller = Shop::shared().client("seller", ALL_SCOPES);
    let path = format!("/products/{}", create_product(&seller, 3).await);
    let tag = seller.get(&path).await.header("etag").unwrap().to_owned();
    for matching in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".into()] {
        let answer = seller.get(&path).header("if-none-match", &matching).await;
        answer.empty(304);
        assert_eq!(answer.header("etag"), Some(tag.as_str()), "{matching}");
    }
    seller.get(&path).header("if-none-match", "\"other\"").await.ok(200);
}

#[tokio::test]
async fn sale_changes_quantity_version_and_etag() {
    let seller = Shop::shared().client("seller", ALL_SCOPES);
    let buyer = Shop::shared().client(&unique("buyer"), CUSTOMER);
    let product = create_product(&seller, 10).await;
    let path = format!("/products/{product}");
    let before = seller.get(&path).await;
    let order = place_confirmed_order(&buyer, &[(&product, 3)]).await;
    let after = seller.get(&path).await;
    assert_eq!(after.ok(200)["quantity"], 7);
    assert!(after.json()["version"].as_i64() > before.json()["version"].as_i64());
    assert_ne!(before.header("etag"), after.header("etag"));

    seller.delete(&path).await.problem(409, "product_in_use");
    set_status(&buyer, &id_of(&order), "CANCELLED").await.ok(200);
    wait_for_quantity(&seller, &product, 10).await;
    seller.delete(&path).await.empty(204);
}

#[tokio::test]
async fn setting_quantity_does_not_affect_holds() {
    let seller = Shop::shared().client("seller", ALL_SCOPES);
    let buyer = Shop::shared().client(&unique("buyer"), CUSTOMER);
    let product_id = create_product(&seller, 10).await;
    let order = place_confirmed_order(&buyer, &[(&product_id, 4)]).await;
    seller.put(format!("/products/{product_id}"), &product_body(100)).await.ok(200);
    assert_eq!(available_quantity(&seller, &product_id).await, 100);
    set_status(&buyer, &id_of(&order), "CANCELLED").await.ok(200);
    wait_for_quantity(&seller, &product_id, 104).await;
}
