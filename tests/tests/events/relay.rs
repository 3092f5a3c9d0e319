//! Outbox relay of orders: every change is published once and in order, through outages and
//! crashes.

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::jetstream::{self, consumer::pull::OrderedConfig};
use futures_util::{StreamExt, future::join_all};
use palisade_tests::{
    Client, Shop, eventually,
    process::output_of,
    random::Random,
    servers::{self, Nats},
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{create_product, id_of, order_body, place_confirmed_order, set_status, wait_until_settled},
    unique,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{runtime::Handle, task::spawn_blocking, time::timeout};

/// Configures orders to publish to this server.
pub(crate) fn publishing_to(nats: &Nats) -> impl Fn(&str, &mut Command) + use<> {
    let url = nats.url();
    move |service, command| {
        if service == "orders" {
            command.env("PALISADE_EVENTS__NATS_URL", &url).env("PALISADE_EVENTS__LEASE_MS", "1000");
        }
    }
}

/// Returns all order events in the broker, once there are at least this many.
pub(crate) async fn published_events(nats: &Nats, at_least: usize) -> Vec<(async_nats::HeaderMap, Value)> {
    let client = async_nats::ConnectOptions::new().retry_on_initial_connect().connect(nats.url()).await.unwrap();
    let context = jetstream::new(client);
    let stream = eventually(async || context.get_stream("PALISADE_ORDERS").await.ok()).await;
    eventually(async || (stream.get_info().await.ok()?.state.messages >= at_least as u64).then_some(())).await;
    let count = stream.get_info().await.unwrap().state.messages;
    let consumer = stream.create_consumer(OrderedConfig::default()).await.unwrap();
    let mut messages = consumer.messages().await.unwrap();
    let mut published = Vec::new();
    while (published.len() as u64) < count {
        let message = timeout(Duration::from_secs(20), messages.next()).await.unwrap().unwrap().unwrap();
        published.push((message.headers.clone().unwrap_or_default(), serde_json::from_slice(&message.payload).unwrap()));
    }
    published
}

/// Groups sequence numbers and statuses by order, in order of arrival.
pub(crate) fn by_order(published: &[(async_nats::HeaderMap, Value)]) -> BTreeMap<String, Vec<(i64, String)>> {
    let mut orders = BTreeMap::<_, Vec<_>>::new();
    for (_, event) in published {
        let sequence = event["sequence"].as_str().unwrap().parse().unwrap();
        let status = event["data"]["status"].as_str().unwrap().to_owned();
        orders.entry(event["subject"].as_str().unwrap().to_owned()).or_default().push((sequence, status));
    }
    orders
}

/// Returns the value of an unlabelled metric of orders.
async fn metric(shop: &Shop, name: &str) -> u64 {
    let metrics = Client::new(shop.admin_url("orders"), None).get("/metrics").attempt().await.unwrap().text();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
    line.unwrap_or_else(|| panic!("metric {name} is missing")).parse().unwrap()
}

#[tokio::test]
async fn events_are_published_after_broker_outage() {
    let mut nats = servers::nats();
    nats.kill();
    let shop = Shop::separate_with(None, None, publishing_to(&nats));
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 5).await;
    let first = id_of(&place_confirmed_order(&buyer, &[(&product, 1)]).await);
    set_status(&buyer, &first, "CANCELLED").await.ok(200);
    eventually(async || (metric(&shop, "palisade_outbox_pending").await >= 4).then_some(())).await;
    let ready = Client::new(shop.admin_url("orders"), None).get("/readyz").attempt().await.unwrap();
    assert_eq!(ready.status, 200);
    let states = ready.json()["dependencies"].clone();
    assert!(
        states.as_array().unwrap().contains(&json!({ "name": "nats", "required": false, "ok": false, "reason": "no connection" })),
        "{states}"
    );

    nats.restart();
    let second = id_of(&place_confirmed_order(&buyer, &[(&product, 1)]).await);
    let published = published_events(&nats, 7).await;
    let statuses = |last: &[&str]| {
        let all = ["PENDING", "PRODUCT_RESERVED", "CONFIRMED"].iter().chain(last);
        (1..).zip(all.map(|status| (*status).to_owned())).collect::<Vec<(i64, String)>>()
    };
    assert_eq!(by_order(&published), BTreeMap::from([(first, statuses(&["CANCELLED"])), (second, statuses(&[]))]));
    for (headers, event) in &published {
        assert_eq!(
            (&event["specversion"], &event["source"], &event["datacontenttype"]),
            (&json!("1.0"), &json!("/palisade/orders"), &json!("application/json"))
        );
        let kind = format!("palisade.orders.v1.{}", event["data"]["status"].as_str().unwrap().to_lowercase());
        assert_eq!((event["type"].as_str(), event["data"]["orderId"].as_str()), (Some(kind.as_str()), event["subject"].as_str()));
        assert_eq!(headers.get("Nats-Msg-Id").map(async_nats::HeaderValue::as_str), event["id"].as_str());
        assert_eq!(headers.get("content-type").map(async_nats::HeaderValue::as_str), Some("application/cloudevents+json"));
    }
    eventually(async || (metric(&shop, "palisade_outbox_pending").await == 0).then_some(())).await;
}

