//! Product change events: every change is published from either store, and the latest version of a
//! product arrives.

use std::{collections::BTreeMap, time::Duration};

use async_nats::jetstream::{self, consumer::pull::OrderedConfig};
use futures_util::StreamExt;
use palisade_tests::{
    Client, Shop, eventually,
    servers::{self, Nats},
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{create_product, id_of, place_confirmed_order, product_body, set_status},
    unique,
};
use serde_json::Value;
use tokio::time::timeout;

/// Collects the last event of each product until `enough` accepts them.
async fn last_events(nats: &Nats, enough: impl Fn(&BTreeMap<String, Value>) -> bool) -> BTreeMap<String, Value> {
    let context = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let stream = eventually(async || context.get_stream("PALISADE_PRODUCTS").await.ok()).await;
    let mut messages = stream.create_consumer(OrderedConfig::default()).await.unwrap().messages().await.unwrap();
    let mut last = BTreeMap::new();
    while !enough(&last) {
        let message = timeout(Duration::from_secs(30), messages.next()).await.expect("next event in time").unwrap().unwrap();
        let event: Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(
            (event["type"].as_str(), message.subject.as_str()),
            (Some("palisade.products.v1.changed"), "palisade.products.v1.changed")
        );
        last.insert(event["subject"].as_str().unwrap().to_owned(), event["data"].clone());
    }
    last
}

async fn assert_changes_are_published(products_store: Option<&str>) {
    let mut nats = servers::nats();
    let url = nats.url();
    let mut shop = Shop::separate_with(products_store, None, |service, command| {
        if service == "products" {
            command.env("PALISADE_EVENTS__NATS_URL", &url).env("PALISADE_EVENTS__LEASE_MS", "1000");
        }
    });
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let (kept, gone) = (create_product(&seller, 5).await, create_product(&seller, 1).await);
    last_events(&nats, |events| events.contains_key(&kept) && events.contains_key(&gone)).await;
    // Both processes are killed. Changes made meanwhile are published after the restart.
    nats.kill();
    seller.put(format!("/products/{kept}"), &product_body(7)).await.ok(200);
    let order = id_of(&place_confirmed_order(&buyer, &[(&kept, 2)]).await);
    set_status(&buyer, &order, "CANCELLED").await.ok(200);
    seller.delete(format!("/products/{gone}")).await.empty(204);
    shop.program_mut("products").kill();
    nats.restart();
    shop.program_mut("products").restart();
    shop.ready().await;
    // The cancelled order releases its units, which is the fourth change.
    let version = async |client: &Client| client.get(format!("/products/{kept}")).await.ok(200)["version"].as_i64().unwrap();
    eventually(async || (version(&seller).await == 4).then_some(())).await;
    let events = last_events(&nats, |events| {
        events.get(&kept).is_some_and(|kept| kept["version"] == 4) && events.get(&gone).is_some_and(|gone| gone["removed"] == true)
    });
    let events = events.await;
    assert_eq!((events[&kept]["removed"].as_bool(), events[&gone]["version"].as_i64()), (Some(false), None));
}

#[tokio::test]
async fn sqlite_product_events_survive_kill_9() {
    assert_changes_are_published(None).await;
}

#[tokio::test]
async fn mongodb_product_events_survive_kill_9() {
    let mongo = servers::durable_mongo();
    assert_changes_are_published(Some(&mongo.url(&unique("events").replace('-', "_")))).await;
}
