//! Load distribution over replicas.

use palisade_tests::{process::Program, traffic::Traffic};
use serde_json::json;

use super::start;
use crate::{TimeLimits, reports::Assertions};

/// Enough clients that each replica always has calls in flight.
const CLIENTS: usize = 36;
/// Measured requests.
const REQUESTS: usize = 4_000;
/// Latency of equal replicas, milliseconds. Larger than the delay by which replicas on one machine
/// affect each other.
const EQUAL_MS: u64 = 30;
/// Latency of the slow replica, milliseconds. Much larger than the noise of a busy machine.
const SLOW_MS: u64 = 1_000;
const TOLERANCE: f64 = 0.2;
const MAX_SLOW_SHARE: f64 = 0.1;

/// Services called through a load balancer, and the called methods.
pub(super) const CALLED_SERVICES: [(&str, &str); 2] =
    [("products", "palisade.products.v1.ProductsService/*"), ("orders", "palisade.orders.v1.OrdersService/*")];

pub(super) async fn spread() -> Assertions {
    let environment = start(TimeLimits::Default, |_| {});
    for (service, method) in CALLED_SERVICES {
        for replica in environment.shop.replicas(service) {
            slow_down(replica, service, method, EQUAL_MS).await;
        }
    }
    let traffic = Traffic::start(&environment.shop, CLIENTS).await;
    traffic.wait_for_more_requests(REQUESTS / 4).await;
    let mut assertions = Assertions::default();
    let equal_shares = shares(&environment.shop, &traffic).await;
    for (shares, (service, _)) in equal_shares.iter().zip(CALLED_SERVICES) {
        #[expect(clippy::cast_precision_loss, reason = "few replicas")]
        let replicas = shares.len() as f64;
        let equal = shares.iter().all(|share| (share * replicas - 1.0).abs() <= TOLERANCE);
        assertions.add(format!("equal replicas of {service} serve equal shares of calls, within 20 %"), equal, percent(shares));
    }
    // One service at a time, because orders is as slow as its upstream.
    for (index, (service, method)) in CALLED_SERVICES.into_iter().enumerate() {
        let first = &environment.shop.replicas(service)[0];
        slow_down(first, service, method, SLOW_MS).await;
        traffic.wait_for_more_requests(REQUESTS / 4).await;
        let shifted = &shares(&environment.shop, &traffic).await[index];
        slow_down(first, service, method, EQUAL_MS).await;
        let text = format!("the first replica of {service} takes a second: it serves less than a tenth of the calls");
        assertions.add(text, shifted[0] < MAX_SLOW_SHARE, percent(shifted));
    }
    let outcome = traffic.stop(&environment.shop).await;
    let failed = outcome.load.failures.len();
    assertions.add("no request fails", failed == 0, format!("{failed} of {} failed", outcome.load.requests));
    assertions
}

async fn slow_down(replica: &Program, service: &str, method: &str, ms: u64) {
    replica.set_faults(service, method, 1.0, Some(json!({ "latency": { "ms": ms } }))).await;
}

/// Returns each replica's share of the next calls of its service.
async fn shares(shop: &palisade_tests::Shop, traffic: &Traffic) -> [Vec<f64>; 2] {
    let before = [calls(shop, CALLED_SERVICES[0].0).await, calls(shop, CALLED_SERVICES[1].0).await];
    traffic.wait_for_more_requests(REQUESTS).await;
    let after = [calls(shop, CALLED_SERVICES[0].0).await, calls(shop, CALLED_SERVICES[1].0).await];
    [0, 1].map(|service| {
        let new_calls: Vec<f64> = after[service].iter().zip(&before[service]).map(|(after, before)| after - before).collect();
        let total: f64 = new_calls.iter().sum();
        new_calls.into_iter().map(|calls| calls / total).collect()
    })
}

async fn calls(shop: &palisade_tests::Shop, service: &str) -> Vec<f64> {
    let mut calls = Vec::new();
    for replica in shop.replicas(service) {
        calls.push(replica.metric_value(service, "rpc_server_call_duration_seconds_count", &[]).await);
    }
    calls
}

fn percent(shares: &[f64]) -> String {
    let shares: Vec<_> = shares.iter().map(|share| format!("{:.1} %", 100.0 * share)).collect();
    shares.join(", ")
}
