//! Every product that changed is told of, from either store, and the latest version of it is.

use std::{collections::BTreeMap, time::Duration};

use async_nats::jetstream::{self, consumer::pull::OrderedConfig};
use futures_util::StreamExt;
use palisade_tests::{
    Client, Shop, eventually,
    servers::{self, Nats},
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{confirmed, id_of, product, set_status, create_product},
    unique,
};
use serde_json::Value;
use tokio::time::timeout;

/// The last that was told of each product, once `enough` of it was.
async fn last_told(nats: &Nats, enough: impl Fn(&BTreeMap<String, Value>) -> bool) -> BTreeMap<String, Value> {
    let context = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let stream = eventually(async || context.get_stream("PALISADE_PRODUCTS").await.ok()).await;
    let mut messages = stream.create_consumer(OrderedConfig::default()).await.unwrap().messages().await.unwrap();
    let mut last = BTreeMap::new();
    while !enough(&last) {
        let message = timeout(Duration::from_secs(30), messages.next()).await.expect("more is told").unwrap().unwrap();
        let event: Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(
            (event["type"].as_str(), message.subject.as_str()),
            (Some("palisade.products.v1.changed"), "palisade.products.v1.changed")
        );
        last.insert(event["subject"].as_str().unwrap().to_owned(), event["data"].clone());
    }
    last
}

async fn tells(products_store: Option<&str>) {
    let mut nats = servers::nats();
    let url = nats.url();
    let mut shop = Shop::separate_with(products_store, None, |service, command| {
        if service == "products" {
            command.env("PALISADE_EVENTS__NATS_URL", &url).env("PALISADE_EVENTS__LEASE_MS", "1000");
        }
    });
    shop.ready().await;
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let (kept, gone) = (create_product(&seller, 5).await, create_product(&seller, 1).await);
    last_told(&nats, |told| told.contains_key(&kept) && told.contains_key(&gone)).await;
    // Both die, and what changes meanwhile is told when they are back.
    nats.kill();
    seller.put(format!("/products/{kept}"), &product(7)).await.ok(200);
    let order = id_of(&confirmed(&buyer, &[(&kept, 2)]).await);
    set_status(&buyer, &order, "CANCELLED").await.ok(200);
    seller.delete(format!("/products/{gone}")).await.empty(204);
    shop.program_mut("products").kill();
    nats.restart();
    shop.program_mut("products").restart();
    shop.ready().await;
    // The cancelled order gives its units back, which is the fourth change.
    let version = async |client: &Client| client.get(format!("/products/{kept}")).await.ok(200)["version"].as_i64().unwrap();
    eventually(async || (version(&seller).await == 4).then_some(())).await;
    let told = last_told(&nats, |told| {
        told.get(&kept).is_some_and(|kept| kept["version"] == 4) && told.get(&gone).is_some_and(|gone| gone["removed"] == true)
    });
    let told = told.await;
    assert_eq!((told[&kept]["removed"].as_bool(), told[&gone]["version"].as_i64()), (Some(false), None));
}

#[tokio::test]
async fn changes_of_products_in_sqlite_are_told_through_kill_9_of_both_sides() {
    tells(None).await;
}

#[tokio::test]
async fn changes_of_products_in_mongodb_are_told_through_kill_9_of_both_sides() {
    let mongo = servers::durable_mongo();
    tells(Some(&mongo.url(&unique("told").replace('-', "_")))).await;
}
