//! What people do in a shop of several replicas, and what they were told: reads, and orders that carry a key.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    client::Client,
    ledger::{StockFixture, ClientRecord},
    load::{self, Load, Worker, reader},
    shop::{ALL_SCOPES, CUSTOMER, Shop},
    shop_helpers::{order_body, id_of},
    unique,
};

const UNITS: i64 = 1_000_000;
/// The contract's word for "the first call with this key is still at work": whoever gets it asks again after `Retry-After`.
const IN_PROGRESS: &str = "request_in_progress";
/// How long it goes on asking.
const PATIENCE: Duration = Duration::from_mins(1);

/// Readers and buyers at all gateways of a shop, which are watched meanwhile.
#[derive(Debug)]
pub struct Traffic {
    load: Load,
    shelf: StockFixture,
    buyers: Vec<Buyer>,
    // Ends when it is dropped.
    _watch: JoinSet<()>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Requests and failures. No whole answer from any gateway, or another than was wanted, is a failure.
    pub load: load::Outcome,
    /// Orders that were acknowledged; every one was found, and settled.
    pub orders: usize,
    /// Requests that got their answer from another gateway than the first.
    pub passed_on: usize,
    /// Orders that were asked for again, because the first call with their key was still at work.
    pub told_to_wait: usize,
}

#[derive(Debug, Clone)]
struct Buyer {
    client: Client,
    told: Arc<Mutex<Notes>>,
}

#[derive(Debug, Default)]
struct Notes {
    told: ClientRecord,
    /// The order that was made last, until it was looked at.
    unread: Option<String>,
    waits: usize,
}

impl Traffic {
    /// Begins, in a shop that is ready: half of the people read, the others buy.
    pub async fn start(shop: &Shop, people: usize) -> Self {
        let shelf = StockFixture::stock(shop.client("seller", ALL_SCOPES), 4, UNITS).await;
        let buyer = |_| Buyer { client: shop.client(&unique("buyer"), CUSTOMER), told: Arc::default() };
        let buyers: Vec<_> = (0..people / 2).map(buyer).collect();
        let products = shelf.products.iter().cycle();
        let readers = products.clone().take(people / 2).map(|product| reader(&shelf.seller, &format!("/products/{product}")));
        let buying = products.zip(&buyers).map(|(product, buyer)| buyer.clone().works(product));
        let load = Load::start(readers.chain(buying).collect::<Vec<_>>());
        let watch = shop.gateways().expect("a shop of several replicas").watch();
        Self { load, shelf, buyers, _watch: watch }
    }

    /// Waits for so many more requests.
    pub async fn more(&self, requests: usize) {
        self.load.wait_for_more_requests(requests).await;
    }

    /// How the load stands.
    pub fn so_far(&self) -> load::Outcome {
        self.load.snapshot()
    }

    /// Ends. Panics if an order is lost, or anything else is not as it was told, unless a request failed: what became of that nobody was told.
    pub async fn end(self, shop: &Shop) -> Outcome {
        let load = self.load.stop().await;
        let notes: Vec<_> = self.buyers.into_iter().map(|buyer| (buyer.client, std::mem::take(&mut *lock(&buyer.told)))).collect();
        let told_to_wait = notes.iter().map(|(_, notes)| notes.waits).sum();
        let told: Vec<_> = notes.into_iter().map(|(client, notes)| (client, notes.told)).collect();
        let orders = if load.failures.is_empty() { self.shelf.audit(shop, &told).await } else { 0 };
        let passed_on = shop.gateways().map_or(0, |gateways| gateways.failed_over());
        Outcome { load, orders, passed_on, told_to_wait }
    }
}

impl Buyer {
    /// Orders one unit, then looks at the order.
    fn works(self, product: &str) -> Worker {
        let body = order_body(&[(product, 1)]);
        Box::new(move || {
            if let Some(id) = lock(&self.told).unread.take() {
                return reader(&self.client, &format!("/orders/{id}"))();
            }
            let (buyer, body) = (self.clone(), body.clone());
            Box::pin(async move { buyer.orders(&body).await })
        })
    }

    async fn orders(&self, body: &Value) -> Result<(), String> {
        let key = unique("key");
        let (asked, mut waits) = (Instant::now(), 0);
        loop {
            let answer = self.client.post("/orders", body).header("idempotency-key", &key).attempt().await;
            let answer = answer.map_err(|error| format!("POST {key}: {error:?}"))?;
            match answer.status.as_u16() {
                201 | 202 => {
                    let id = id_of(&answer.json());
                    let mut told = lock(&self.told);
                    told.waits += waits;
                    told.unread = Some(id.clone());
                    told.told.orders.insert(key, id);
                    return Ok(());
                }
                409 if answer.json()["code"] == IN_PROGRESS && asked.elapsed() < PATIENCE => {
                    waits += 1;
                    let seconds = answer.header("retry-after").and_then(|seconds| seconds.parse().ok()).unwrap_or(1);
                    sleep(Duration::from_secs(seconds)).await;
                }
                _ => return Err(format!("POST {key}: {} {}", answer.status, answer.text())),
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
