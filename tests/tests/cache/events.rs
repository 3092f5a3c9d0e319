//! What products tells outdates what is kept, in whichever gateway.

use std::process::Command;

use palisade_tests::{
    Client, Shop, eventually, servers,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{confirmed, id_of, create_product},
};

use crate::{LONG_MS, counted, keeps, price, priced, seller_at, told};

/// Nobody would see anything of it before the test ends.
#[tokio::test]
async fn a_change_through_another_gateway_is_told_by_the_broker() {
    let mut nats = servers::nats();
    let url = nats.url();
    let shop = Shop::separate_with(None, None, |service, command| {
        if service != "orders" {
            command.env("PALISADE_EVENTS__NATS_URL", &url);
        }
        if service == "gateway" {
            keeps(command);
        }
    });
    let other = shop.another_gateway(|command| {
        keeps(command);
        command.env("PALISADE_EVENTS__NATS_URL", &url);
    });
    shop.ready().await;
    let admin = Client::new(other.url("gateway-admin"), None);
    let is_well = |report: &serde_json::Value| report["dependencies"].as_array().unwrap().iter().all(|dependency| dependency["ok"] == true);
    eventually(async || admin.get("/readyz").attempt().await.ok().filter(|answer| is_well(&answer.json()))).await;

    let (seller, reader) = (shop.client("seller", ALL_SCOPES), seller_at(&other, &shop));
    let id = id_of(&seller.post("/products", &priced(5.5)).await.ok(201));
    let path = format!("/products/{id}");
    let kept = async || eventually(async || Some(price(&reader.get(&path).await)).filter(|(_, kept)| *kept)).await;
    let listed = async || reader.get("/products").await.ok(200)["items"].clone();
    kept().await;
    listed().await;
    seller.put(&path, &priced(9.5)).await.ok(200);
    eventually(async || (price(&reader.get(&path).await).0 == 9.5).then_some(())).await;
    eventually(async || (listed().await[0]["price"] == 9.5).then_some(())).await;
    // An order takes units of it, at products alone.
    kept().await;
    confirmed(&shop.client("buyer", CUSTOMER), &[(&id, 3)]).await;
    eventually(async || (reader.get(&path).await.ok(200)["quantity"] == 97).then_some(())).await;
    // What happens while nobody can tell is not known, so that nothing is believed.
    kept().await;
    nats.kill();
    seller.put(&path, &priced(11.5)).await.ok(200);
    nats.restart();
    eventually(async || (price(&reader.get(&path).await).0 == 11.5).then_some(())).await;
    // What was ordered cannot be removed, but this can.
    let removed = format!("/products/{}", create_product(&seller, 1).await);
    eventually(async || price(&reader.get(&removed).await).1.then_some(())).await;
    seller.delete(&removed).await.empty(204);
    eventually(async || Some(reader.get(&removed).await).filter(|answer| answer.status == 404)).await;
    let invalidations = async |cause: &str| counted(admin.base(), &["palisade_cache_invalidations_total", cause]).await;
    assert!(invalidations("\"event\"").await >= 3 && invalidations("\"missed\"").await >= 1);
    assert_eq!(invalidations("\"write\"").await, 0);
}

/// An order takes units of a product that is kept, of which the cache is told.
async fn is_told_in_one_process(configure: impl FnOnce(&mut Command)) {
    let shop = Shop::all_in_one_with(|command| {
        command.env("PALISADE_GATEWAY__CACHE__TTL_MS", LONG_MS.to_string());
        configure(command);
    });
    shop.ready().await;
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let id = create_product(&seller, 10).await;
    let read = async || buyer.get(format!("/products/{id}")).await;
    eventually(async || told(&read().await).starts_with("palisade; hit").then_some(())).await;
    confirmed(&buyer, &[(&id, 4)]).await;
    eventually(async || (read().await.ok(200)["quantity"] == 6).then_some(())).await;
}

#[tokio::test]
async fn in_one_process_no_broker_is_needed() {
    is_told_in_one_process(|_| {}).await;
}

#[tokio::test]
async fn in_one_process_the_gateway_hears_where_products_tells() {
    let nats = servers::nats();
    is_told_in_one_process(|command| {
        command.env("PALISADE_PRODUCTS__EVENTS__NATS_URL", nats.url());
    })
    .await;
}
