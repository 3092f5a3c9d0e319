//! kill -9 at random moments under load: every acknowledged order exists and is settled, and no unit is lost or sold twice.
//!
//! `PALISADE_CRASH_SECONDS` says how long each test goes on (15 by default); `PALISADE_SEED` makes its choices again.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    env,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::future::{join, join_all};
use palisade_tests::{
    Client, Shop, eventually,
    ledger::{StockFixture, ClientRecord},
    random::Random,
    servers,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{order_body, id_of, set_status},
    unique,
};
use tokio::{runtime::Handle, task::spawn_blocking, time::Instant};

const BUYERS: usize = 8;
const UNITS: i64 = 1_000;
/// An order that was at work in a killed process is taken up again after this long; until then its key is "in progress".
const LEASE_MS: &str = "1000";

/// Orders until the shop closes. A call that got no answer is made again with its key, until it gets one.
async fn buy(client: Client, products: &[String], closed: &AtomicBool, mut random: Random) -> (Client, ClientRecord) {
    let mut told = ClientRecord::default();
    while !closed.load(Ordering::Relaxed) {
        let key = unique("key");
        let lines = [(random.one_of(products).as_str(), 1), (random.one_of(products).as_str(), 2)];
        let body = order_body(&lines);
        let id = eventually(async || {
            let answer = client.post("/orders", &body).header("idempotency-key", &key).attempt().await.ok()?;
            match answer.status.as_u16() {
                201 | 202 => Some(id_of(&answer.json())),
                // Sold out: an order all the same, and it must be found as such.
                409 if answer.json()["orderId"].is_string() => Some(answer.json()["orderId"].as_str().unwrap().to_owned()),
                409 | 429 | 500..600 => {
                    eprintln!("{key}: {} {}", answer.status, answer.text());
                    None
                }
                _ => panic!("{}: {}", answer.status, answer.text()),
            }
        })
        .await;
        told.orders.insert(key, id.clone());
        if random.choose_index(0..4) == 0 && set_status(&client, &id, "CANCELLED").attempt().await.is_ok_and(|answer| answer.status == 200) {
            told.cancelled.push(id);
        }
    }
    (client, told)
}

/// Kills and restarts `victims` at random moments for as long as this test may take.
fn havoc(mut shop: Shop, victims: &[&str], mut random: Random) -> Shop {
    let seconds = env::var("PALISADE_CRASH_SECONDS").map_or(15, |seconds| seconds.parse().expect("PALISADE_CRASH_SECONDS is a number"));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut kills = 0;
    while Instant::now() < end {
        // Nothing is awaited here: the random moment is the point.
        Handle::current().block_on(tokio::time::sleep(random.millis(200, 2_500)));
        let service = random.one_of::<&str>(victims);
        let victim = random.one_of_mut(shop.replicas_mut(service));
        victim.kill();
        victim.restart();
        kills += 1;
    }
    assert!(kills > 2, "{kills} kills are too few to show anything");
    shop
}

async fn survives(shop: Shop, victims: &'static [&'static str]) {
    shop.ready().await;
    let mut random = Random::from_environment();
    let shelf = StockFixture::stock(shop.client("seller", ALL_SCOPES), 4, UNITS).await;
    let closed = AtomicBool::new(false);
    let buyers = (0..BUYERS).map(|_| buy(shop.client(&unique("buyer"), CUSTOMER), &shelf.products, &closed, random.fork()));
    let buyers = join_all(buyers.collect::<Vec<_>>());
    let havoc = async {
        // On a thread of its own, so that the buyers go on while a program starts.
        let random = random.fork();
        let shop = spawn_blocking(move || havoc(shop, victims, random)).await.unwrap();
        shop.ready().await;
        closed.store(true, Ordering::Relaxed);
        shop
    };
    let (told, shop) = join(buyers, havoc).await;

    let acknowledged = shelf.audit(&shop, &told).await;
    assert!(acknowledged > BUYERS, "{acknowledged} orders are too few to show anything");
}

#[tokio::test]
async fn the_all_in_one_survives_crashes() {
    let shop = Shop::all_in_one_with(|command| {
        command.env("PALISADE_ORDERS__SAGA__LEASE_MS", LEASE_MS);
    });
    survives(shop, &["palisade"]).await;
}

#[tokio::test]
async fn orders_on_postgres_and_products_on_mongo_survive_crashes() {
    let (postgres, mongo) = (servers::durable_postgres(), servers::durable_mongo());
    let shop = Shop::separate_with(Some(&mongo.url("products")), Some(&postgres.url("orders")), |service, command| {
        if service == "orders" {
            command.env("PALISADE_SAGA__LEASE_MS", LEASE_MS);
        }
    });
    survives(shop, &["orders", "products", "gateway"]).await;
}

#[tokio::test]
async fn two_gateways_and_three_products_and_orders_survive_crashes() {
    let (postgres, mongo) = (servers::durable_postgres(), servers::durable_mongo());
    let shop = Shop::replicated(&mongo.url("products"), &postgres.url("orders"), |service, command| {
        if service == "orders" {
            command.env("PALISADE_SAGA__LEASE_MS", LEASE_MS);
        }
    });
    survives(shop, &["orders", "products", "gateway"]).await;
}
