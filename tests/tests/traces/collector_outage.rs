//! Outage and restart of the trace collector.

use palisade_tests::{
    Shop, eventually,
    otlp::{Collector, Protocol},
    shop::ALL_SCOPES,
    shop_helpers::create_product,
};

use super::{assert_catalogued, complete_with, shop};

/// Number of requests during the outage.
const REQUESTS: usize = 200;
/// Maximum number of log records per process about the outage.
const LINES: usize = 10;

const SERVICES: [&str; 3] = ["gateway", "products", "orders"];

fn lines(shop: &Shop) -> [usize; 3] {
    SERVICES.map(|service| shop.program(service).log().lines().count())
}

#[tokio::test]
async fn collector_outage_is_tolerated_and_export_resumes() {
    tolerate_outage(Protocol::Grpc).await;
}

#[tokio::test]
async fn http_collector_outage_is_tolerated() {
    tolerate_outage(Protocol::Http).await;
}

async fn tolerate_outage(protocol: Protocol) {
    let mut collector = Collector::start_with(protocol);
    let mut shop = shop(&collector, |_, _| {});
    let seller = shop.client("seller", ALL_SCOPES);
    let path = format!("/products/{}", create_product(&seller, 1).await);
    let answer = seller.get(&path).await;
    collector.trace(answer.header("x-trace-id").unwrap(), complete_with(3)).await;

    let before = lines(&shop);
    collector.kill();
    for _ in 0..REQUESTS {
        seller.get(&path).await.ok(200);
    }
    for ((service, before), after) in SERVICES.into_iter().zip(before).zip(lines(&shop)) {
        assert!(after - before <= LINES, "{service} wrote {} lines:\n{}", after - before, shop.program(service).last_lines());
    }

    collector.restart();
    eventually(async || {
        let answer = seller.get(&path).await;
        let id = answer.header("x-trace-id").unwrap();
        within_a_second(async || collector.spans().iter().any(|span| span.trace_id == id)).await.then_some(())
    })
    .await;
    // Finished spans are flushed at shutdown.
    let last = seller.get(&path).await;
    for service in SERVICES {
        shop.program(service).terminate();
        assert_eq!(shop.program_mut(service).exit_code(), Some(0), "{service}");
    }
    collector.trace(last.header("x-trace-id").unwrap(), complete_with(3)).await;
    assert_catalogued(&collector);
}

/// Returns whether the condition is met within a second.
async fn within_a_second(ask: impl AsyncFn() -> bool) -> bool {
    let comes = eventually(async || ask().await.then_some(()));
    tokio::time::timeout(std::time::Duration::from_secs(1), comes).await.is_ok()
}
