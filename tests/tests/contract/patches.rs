//! `PATCH /products/{id}`: JSON merge patch (RFC 7396), and conditions that sales do not fail.

use palisade_tests::{
    Client, Shop,
    client::Request,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{available_quantity, create_product, id_of, place_confirmed_order, product_body, set_status, wait_for_quantity},
    unique,
};
use reqwest::Method;
use serde_json::{Value, json};

fn seller() -> Client {
    Shop::shared().client("seller", ALL_SCOPES)
}

fn patch(client: &Client, path: &str, body: &Value) -> Request {
    client.request(Method::PATCH, path).header("content-type", "application/merge-patch+json").body(body.to_string())
}

#[tokio::test]
async fn patch_changes_only_the_given_fields() {
    let seller = seller();
    let created = seller.post("/products", &product_body(5)).await.ok(201);
    let path = format!("/products/{}", id_of(&created));
    for change in [
        json!({ "name": unique("Chair") }),
        json!({ "description": "<b>new</b>" }),
        json!({ "price": 0.29 }),
        json!({ "quantity": 7 }),
        json!({ "category": "chairs" }),
        json!({ "isActive": false }),
        json!({ "name": "Table", "price": 12.5, "isActive": true }),
    ] {
        let before = seller.get(&path).await.ok(200);
        let answer = patch(&seller, &path, &change).await;
        let after = answer.ok(200);
        for member in ["name", "description", "price", "quantity", "category", "isActive", "id", "createdAt"] {
            let expected = change.get(member).unwrap_or(&before[member]);
            assert_eq!(&after[member], expected, "{member} after {change}");
        }
        assert!(after["version"].as_i64() > before["version"].as_i64());
        assert_eq!(answer.header("etag"), Some(format!("\"{}\"", after["version"]).as_str()));
        assert_eq!(seller.get(&path).await.ok(200), after);
    }
    assert_eq!(patch(&seller, &path, &json!({ "description": null })).await.ok(200)["description"], "");
    let trimmed = patch(&seller, &path, &json!({ "name": "  Desk " })).await.ok(200);
    assert_eq!(trimmed["name"], "Desk");
    patch(&seller, &format!("/products/{}", uuid::Uuid::now_v7()), &json!({})).await.problem(404, "not_found");
}

#[tokio::test]
async fn empty_patch_changes_nothing() {
    let seller = seller();
    let path = format!("/products/{}", create_product(&seller, 5).await);
    let before = seller.get(&path).await;
    let answer = patch(&seller, &path, &json!({})).await;
    assert_eq!((answer.ok(200), answer.header("etag")), (before.json(), before.header("etag")));
    assert_eq!(seller.get(&path).await.json(), before.json());
    patch(&seller, &path, &json!({})).header("if-match", "\"0\"").await.problem(412, "version_mismatch");
}

#[tokio::test]
async fn patch_validation_reports_all_violations() {
    let seller = seller();
    let path = format!("/products/{}", create_product(&seller, 5).await);
    let everything = json!({ "name": " ", "description": "d".repeat(4_001), "price": 1.005, "quantity": -1, "category": "c".repeat(101) });
    let fields = ["category", "description", "name", "price", "quantity"];
    assert_eq!(patch(&seller, &path, &everything).await.assert_violations(), fields);
    let nulls = json!({ "name": null, "price": null, "quantity": null, "category": null, "isActive": null, "description": "\u{0}" });
    let fields = ["category", "description", "isActive", "name", "price", "quantity"];
    assert_eq!(patch(&seller, &path, &nulls).await.assert_violations(), fields);
    assert_eq!(patch(&seller, &path, &json!({ "isActive": null, "name": "fine" })).await.assert_violations(), ["isActive"]);
    for body in [
        json!({ "id": "0199aaaa-0000-7000-8000-000000000000" }),
        json!({ "version": 7 }),
        json!({ "taken": null }),
        json!({ "name": ["a"] }),
        json!({ "isActive": "false" }),
        json!({ "quantity": 1.5 }),
        json!({ "price": "1" }),
        json!([{ "op": "replace", "path": "/name", "value": "a" }]),
        Value::Null,
    ] {
        patch(&seller, &path, &body).await.problem(400, "invalid_body");
    }
    assert_eq!(seller.get(&path).await.ok(200)["version"], 1);
}

#[tokio::test]
async fn patch_accepts_two_media_types() {
    let seller = seller();
    let path = format!("/products/{}", create_product(&seller, 5).await);
    for kind in ["application/merge-patch+json", "application/json", "application/merge-patch+json; charset=utf-8"] {
        seller.request(Method::PATCH, &path).header("content-type", kind).body(r#"{"price": 1}"#).await.ok(200);
    }
    for kind in ["application/json-patch+json", "text/plain", "application/merge-patch+json; charset=utf-16"] {
        let answer = seller.request(Method::PATCH, &path).header("content-type", kind).body(r#"{"price": 1}"#).await;
        answer.problem(415, "unsupported_media_type");
        assert!(answer.header("accept-patch").unwrap().contains("application/merge-patch+json"));
    }
    seller.request(Method::PATCH, &path).body(r#"{"price": 1}"#).await.problem(415, "unsupported_media_type");
}

#[tokio::test]
async fn editing_a_description_does_not_fight_sales() {
    let shop = Shop::shared();
    let seller = seller();
    let buyer = shop.client(&unique("buyer"), CUSTOMER);
    let product = create_product(&seller, 10).await;
    let path = format!("/products/{product}");
    let shown = seller.get(&path).await.header("etag").unwrap().to_owned();
    let order = place_confirmed_order(&buyer, &[(&product, 3)]).await;
    seller.post(format!("{path}/stock-adjustments"), &json!({ "delta": -1, "reason": "damaged" })).await.ok(201);

    // The stock has changed: neither may overwrite it.
    seller.put(&path, &product_body(10)).header("if-match", &shown).await.problem(412, "version_mismatch");
    patch(&seller, &path, &json!({ "quantity": 10 })).header("if-match", &shown).await.problem(412, "version_mismatch");
    let both = json!({ "quantity": 10, "description": "both" });
    patch(&seller, &path, &both).header("if-match", &shown).await.problem(412, "version_mismatch");
    // The description has not.
    let edited = patch(&seller, &path, &json!({ "description": "edited" })).header("if-match", &shown).await;
    assert_eq!((&edited.ok(200)["description"], &edited.json()["quantity"]), (&json!("edited"), &json!(6)));
    // Now it has.
    patch(&seller, &path, &json!({ "price": 1 })).header("if-match", &shown).await.problem(412, "version_mismatch");
    let tag = edited.header("etag").unwrap();
    set_status(&buyer, &id_of(&order), "CANCELLED").await.ok(200);
    wait_for_quantity(&seller, &product, 9).await;
    let weak = format!("W/{tag}");
    patch(&seller, &path, &json!({ "price": 1 })).header("if-match", &weak).await.problem(412, "version_mismatch");
    let current = seller.get(&path).await.header("etag").unwrap().to_owned();
    let excluded = patch(&seller, &path, &json!({ "price": 1 })).header("if-match", tag).header("if-none-match", &current);
    excluded.await.problem(412, "version_mismatch");
    patch(&seller, &path, &json!({ "price": 1 })).header("if-match", format!("\"x\", {tag}")).await.ok(200);
    patch(&seller, &path, &json!({ "quantity": 4 })).header("if-match", "*").await.ok(200);
    assert_eq!(available_quantity(&seller, &product).await, 4);
}