#[tokio::test]
async fn rejected_event_is_dead_lettered_and_redriven() {
    let nats = servers::nats();
    let scratch = TempDir::new().unwrap();
    let store = format!("sqlite://{}", scratch.path().join("orders.db").display());
    let shop = Shop::separate_with(None, Some(&store), |service, command| {
        publishing_to(&nats)(service, command);
        if service == "orders" {
            command.env("PALISADE_EVENTS__STREAM_MAX_EVENT_BYTES", "100");
        }
    });
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 5).await;
    let id = id_of(&place_confirmed_order(&buyer, &[(&product, 1)]).await);
    let tools = Client::new(shop.admin_url("orders"), None);
    let dead = async || {
        let dead = tools.get("/events/dead").attempt().await.unwrap().ok(200)["items"].as_array().unwrap().clone();
        (dead.len() == 3).then_some(dead)
    };
    for event in eventually(dead).await {
        assert_eq!(event["orderId"], json!(id));
        assert!(event["reason"].as_str().unwrap().contains("size exceeds maximum"), "{event}");
    }
    eventually(async || (metric(&shop, "palisade_outbox_dead_lettered").await == 3).then_some(())).await;
    assert_eq!(output_of("palisade", &["redrive", "--store-url", &store]), "3");
    eventually(dead).await;

    let stream = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let known = stream.get_stream("PALISADE_ORDERS").await.unwrap().get_info().await.unwrap().config;
    stream.update_stream(jetstream::stream::Config { max_message_size: -1, ..known }).await.unwrap();
    let redriven = tools.post("/events/redrive", &json!({})).attempt().await.unwrap().ok(200);
    assert_eq!(redriven, json!({ "redriven": 3 }));
    assert_eq!(by_order(&published_events(&nats, 3).await)[&id].len(), 3);
    eventually(async || (metric(&shop, "palisade_outbox_dead_lettered").await == 0).then_some(())).await;
}

/// Places orders and cancels half of them. Returns the order IDs.
async fn place_orders(buyer: Client, product: &str, orders: usize) -> Vec<String> {
    let mut placed = Vec::new();
    for n in 0..orders {
        let (key, body) = (unique("key"), order_body(&[(product, 1)]));
        let id = eventually(async || {
            let answer = buyer.post("/orders", &body).header("idempotency-key", &key).attempt().await.ok()?;
            matches!(answer.status.as_u16(), 201 | 202).then(|| id_of(&answer.json()))
        })
        .await;
        if n % 2 == 0 {
            eventually(async || set_status(&buyer, &id, "CANCELLED").attempt().await.ok().filter(|answer| answer.status == 200)).await;
        }
        placed.push(id);
    }
    placed
}

/// Kills and restarts the broker and orders alternately at random moments until `over` is set.
fn kill_randomly(mut shop: Shop, mut nats: Nats, over: &AtomicBool, mut random: Random) -> (Shop, Nats) {
    let mut kills = 0;
    while !over.load(Ordering::Relaxed) {
        // No condition is awaited: the random moment is intended.
        Handle::current().block_on(tokio::time::sleep(random.millis(100, 600)));
        if kills % 2 == 0 {
            nats.kill();
            nats.restart();
        } else {
            shop.program_mut("orders").kill();
            shop.program_mut("orders").restart();
        }
        kills += 1;
    }
    assert!(kills > 2, "{kills} kills are too few to be meaningful");
    (shop, nats)
}

#[tokio::test]
async fn events_survive_kill_9_exactly_once_in_order() {
    let nats = servers::nats();
    let url = servers::shared_postgres().url(&unique("events").replace('-', "_"));
    let shop = Shop::separate_with(None, Some(&url), |service, command| {
        publishing_to(&nats)(service, command);
        if service == "orders" {
            command.env("PALISADE_SAGA__LEASE_MS", "1000");
        }
    });
    let seller = shop.client("seller", ALL_SCOPES);
    let product = create_product(&seller, 10_000).await;
    let buyers: Vec<_> = (0..4).map(|n| place_orders(shop.client(&format!("buyer-{n}"), CUSTOMER), &product, 40)).collect();
    let done = Arc::new(AtomicBool::new(false));
    let over = done.clone();
    let havoc = spawn_blocking(move || kill_randomly(shop, nats, &over, Random::from_environment()));
    let placed: Vec<String> = join_all(buyers).await.concat();
    done.store(true, Ordering::Relaxed);
    let (shop, nats) = havoc.await.unwrap();
    shop.ready().await;
    let watcher = shop.client("watcher", ALL_SCOPES);
    let mut expected = 0;
    for id in &placed {
        expected += match wait_until_settled(&watcher, id).await["status"].as_str().unwrap() {
            "CONFIRMED" => 3,
            // The order may be cancelled before its stock was reserved: at least this many.
            _ => 2,
        };
    }
    eventually(async || (metric(&shop, "palisade_outbox_pending").await == 0).then_some(())).await;
    let published = by_order(&published_events(&nats, expected).await);
    for id in &placed {
        let events = &published[id];
        let sequences: Vec<i64> = events.iter().map(|(sequence, _)| *sequence).collect();
        assert_eq!(sequences, (1..=i64::try_from(events.len()).unwrap()).collect::<Vec<_>>(), "{id}: {events:?}");
        assert_eq!(events.last().unwrap().1, wait_until_settled(&watcher, id).await["status"], "{id}: {events:?}");
    }
    shop.invariants("orders").await;
}
