//! Three replicas of orders over one store: leases give each saga and event to one replica, and a
//! stopped replica leaves no lease behind.

use std::process::Command;

use futures_util::{StreamExt, future::join, stream};
use palisade_tests::{
    Client, Shop, eventually,
    servers::{self, Nats},
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{accepted_id, create_product, order_request, wait_until_settled},
    unique,
};
use serde_json::json;

const ORDERS: u32 = 90;
const BUYERS: usize = 9;
/// Three events per order: accepted, reserved, confirmed.
const EVENTS: u32 = 3 * ORDERS;

/// Starts replicas that publish to a broker. `configure` is applied to orders.
fn replicas(configure: impl Fn(&mut Command)) -> (Shop, Nats) {
    let nats = servers::nats();
    let postgres = servers::shared_postgres().url(&unique("replicas").replace('-', "_"));
    let shop = Shop::replicated(&servers::shared_mongo().url(&unique("replicas")), &postgres, |service, command| match service {
        "orders" => {
            command.env("PALISADE_EVENTS__NATS_URL", nats.url());
            configure(command);
        }
        "products" => {
            command.env("PALISADE_SERVER__FAULT_INJECTION__ENABLED", "true");
        }
        _ => {}
    });
    (shop, nats)
}

/// Slows down the saga's reservation step, so that a test can interrupt it.
async fn reserve_slowly(shop: &Shop) {
    for products in shop.replicas("products") {
        let slow = json!({ "latency": { "ms": 500 } });
        products.set_faults("products", "palisade.products.v1.ProductsService/ReserveStock", 1.0, Some(slow)).await;
    }
}

/// Places [`ORDERS`] orders of one unit through both gateways concurrently and returns their IDs.
async fn place_orders(shop: &Shop, product: &str) -> (Client, Vec<String>) {
    let buyer = shop.client("buyer", CUSTOMER);
    let orders = stream::iter(0..ORDERS).map(async |_| accepted_id(&order_request(&buyer, &[(product, 1)]).await)).buffer_unordered(BUYERS);
    let ids = orders.collect().await;
    (buyer, ids)
}

/// Asserts that all orders are confirmed, every step and event happened once, and the work was
/// shared between replicas.
async fn assert_each_handled_once(shop: &Shop, (buyer, ids): (Client, Vec<String>)) {
    for id in &ids {
        assert_eq!(wait_until_settled(&buyer, id).await["status"], "CONFIRMED", "{id}");
    }
    let counted = async |name: &str, labels: &[&str]| shop.counted("orders", name, labels).await;
    eventually(async || (counted("palisade_outbox_published_total", &[]).await >= f64::from(EVENTS)).then_some(())).await;
    let steps = "palisade_saga_step_duration_seconds_count";
    let counts = [
        counted("palisade_saga_started_total", &[]).await,
        counted("palisade_saga_finished_total", &[]).await,
        counted(steps, &[r#"step="reserve_stock""#, r#"outcome="confirmed""#]).await,
        counted("palisade_outbox_published_total", &[r#"outcome="published""#]).await,
        counted("palisade_outbox_published_total", &[]).await,
    ];
    assert_eq!(counts.map(|count| count.to_string()), [ORDERS, ORDERS, ORDERS, EVENTS, EVENTS].map(|count| count.to_string()));
    let mut at_work = 0;
    for replica in shop.replicas("orders") {
        at_work += usize::from(replica.metric_value("orders", steps, &[r#"outcome="confirmed""#]).await > 0.0);
    }
    assert!(at_work > 1, "one replica did all the work");
    for service in ["products", "orders"] {
        shop.invariants(service).await;
    }
}

#[tokio::test]
async fn each_saga_and_event_is_handled_once() {
    let (shop, _nats) = replicas(|_| {});
    let product = create_product(&shop.client("seller", ALL_SCOPES), 1_000).await;
    let traded = place_orders(&shop, &product).await;
    assert_each_handled_once(&shop, traded).await;
}

#[tokio::test]
async fn pending_sagas_are_resumed_once() {
    let (mut shop, _nats) = replicas(|command| {
        // Small batches, so that each replica claims some sagas.
        command.env("PALISADE_SAGA__BATCH", "2").env("PALISADE_SAGA__POLL_INTERVAL_MS", "50");
    });
    let product = create_product(&shop.client("seller", ALL_SCOPES), 1_000).await;
    for products in shop.replicas_mut("products") {
        products.kill();
    }
    let traded = place_orders(&shop, &product).await;
    for products in shop.replicas_mut("products") {
        products.restart();
    }
    shop.ready().await;
    assert_each_handled_once(&shop, traded).await;
}

#[tokio::test]
async fn shutdown_finishes_sagas_and_releases_leases() {
    let (mut shop, _nats) = replicas(|command| {
        // Responds immediately, and holds leases for longer than the test takes.
        command.env("PALISADE_SAGA__INLINE_WAIT_MS", "20").env("PALISADE_SAGA__LEASE_MS", "600000");
    });
    let product = create_product(&shop.client("seller", ALL_SCOPES), 1_000).await;
    reserve_slowly(&shop).await;
    let buyer = shop.client("buyer", CUSTOMER);
    let answer = order_request(&buyer, &[(&product, 1)]).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    for orders in shop.replicas("orders") {
        orders.terminate();
    }
    for orders in shop.replicas_mut("orders") {
        assert_eq!(orders.exit_code(), Some(0));
        orders.restart();
    }
    shop.ready().await;
    assert_eq!(wait_until_settled(&buyer, &accepted_id(&answer)).await["status"], "CONFIRMED");
}

/// Regression test: the idempotency key must not stay "in progress" until the dead replica's lease
/// expires.
#[tokio::test]
async fn killed_replica_is_taken_over_immediately() {
    let (mut shop, _nats) = replicas(|command| {
        command.env("PALISADE_SAGA__LEASE_MS", "600000");
    });
    let product = create_product(&shop.client("seller", ALL_SCOPES), 1_000).await;
    reserve_slowly(&shop).await;
    let buyer = shop.client("buyer", CUSTOMER);
    let ordering = async { order_request(&buyer, &[(&product, 1)]).header("idempotency-key", unique("key")).await };
    let killing = async {
        let its_replica = eventually(async || {
            for (index, replica) in shop.replicas("orders").iter().enumerate() {
                if replica.metric_value("orders", "palisade_saga_started_total", &[]).await > 0.0 {
                    return Some(index);
                }
            }
            None
        });
        let its_replica = its_replica.await;
        shop.replicas_mut("orders")[its_replica].kill();
    };
    let (answer, ()) = join(ordering, killing).await;
    let id = accepted_id(&answer);
    assert_eq!(wait_until_settled(&buyer, &id).await["status"], "CONFIRMED");
}
