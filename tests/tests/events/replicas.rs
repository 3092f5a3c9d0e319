//! Several replicas of orders over one store: a change made by one reaches those who watch at another, and one of them tells the broker.

use std::process::Command;

use futures_util::future::join_all;
use palisade_tests::{
    Client, Shop,
    sse::Events,
    process::Program,
    servers::{self, free_port},
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{confirmed, id_of, set_status, create_product},
    unique,
};

use crate::relay::{by_order, telling, told};

/// A shop whose gateway calls two replicas of orders.
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
    shop.ready().await;
    let admin = Client::new(replica.url("orders-admin"), None);
    palisade_tests::eventually(async || admin.get("/readyz").attempt().await.ok().filter(|answer| answer.status == 200)).await;
    (shop, replica)
}

/// Orders that are watched, and cancelled through whichever replica; all of it is told.
async fn watched_and_cancelled(shop: &Shop, orders: usize) -> Vec<String> {
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 1_000).await;
    let mut ids = Vec::new();
    for _ in 0..orders {
        ids.push(id_of(&confirmed(&buyer, &[(&product, 1)]).await));
    }
    let mut watching = Vec::new();
    for id in &ids {
        let mut events = Events::open(buyer.get(format!("/orders/{id}/events"))).await;
        assert_eq!(events.next().await.unwrap().id_and_status(), (3, "CONFIRMED"));
        watching.push(events);
    }
    for id in &ids {
        set_status(&buyer, id, "CANCELLED").await.ok(200);
    }
    for rest in join_all(watching.into_iter().map(Events::rest)).await {
        assert_eq!(rest, [(4, "CANCELLED".to_owned())]);
    }
    ids
}

#[tokio::test]
async fn without_a_broker_a_change_at_another_replica_is_found_by_looking() {
    let (shop, _replica) = two_replicas(|_, _| {}).await;
    // Of twelve watched orders some are changed where nobody watches them.
    watched_and_cancelled(&shop, 12).await;
}

#[tokio::test]
async fn with_a_broker_it_is_told_of_and_one_replica_tells_it_once() {
    let nats = servers::nats();
    let (shop, mut replica) = two_replicas(|service, command| {
        telling(&nats)(service, command);
        if service == "orders" {
            // Looking would take a minute.
            command.env("PALISADE_WATCH__POLL_MS", "60000");
        }
    })
    .await;
    let before = watched_and_cancelled(&shop, 12).await;
    // Whoever of the two it was that told: the other one goes on.
    replica.kill();
    let after = watched_and_cancelled(&shop, 3).await;
    let told = by_order(&told(&nats, 15 * 4).await);
    for id in before.iter().chain(&after) {
        assert_eq!(told[id].iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), [1, 2, 3, 4], "{id}");
    }
}
