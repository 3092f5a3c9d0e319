//! Traffic of an ordinary customer: reads, lists and orders, one at a time per worker.

use std::{
    fmt,
    time::{Duration, Instant as WallClock},
};

use palisade_tests::{
    Client, Shop,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{create_product, order_body},
    unique,
};
use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::attack::Attack;

/// Requests sent at once.
const WORKERS: usize = 4;
/// Rounds of each worker. A round is one request of each kind.
const ROUNDS: usize = 25;
/// Minimum interval between two requests of a worker.
const INTERVAL: Duration = Duration::from_millis(5);
/// Minimum share of successful requests during an attack.
const SUCCESS_SHARE: f64 = 0.99;

/// An ordinary customer of a shop.
#[derive(Debug, Clone)]
pub(crate) struct Victim {
    client: Client,
    product: String,
}

/// Results of some traffic.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    latencies: Vec<Duration>,
    failures: Vec<String>,
}

impl Victim {
    /// Creates a customer with a product that never sells out.
    pub(crate) async fn enter(shop: &Shop) -> Self {
        let product = create_product(&shop.client("seller", ALL_SCOPES), 1_000_000).await;
        Self { client: shop.client(&unique("victim"), CUSTOMER), product }
    }

    /// Returns the product that the victim buys.
    pub(crate) fn product(&self) -> &str {
        &self.product
    }

    /// Measures the victim's traffic in a quiet shop, then during the attack that `start` begins.
    /// Panics if too many requests fail during the attack.
    pub(crate) async fn assert_served_during(&self, name: &str, start: impl AsyncFnOnce() -> Attack) {
        let quiet = self.traffic().await;
        assert!(quiet.failures.is_empty(), "{name}: failures without an attack: {:?}", quiet.failures);
        let attack = start().await;
        let mut attacked = self.traffic().await;
        if attacked.success_share() < SUCCESS_SHARE {
            // A machine that stood still fails the requests of that moment. An attack, which goes
            // on, fails more.
            eprintln!("{name}: measured again, after {attacked}: {:?}", attacked.failures);
            attacked = self.traffic().await;
        }
        let sent = attack.stop().await;
        eprintln!("{name}: quiet {quiet}; attacked {attacked}; {sent} requests by the attacker were answered");
        assert!(
            attacked.success_share() >= SUCCESS_SHARE,
            "{name}: {attacked}: {:?}",
            &attacked.failures[..attacked.failures.len().min(5)]
        );
    }

    async fn traffic(&self) -> Outcome {
        let mut workers = JoinSet::new();
        for _ in 0..WORKERS {
            let victim = self.clone();
            workers.spawn(async move { victim.work().await });
        }
        let mut outcome = Outcome::default();
        while let Some(worker) = workers.join_next().await {
            outcome.merge(worker.unwrap());
        }
        outcome.latencies.sort();
        outcome
    }

    #[expect(clippy::disallowed_methods, reason = "measures real processes, whose clock cannot be paused")]
    async fn work(&self) -> Outcome {
        let (mut outcome, mut ticks) = (Outcome::default(), interval(INTERVAL));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let order = order_body(&[(&self.product, 1)]);
        for _ in 0..ROUNDS {
            for kind in ["product", "products", "order", "orders"] {
                ticks.tick().await;
                let started = WallClock::now();
                let result = self.request(kind, &order).await;
                outcome.latencies.push(started.elapsed());
                outcome.failures.extend(result.err());
            }
        }
        outcome
    }

    async fn request(&self, kind: &str, order: &Value) -> Result<(), String> {
        let request = match kind {
            "product" => self.client.get(format!("/products/{}", self.product)),
            "products" => self.client.get("/products?limit=5"),
            "order" => self.client.post("/orders", order),
            _ => self.client.get("/orders?limit=5"),
        };
        match request.attempt().await {
            Ok(answer) if answer.status.is_success() => Ok(()),
            Ok(answer) => Err(format!("{kind}: {} {}", answer.status, answer.text())),
            Err(error) => Err(format!("{kind}: {error:?}")),
        }
    }
}

impl Outcome {
    fn merge(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.failures.extend(other.failures);
    }

    fn success_share(&self) -> f64 {
        let count = |of: usize| f64::from(u32::try_from(of).unwrap());
        1.0 - count(self.failures.len()) / count(self.latencies.len())
    }

    fn percentile(&self, percent: usize) -> Duration {
        self.latencies[(self.latencies.len() - 1) * percent / 100]
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, p99) = (self.percentile(50), self.percentile(99));
        write!(f, "{:.1} % of {} served, p50 {median:?}, p99 {p99:?}", self.success_share() * 100.0, self.latencies.len())
    }
}
