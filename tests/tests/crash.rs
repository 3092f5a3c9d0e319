//! Crash tests: kill -9 at random moments under load. Every acknowledged order exists and is
//! settled, and no unit is lost or sold twice.
//!
//! `PALISADE_CRASH_SECONDS` is the duration of each test (default 15). `PALISADE_SEED` reproduces
//! its random choices.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

use std::{
    env,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::future::{join, join_all};
use palisade_tests::{
    Client, Shop, eventually,
    ledger::{ClientRecord, StockFixture, quantities},
    random::Random,
    servers,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{id_of, order_body, set_status},
    unique,
};
use tokio::{runtime::Handle, task::spawn_blocking, time::Instant};

const BUYERS: usize = 8;
const UNITS: i64 = 1_000;
/// Lease of a saga, milliseconds. An order of a killed process resumes afterwards. Until then its
/// idempotency key is in progress.
const LEASE_MS: &str = "1000";

/// Places orders until the shop closes. A request without a response is repeated with its
/// idempotency key.
async fn buy(client: Client, products: &[String], stopped: &AtomicBool, mut random: Random) -> (Client, ClientRecord) {
    let mut record = ClientRecord::default();
    while !stopped.load(Ordering::Relaxed) {
        let key = unique("key");
        let lines = [(random.choose(products).as_str(), 1), (random.choose(products).as_str(), 2)];
        let body = order_body(&lines);
        let id = eventually(async || {
            let answer = client.post("/orders", &body).header("idempotency-key", &key).attempt().await.ok()?;
            match answer.status.as_u16() {
                201 | 202 => Some(id_of(&answer.json())),
                // Insufficient stock: a failed order, which the audit must find too.
                409 if answer.json()["orderId"].is_string() => Some(answer.json()["orderId"].as_str().unwrap().to_owned()),
                409 | 429 | 500..600 => {
                    eprintln!("{key}: {} {}", answer.status, answer.text());
                    None
                }
                _ => panic!("{}: {}", answer.status, answer.text()),
            }
        })
        .await;
        record.orders.insert(key, id.clone());
        if random.choose_index(0..3) == 0 {
            let lines = order_body(&[(random.choose(products).as_str(), 3)]);
            // A refused one, or one without an answer, may be made or not.
            if let Ok(answer) = client.put(format!("/orders/{id}"), &lines).attempt().await
                && answer.status == 200
            {
                record.revised.insert(id.clone(), quantities(&answer.json()));
            }
        }
        if random.choose_index(0..4) == 0 && set_status(&client, &id, "CANCELLED").attempt().await.is_ok_and(|answer| answer.status == 200)
        {
            record.cancelled.push(id);
        }
    }
    (client, record)
}

/// Kills and restarts `victims` at random moments for the duration of the test.
fn kill_randomly(mut shop: Shop, victims: &[&str], mut random: Random) -> Shop {
    let seconds = env::var("PALISADE_CRASH_SECONDS").map_or(15, |seconds| seconds.parse().expect("PALISADE_CRASH_SECONDS is a number"));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut kills = 0;
    while Instant::now() < end {
        // No condition is awaited: the random moment is intended.
        Handle::current().block_on(tokio::time::sleep(random.millis(200, 2_500)));
        let service = random.choose::<&str>(victims);
        let victim = random.choose_mut(shop.replicas_mut(service));
        victim.kill();
        victim.restart();
        kills += 1;
    }
    assert!(kills > 2, "{kills} kills are too few to be meaningful");
    shop
}

async fn assert_survives_crashes(shop: Shop, victims: &'static [&'static str]) {
    let mut random = Random::from_environment();
    let shelf = StockFixture::create(shop.client("seller", ALL_SCOPES), 4, UNITS).await;
    let closed = AtomicBool::new(false);
    let buyers = (0..BUYERS).map(|_| buy(shop.client(&unique("buyer"), CUSTOMER), &shelf.products, &closed, random.fork()));
    let buyers = join_all(buyers.collect::<Vec<_>>());
    let havoc = async {
        // On a separate thread, so that the buyers continue while a program starts.
        let random = random.fork();
        let shop = spawn_blocking(move || kill_randomly(shop, victims, random)).await.unwrap();
        shop.ready().await;
        closed.store(true, Ordering::Relaxed);
        shop
    };
    let (record, shop) = join(buyers, havoc).await;

    let acknowledged = shelf.audit(&shop, &record).await;
    assert!(acknowledged > BUYERS, "{acknowledged} orders are too few to be meaningful");
}

#[tokio::test]
async fn all_in_one_survives_crashes() {
    let shop = Shop::all_in_one_with(|command| {
        command.env("PALISADE_ORDERS__SAGA__LEASE_MS", LEASE_MS);
    });
    assert_survives_crashes(shop, &["palisade"]).await;
}

#[tokio::test]
async fn separate_services_survive_crashes() {
    let (postgres, mongo) = (servers::durable_postgres(), servers::durable_mongo());
    let shop = Shop::separate_with(Some(&mongo.url("products")), Some(&postgres.url("orders")), |service, command| {
        if service == "orders" {
            command.env("PALISADE_SAGA__LEASE_MS", LEASE_MS);
        }
    });
    assert_survives_crashes(shop, &["orders", "products", "gateway"]).await;
}

#[tokio::test]
async fn replicated_services_survive_crashes() {
    let (postgres, mongo) = (servers::durable_postgres(), servers::durable_mongo());
    let shop = Shop::replicated(&mongo.url("products"), &postgres.url("orders"), |service, command| {
        if service == "orders" {
            command.env("PALISADE_SAGA__LEASE_MS", LEASE_MS);
        }
    });
    assert_survives_crashes(shop, &["orders", "products", "gateway"]).await;
}
