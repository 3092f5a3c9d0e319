//! Cache invalidation by change events, in every gateway.

use std::process::Command;

use palisade_tests::{
    Client, Shop, eventually, servers,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{create_product, id_of, place_confirmed_order},
};

use crate::{LONG_TTL_MS, cache_status, enable_cache, metric_sum, price_and_hit, product_with_price, seller_at};

/// The TTL exceeds the duration of the test, so only events make changes visible.
#[tokio::test]
async fn nats_event_invalidates_other_gateways() {
    let mut nats = servers::nats();
    let url = nats.url();
    let shop = Shop::separate_with(None, None, |service, command| {
        if service != "orders" {
            command.env("PALISADE_EVENTS__NATS_URL", &url);
        }
        if service == "gateway" {
            enable_cache(command);
        }
    });
    let other = shop.additional_gateway(|command| {
        enable_cache(command);
        command.env("PALISADE_EVENTS__NATS_URL", &url);
    });
    let admin = Client::new(other.url("gateway-admin"), None);
    let all_dependencies_ok =
        |report: &serde_json::Value| report["dependencies"].as_array().unwrap().iter().all(|dependency| dependency["ok"] == true);
    eventually(async || admin.get("/readyz").attempt().await.ok().filter(|answer| all_dependencies_ok(&answer.json()))).await;

    let (seller, reader) = (shop.client("seller", ALL_SCOPES), seller_at(&other, &shop));
    let id = id_of(&seller.post("/products", &product_with_price(5.5)).await.ok(201));
    let path = format!("/products/{id}");
    let kept = async || eventually(async || Some(price_and_hit(&reader.get(&path).await)).filter(|(_, kept)| *kept)).await;
    let listed = async || reader.get("/products").await.ok(200)["items"].clone();
    kept().await;
    listed().await;
    seller.put(&path, &product_with_price(9.5)).await.ok(200);
    eventually(async || (price_and_hit(&reader.get(&path).await).0 == 9.5).then_some(())).await;
    eventually(async || (listed().await[0]["price"] == 9.5).then_some(())).await;
    // An order changes the quantity at products, bypassing the gateway's write path.
    kept().await;
    place_confirmed_order(&shop.client("buyer", CUSTOMER), &[(&id, 3)]).await;
    eventually(async || (reader.get(&path).await.ok(200)["quantity"] == 97).then_some(())).await;
    // Events during a disconnect are lost, so reconnecting invalidates the whole cache.
    kept().await;
    nats.kill();
    seller.put(&path, &product_with_price(11.5)).await.ok(200);
    nats.restart();
    eventually(async || (price_and_hit(&reader.get(&path).await).0 == 11.5).then_some(())).await;
    // An ordered product cannot be removed, so a new one is used.
    let removed = format!("/products/{}", create_product(&seller, 1).await);
    eventually(async || price_and_hit(&reader.get(&removed).await).1.then_some(())).await;
    seller.delete(&removed).await.empty(204);
    eventually(async || Some(reader.get(&removed).await).filter(|answer| answer.status == 404)).await;
    let invalidations = async |cause: &str| metric_sum(admin.base(), &["palisade_cache_invalidations_total", cause]).await;
    assert!(invalidations("\"event\"").await >= 3 && invalidations("\"missed\"").await >= 1);
    assert_eq!(invalidations("\"write\"").await, 0);
}

/// Asserts that an order invalidates the cached product.
async fn assert_invalidation_in_one_process(configure: impl FnOnce(&mut Command)) {
    let shop = Shop::all_in_one_with(|command| {
        command.env("PALISADE_GATEWAY__CACHE__TTL_MS", LONG_TTL_MS.to_string());
        configure(command);
    });
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let id = create_product(&seller, 10).await;
    let read = async || buyer.get(format!("/products/{id}")).await;
    eventually(async || cache_status(&read().await).starts_with("palisade; hit").then_some(())).await;
    place_confirmed_order(&buyer, &[(&id, 4)]).await;
    eventually(async || (read().await.ok(200)["quantity"] == 6).then_some(())).await;
}

#[tokio::test]
async fn all_in_one_invalidates_without_broker() {
    assert_invalidation_in_one_process(|_| {}).await;
}

#[tokio::test]
async fn all_in_one_invalidates_with_broker() {
    let nats = servers::nats();
    assert_invalidation_in_one_process(|command| {
        command.env("PALISADE_PRODUCTS__EVENTS__NATS_URL", nats.url());
    })
    .await;
}
