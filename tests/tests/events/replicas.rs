//! Several replicas of orders over one store: a change by one replica reaches watchers at another,
//! and one relay publishes it.

use std::process::Command;

use futures_util::future::join_all;
use palisade_tests::{
    Client, Shop,
    process::Program,
    servers::{self, free_port},
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{create_product, id_of, place_confirmed_order, set_status},
    sse::EventStream,
    unique,
};

use crate::relay::{by_order, published_events, publishing_to};

/// Starts a shop whose gateway calls two replicas of orders.
async fn two_replicas(configure: impl Fn(&str, &mut Command)) -> (Shop, Program) {
    let url = servers::shared_postgres().url(&unique("replicas").replace('-', "_"));
    let ports = [free_port(), free_port()];
    let addresses = ports.map(|port| format!("127.0.0.1:{port}"));
    let both = format!("http://{},http://{}", addresses[0], addresses[1]);
    let second = std::sync::Mutex::new(None);
    let shop = Shop::separate_with(None, Some(&url), |service, command| {
        configure(service, command);
        if service == "gateway" {
            command.env("PALISADE_UPSTREAMS__ORDERS__URL", &both);
        }
        if service == "orders" {
            command.env("PALISADE_LISTEN", &addresses[0]);
            let mut replica = palisade_tests::process::command("orders");
            replica.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
            replica.env("PALISADE_LISTEN", &addresses[1]).env("PALISADE_ADMIN_LISTEN", "127.0.0.1:0");
            *second.lock().unwrap() = Some(replica);
        }
    });
    let replica = second.into_inner().unwrap().unwrap();
    let replica = Program::start(replica, shop.directory());
    let admin = Client::new(replica.url("orders-admin"), None);
    palisade_tests::eventually(async || admin.get("/readyz").attempt().await.ok().filter(|answer| answer.status == 200)).await;
    (shop, replica)
}

/// Watches and cancels orders through either replica, and asserts that every change is streamed.
async fn watch_and_cancel(shop: &Shop, orders: usize) -> Vec<String> {
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 1_000).await;
    let mut ids = Vec::new();
    for _ in 0..orders {
        ids.push(id_of(&place_confirmed_order(&buyer, &[(&product, 1)]).await));
    }
    let mut watching = Vec::new();
    for id in &ids {
        let mut events = EventStream::open(buyer.get(format!("/orders/{id}/events"))).await;
        assert_eq!(events.next().await.unwrap().id_and_status(), (3, "CONFIRMED"));
        watching.push(events);
    }
    for id in &ids {
        set_status(&buyer, id, "CANCELLED").await.ok(200);
    }
    for rest in join_all(watching.into_iter().map(EventStream::collect_statuses)).await {
        assert_eq!(rest, [(4, "CANCELLED".to_owned())]);
    }
    ids
}

#[tokio::test]
async fn watch_without_broker_polls_for_changes() {
    let (shop, _replica) = two_replicas(|_, _| {}).await;
    // Some of twelve watched orders are changed at the replica without the watcher.
    watch_and_cancel(&shop, 12).await;
}

#[tokio::test]
async fn watch_with_broker_and_single_relay() {
    let nats = servers::nats();
    let (shop, mut replica) = two_replicas(|service, command| {
        publishing_to(&nats)(service, command);
        if service == "orders" {
            // Polling would take a minute, so only broker events can be seen in time.
            command.env("PALISADE_WATCH__POLL_INTERVAL_MS", "60000");
        }
    })
    .await;
    let before = watch_and_cancel(&shop, 12).await;
    // If this replica held the relay lease, the other one takes over.
    replica.kill();
    let after = watch_and_cancel(&shop, 3).await;
    let published = by_order(&published_events(&nats, 15 * 4).await);
    for id in before.iter().chain(&after) {
        assert_eq!(published[id].iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), [1, 2, 3, 4], "{id}");
    }
}
