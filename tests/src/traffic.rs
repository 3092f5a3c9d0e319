//! Traffic of readers and buyers against a replicated shop. Records the responses to orders with an
//! idempotency key.

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
    HANG_TIMEOUT,
    client::Client,
    ledger::{ClientRecord, StockFixture},
    load::{self, Load, Worker, reader},
    shop::{ALL_SCOPES, CUSTOMER, Shop},
    shop_helpers::{id_of, order_body},
    unique,
};

const UNITS: i64 = 1_000_000;
/// Problem code for an idempotency key whose first request is still in progress. The client retries
/// after `Retry-After`.
const IN_PROGRESS: &str = "request_in_progress";
/// Maximum duration of these retries.
const RETRY_TIMEOUT: Duration = HANG_TIMEOUT;

/// Readers and buyers at all gateways of a shop, with readiness probes.
#[derive(Debug)]
pub struct Traffic {
    load: Load,
    fixture: StockFixture,
    buyers: Vec<Buyer>,
    // The probes end when this is dropped.
    _probes: JoinSet<()>,
}

/// Statistics of the traffic.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Requests and failures. No complete response from any gateway, or an unexpected response, is
    /// a failure.
    pub load: load::Outcome,
    /// Number of acknowledged orders, all of them found and settled.
    pub orders: usize,
    /// Number of requests that failed over to another gateway.
    pub failed_over: usize,
    /// Number of retries because the first request with the idempotency key was in progress.
    pub in_progress_retries: usize,
}

#[derive(Debug, Clone)]
struct Buyer {
    client: Client,
    notes: Arc<Mutex<Notes>>,
}

#[derive(Debug, Default)]
struct Notes {
    record: ClientRecord,
    /// ID of the latest order, until it was read.
    unread_order: Option<String>,
    retries: usize,
}

impl Traffic {
    /// Starts the traffic in a ready shop: half of the clients read, the others buy.
    pub async fn start(shop: &Shop, clients: usize) -> Self {
        let fixture = StockFixture::create(shop.client("seller", ALL_SCOPES), 4, UNITS).await;
        let buyer = |_| Buyer { client: shop.client(&unique("buyer"), CUSTOMER), notes: Arc::default() };
        let buyers: Vec<_> = (0..clients / 2).map(buyer).collect();
        let products = fixture.products.iter().cycle();
        let readers = products.clone().take(clients / 2).map(|product| reader(&fixture.seller, &format!("/products/{product}")));
        let buyer_workers = products.zip(&buyers).map(|(product, buyer)| buyer.clone().worker(product));
        let load = Load::start(readers.chain(buyer_workers).collect::<Vec<_>>());
        let probes = shop.gateways().expect("a shop of several replicas").watch();
        Self { load, fixture, buyers, _probes: probes }
    }

    /// Waits for this number of further requests.
    pub async fn wait_for_more_requests(&self, requests: usize) {
        self.load.wait_for_more_requests(requests).await;
    }

    /// Returns the current load statistics.
    pub fn snapshot(&self) -> load::Outcome {
        self.load.snapshot()
    }

    /// Stops the traffic and audits the orders. Panics on a lost order or another inconsistency.
    /// Skips the audit if a request failed, because its result is unknown.
    pub async fn stop(self, shop: &Shop) -> Outcome {
        let load = self.load.stop().await;
        let notes: Vec<_> = self.buyers.into_iter().map(|buyer| (buyer.client, std::mem::take(&mut *lock(&buyer.notes)))).collect();
        let in_progress_retries = notes.iter().map(|(_, notes)| notes.retries).sum();
        let records: Vec<_> = notes.into_iter().map(|(client, notes)| (client, notes.record)).collect();
        let orders = if load.failures.is_empty() { self.fixture.audit(shop, &records).await } else { 0 };
        let failed_over = shop.gateways().map_or(0, |gateways| gateways.failed_over());
        Outcome { load, orders, failed_over, in_progress_retries }
    }
}

impl Buyer {
    /// Orders one unit, then reads the order.
    fn worker(self, product: &str) -> Worker {
        let body = order_body(&[(product, 1)]);
        Box::new(move || {
            if let Some(id) = lock(&self.notes).unread_order.take() {
                return reader(&self.client, &format!("/orders/{id}"))();
            }
            let (buyer, body) = (self.clone(), body.clone());
            Box::pin(async move { buyer.place_order(&body).await })
        })
    }

    async fn place_order(&self, body: &Value) -> Result<(), String> {
        let key = unique("key");
        let (started, mut retries) = (Instant::now(), 0);
        loop {
            let answer = self.client.post("/orders", body).header("idempotency-key", &key).attempt().await;
            let answer = answer.map_err(|error| format!("POST {key}: {error:?}"))?;
            match answer.status.as_u16() {
                201 | 202 => {
                    let id = id_of(&answer.json());
                    let mut notes = lock(&self.notes);
                    notes.retries += retries;
                    notes.unread_order = Some(id.clone());
                    notes.record.orders.insert(key, id);
                    return Ok(());
                }
                409 if answer.json()["code"] == IN_PROGRESS && started.elapsed() < RETRY_TIMEOUT => {
                    retries += 1;
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
