//! A collector that goes away and comes back.

use palisade_tests::{Shop, eventually, otlp::Collector, shop::ALL_SCOPES, shop_helpers::create_product};

use super::{catalogued, shop, whole};

/// Requests during the outage.
const REQUESTS: usize = 200;
/// Log lines that a process may write about it.
const LINES: usize = 10;

const SERVICES: [&str; 3] = ["gateway", "products", "orders"];

fn lines(shop: &Shop) -> [usize; 3] {
    SERVICES.map(|service| shop.program(service).log().lines().count())
}

#[tokio::test]
async fn without_a_collector_services_go_on_and_their_spans_come_again_when_it_is_back() {
    let mut collector = Collector::start();
    let mut shop = shop(&collector, |_, _| {}).await;
    let seller = shop.client("seller", ALL_SCOPES);
    let path = format!("/products/{}", create_product(&seller, 1).await);
    let answer = seller.get(&path).await;
    collector.trace(answer.header("x-trace-id").unwrap(), whole(3)).await;

    let before = lines(&shop);
    collector.kill();
    for _ in 0..REQUESTS {
        seller.get(&path).await.ok(200);
    }
    for ((service, before), after) in SERVICES.into_iter().zip(before).zip(lines(&shop)) {
        assert!(after - before <= LINES, "{service} wrote {} lines:\n{}", after - before, shop.program(service).log());
    }

    collector.restart();
    eventually(async || {
        let answer = seller.get(&path).await;
        let id = answer.header("x-trace-id").unwrap();
        eventually_soon(async || collector.spans().iter().any(|span| span.trace_id == id)).await.then_some(())
    })
    .await;
    // What has ended is not lost when a process is told to stop.
    let last = seller.get(&path).await;
    for service in SERVICES {
        shop.program(service).ask_to_stop();
        assert_eq!(shop.program_mut(service).exit_code(), Some(0), "{service}");
    }
    collector.trace(last.header("x-trace-id").unwrap(), whole(3)).await;
    catalogued(&collector);
}

/// Whether it comes about within a second.
async fn eventually_soon(ask: impl AsyncFn() -> bool) -> bool {
    let comes = eventually(async || ask().await.then_some(()));
    tokio::time::timeout(std::time::Duration::from_secs(1), comes).await.is_ok()
}
