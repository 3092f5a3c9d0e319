//! Conditional requests (RFC 9110, section 13) against the running services.

use palisade_tests::{
    Client, Response, Shop,
    client::Request,
    shop::ALL_SCOPES,
    shop_helpers::{create_product, id_of, place_confirmed_order, product_body, set_status, wait_for_quantity},
    unique,
};

fn tag(answer: &Response) -> String {
    answer.header("etag").unwrap_or_else(|| panic!("no entity tag: {answer:?}")).to_owned()
}

/// Sends a write with each condition that is false for the current tag. None has an effect.
async fn assert_guarded(write: impl Fn() -> Request, current: &str) {
    for (name, value) in [
        ("if-match", "\"0\""),
        ("if-match", "\"1\", \"x\""),
        ("if-match", &format!("W/{current}")),
        ("if-match", ","),
        ("if-none-match", "*"),
        ("if-none-match", current),
        ("if-none-match", &format!("\"x\",, W/{current}")),
    ] {
        write().header(name, value).await.problem(412, "version_mismatch");
    }
}

#[tokio::test]
async fn false_condition_prevents_every_write() {
    let shop = Shop::shared();
    let seller = shop.client("seller", ALL_SCOPES);
    let product = create_product(&seller, 5).await;
    let path = format!("/products/{product}");
    seller.put(&path, &product_body(6)).await.ok(200);
    let current = tag(&seller.get(&path).await);
    assert_guarded(|| seller.put(&path, &product_body(7)), &current).await;
    let rename = || seller.request(reqwest::Method::PATCH, &path).json(r#"{"name": "renamed"}"#);
    assert_guarded(rename, &current).await;
    assert_guarded(|| seller.delete(&path), &current).await;
    assert_eq!(tag(&seller.get(&path).await), current);

    let buyer = shop.client(&unique("buyer"), ALL_SCOPES);
    let order = id_of(&place_confirmed_order(&buyer, &[(&product, 1)]).await);
    let order_path = format!("/orders/{order}");
    let current = tag(&buyer.get(&order_path).await);
    assert_guarded(|| set_status(&buyer, &order, "CANCELLED"), &current).await;
    assert_eq!(buyer.get(&order_path).await.ok(200)["status"], "CONFIRMED");
    let cancelled = set_status(&buyer, &order, "CANCELLED").header("if-match", current.as_str()).await;
    cancelled.ok(200);
    let current = tag(&cancelled);
    assert_eq!(tag(&buyer.get(&order_path).await), current);
    assert_guarded(|| buyer.delete(&order_path), &current).await;
    buyer.delete(&order_path).header("if-match", format!("\"0\", {current}")).await.empty(204);
    buyer.delete(&order_path).header("if-match", current.as_str()).await.problem(404, "not_found");

    wait_for_quantity(&seller, &product, 6).await;
    let current = tag(&seller.get(&path).await);
    seller.delete(&path).header("if-match", format!("\"x\" , {current}")).header("if-none-match", "\"x\"").await.empty(204);
}

#[tokio::test]
async fn order_has_an_entity_tag_that_changes() {
    let shop = Shop::shared();
    let buyer = shop.client(&unique("buyer"), ALL_SCOPES);
    let product = create_product(&shop.client("seller", ALL_SCOPES), 5).await;
    let order = id_of(&place_confirmed_order(&buyer, &[(&product, 1)]).await);
    let path = format!("/orders/{order}");
    let first = tag(&buyer.get(&path).await);
    let unchanged = buyer.get(&path).header("if-none-match", first.as_str()).await;
    unchanged.empty(304);
    assert_eq!(tag(&unchanged), first);
    buyer.get(&path).header("if-match", "\"0\"").await.problem(412, "version_mismatch");
    set_status(&buyer, &order, "CANCELLED").await.ok(200);
    let changed = buyer.get(&path).header("if-none-match", first.as_str()).await;
    changed.ok(200);
    assert_ne!(tag(&changed), first);
}

#[tokio::test]
async fn replayed_order_keeps_its_entity_tag() {
    let shop = Shop::shared();
    let buyer: Client = shop.client(&unique("buyer"), ALL_SCOPES);
    let product = create_product(&shop.client("seller", ALL_SCOPES), 5).await;
    let key = unique("key");
    let place = || palisade_tests::shop_helpers::order_request(&buyer, &[(&product, 1)]).header("idempotency-key", key.as_str());
    let first = place().await;
    let again = place().await;
    assert_eq!((again.header("idempotency-replayed"), tag(&again)), (Some("true"), tag(&first)));
}

#[tokio::test]
async fn write_only_token_may_use_conditions() {
    let shop = Shop::shared();
    let product = create_product(&shop.client("seller", ALL_SCOPES), 5).await;
    let writer = shop.client("writer", "products:write");
    let path = format!("/products/{product}");
    writer.put(&path, &product_body(6)).header("if-match", "\"7\", \"1\"").await.ok(200);
    writer.put(&path, &product_body(6)).header("if-none-match", "\"1\"").await.ok(200);
    writer.delete(&path).header("if-none-match", "\"3\"").await.problem(412, "version_mismatch");
    writer.delete(&path).header("if-match", "*").await.empty(204);
}

#[tokio::test]
async fn repeated_authorization_is_rejected() {
    let shop = Shop::shared();
    let token = shop.token("alice", ALL_SCOPES);
    let twice = shop.anonymous().get("/products").header("authorization", format!("Bearer {token}"));
    let twice = twice.header("authorization", format!("Bearer {token}")).await;
    twice.problem(400, "invalid_parameter");
    assert!(twice.header("www-authenticate").unwrap().contains("error=\"invalid_request\""));
}
