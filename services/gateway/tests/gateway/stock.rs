//! HTTP behaviour of `PATCH /products/{id}`, `/products/{id}/stock-adjustments` and
//! `/products/{id}/history`.

use axum::body::Body;
use palisade_proto::products::v1::ProductPatch;
use serde_json::json;

use crate::{
    Gateway,
    fake_services::{ID, USED_KEY},
    request,
};

fn product() -> String {
    format!("/products/{ID}")
}

fn adjustments() -> String {
    format!("/products/{ID}/stock-adjustments")
}

#[tokio::test]
async fn patch_sends_only_the_given_fields() {
    let gateway = Gateway::new();
    let patch = r#"{"name": "Pot", "price": 12.50, "isActive": false}"#;
    for media_type in ["application/merge-patch+json", "application/json", "Application/Merge-Patch+JSON; charset=utf-8"] {
        let response = gateway.send(request("PATCH", &product(), &[("content-type", media_type)], Body::from(patch))).await;
        assert_eq!((response.status.as_u16(), response.header("etag")), (200, Some("\"4\"")), "{}", response.text);
        let expected =
            ProductPatch { name: Some("Pot".into()), price_minor: Some(1250), is_active: Some(false), ..ProductPatch::default() };
        assert_eq!(gateway.products.patch.lock().unwrap().take(), Some(expected));
    }
    gateway.send_json("PATCH", &product(), &[], "{}").await;
    assert_eq!(gateway.products.patch.lock().unwrap().take(), Some(ProductPatch::default()));
}

#[tokio::test]
async fn patch_of_another_media_type_is_rejected() {
    let gateway = Gateway::new();
    for media_type in ["text/plain", "application/json-patch+json", "application/merge-patch+json; charset=latin1"] {
        let response = gateway.send(request("PATCH", &product(), &[("content-type", media_type)], Body::from("{}"))).await;
        response.problem(415, "unsupported_media_type");
        assert_eq!(response.header("accept-patch"), Some("application/merge-patch+json, application/json"));
    }
    // Not for other methods.
    let put = request("PUT", &product(), &[("content-type", "application/merge-patch+json")], Body::from("{}"));
    gateway.send(put).await.problem(415, "unsupported_media_type");
}

#[tokio::test]
async fn patch_reports_all_violations_at_once() {
    let gateway = Gateway::new();
    let nulls = r#"{"name": null, "price": null, "quantity": null, "category": null, "isActive": null}"#;
    let fields = ["price: required", "name: required", "quantity: required", "category: required", "isActive: required"];
    assert_eq!(gateway.send_json("PATCH", &product(), &[], nulls).await.errors(), fields);
    let errors = gateway.send_json("PATCH", &product(), &[], r#"{"price": 1.005, "quantity": -1}"#).await.errors();
    assert_eq!(errors, ["price: too_many_decimals", "quantity: out_of_range"]);
    for body in [r#"{"version": 3}"#, r#"{"name": 7}"#, r#"{"quantity": 1.5}"#, "[]", "null", r#"{"name": "a", "name": "b"}"#] {
        gateway.send_json("PATCH", &product(), &[], body).await.problem(400, "invalid_body");
    }
}

#[tokio::test]
async fn adjustment_returns_its_entry() {
    let gateway = Gateway::new();
    let response = gateway.send_json("POST", &adjustments(), &[], r#"{"delta": -3, "reason": "damaged"}"#).await;
    let expected = format!(r#"{{"id":"{ID}","productId":"{ID}","kind":"adjustment","delta":-3,"reason":"damaged","quantityAfter":4,"#)
        + r#""actor":"alice","createdAt":"2026-01-01T00:00:00.005Z"}"#;
    assert_eq!((response.status.as_u16(), response.text.as_str()), (201, expected.as_str()));
    assert_eq!(response.header("idempotency-replayed"), None);
    let replayed = gateway.send_json("POST", &adjustments(), &[("idempotency-key", USED_KEY)], r#"{"delta": 1, "reason": "found"}"#).await;
    assert_eq!((replayed.status.as_u16(), replayed.header("idempotency-replayed")), (201, Some("true")));
}

#[tokio::test]
async fn impossible_adjustment_is_rejected() {
    let gateway = Gateway::new();
    let response = gateway.send_json("POST", &adjustments(), &[], r#"{"delta": -8, "reason": "damaged"}"#).await;
    assert_eq!(response.problem(409, "insufficient_stock")["productId"], ID);
    assert_eq!(gateway.send_json("POST", &adjustments(), &[], "{}").await.errors(), ["delta: required", "reason: required"]);
    let invalid = r#"{"delta": 0, "reason": ""}"#;
    assert_eq!(gateway.send_json("POST", &adjustments(), &[], invalid).await.errors(), ["delta: out_of_range", "reason: required"]);
    for body in [r#"{"delta": "1", "reason": "x"}"#, r#"{"delta": 1.5, "reason": "x"}"#, r#"{"delta": 1, "reason": "x", "kind": "set"}"#] {
        gateway.send_json("POST", &adjustments(), &[], body).await.problem(400, "invalid_body");
    }
    gateway.send_empty("POST", "/products/7/stock-adjustments", &[]).await.problem(400, "invalid_parameter");
}

#[tokio::test]
async fn ledger_is_a_page() {
    let gateway = Gateway::new();
    let response = gateway.send_empty("GET", &format!("{}?limit=2&cursor=abc", adjustments()), &[]).await;
    assert_eq!((response.status.as_u16(), response.header("cache-control")), (200, Some("no-store")));
    let page = response.json();
    assert_eq!((page["nextCursor"].as_str(), page["items"].as_array().unwrap().len()), (Some("more"), 2));
    let fulfilment = &page["items"][0];
    assert_eq!((&fulfilment["kind"], &fulfilment["orderId"], &fulfilment["actor"]), (&"fulfilment".into(), &ID.into(), &().into()));
    for query in ["limit=0", "limit=101", "limit=1&limit=2", "sort=oldest"] {
        gateway.send_empty("GET", &format!("{}?{query}", adjustments()), &[]).await.problem(400, "invalid_parameter");
    }
    gateway.send_empty("GET", &format!("{}?cursor=forged", adjustments()), &[]).await.problem(400, "invalid_cursor");
}

#[tokio::test]
async fn history_has_only_the_changed_fields() {
    let gateway = Gateway::new();
    let response = gateway.send_empty("GET", &format!("/products/{ID}/history"), &[]).await;
    assert_eq!((response.status.as_u16(), response.header("cache-control")), (200, Some("no-store")));
    let at = "2026-01-01T00:00:00.005Z";
    let created = json!({
        "name": { "from": null, "to": "Kettle" }, "price": { "from": null, "to": 24.9 },
        "category": { "from": null, "to": "kitchen" }, "isActive": { "from": null, "to": true },
    });
    let expected = json!({ "items": [
        { "version": 5, "changes": { "isActive": { "from": true, "to": false } }, "actor": null, "time": at },
        { "version": 3, "changes": { "description": true, "price": { "from": 24.9, "to": 0 } }, "actor": "alice", "time": at },
        { "version": 1, "changes": created, "actor": "alice", "time": at },
    ] });
    assert_eq!(response.json(), expected);
    gateway.send_empty("GET", "/products/01890a5d-ac96-774b-bcce-b302099a8058/history", &[]).await.problem(404, "not_found");
    gateway.send_empty("GET", "/products/7/history", &[]).await.problem(400, "invalid_parameter");
}
