//! Three replicas of orders over one store: one of them works on a saga, one of them tells of an event, and one that stops leaves nothing lying.

use std::process::Command;

use futures_util::{StreamExt, future::join, stream};
use palisade_tests::{
    Client, Shop, eventually,
    servers::{self, Nats},
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{accepted, order, settled, create_product},
    unique,
};
use serde_json::json;

const ORDERS: u32 = 90;
const BUYERS: usize = 9;
/// Every order is accepted, reserved, confirmed.
const EVENTS: u32 = 3 * ORDERS;

/// Replicas that tell a broker; `configure` is for orders.
async fn replicas(configure: impl Fn(&mut Command)) -> (Shop, Nats) {
    let nats = servers::nats();
    let postgres = servers::shared_postgres().url(&unique("replicas").replace('-', "_"));
    let shop = Shop::replicated(&servers::shared_mongo().url(&unique("replicas")), &postgres, |service, command| match service {
        "orders" => {
            command.env("PALISADE_EVENTS__NATS_URL", nats.url());
            configure(command);
        }
        "products" => {
            command.env("PALISADE_SERVER__FAULTS__ENABLED", "true");
        }
        _ => {}
    });
    shop.ready().await;
    (shop, nats)
}

/// From now on each saga takes so long that there is time to do something to it.
async fn reserve_slowly(shop: &Shop) {
    for products in shop.replicas("products") {
        let slow = json!({ "latency": { "ms": 500 } });
        products.faults("products", "palisade.products.v1.ProductsService/ReserveStock", 1.0, Some(slow)).await;
    }
}

/// So many orders of one unit through both gateways, many at a time; their ids.
async fn trade(shop: &Shop, product: &str) -> (Client, Vec<String>) {
    let buyer = shop.client("buyer", CUSTOMER);
    let orders = stream::iter(0..ORDERS).map(async |_| accepted(&order(&buyer, &[(product, 1)]).await)).buffer_unordered(BUYERS);
    let ids = orders.collect().await;
    (buyer, ids)
}

/// All of them are confirmed; no step was made twice, no event told twice, and not all by the same replica.
async fn each_once(shop: &Shop, (buyer, ids): (Client, Vec<String>)) {
    for id in &ids {
        assert_eq!(settled(&buyer, id).await["status"], "CONFIRMED", "{id}");
    }
    let counted = async |name: &str, labels: &[&str]| shop.counted("orders", name, labels).await;
    eventually(async || (counted("palisade_outbox_published_total", &[]).await >= f64::from(EVENTS)).then_some(())).await;
    let steps = "palisade_saga_step_duration_seconds_count";
    let counts = [
        counted("palisade_saga_started_total", &[]).await,
        counted("palisade_saga_finished_total", &[]).await,
        counted(steps, &[r#"step="reserve_stock""#, r#"outcome="held""#]).await,
        counted(steps, &[r#"step="confirm_reservation""#, r#"outcome="confirmed""#]).await,
        counted("palisade_outbox_published_total", &[r#"outcome="published""#]).await,
        counted("palisade_outbox_published_total", &[]).await,
    ];
    assert_eq!(counts.map(|count| count.to_string()), [ORDERS, ORDERS, ORDERS, ORDERS, EVENTS, EVENTS].map(|count| count.to_string()));
    let mut at_work = 0;
    for replica in shop.replicas("orders") {
        at_work += usize::from(replica.metric_value("orders", steps, &[r#"outcome="confirmed""#]).await > 0.0);
    }
    assert!(at_work > 1, "one replica did all the work, which shows nothing");
    for service in ["products", "orders"] {
        shop.invariants(service).await;
    }
}

#[tokio::test]
async fn one_replica_runs_each_saga_and_tells_each_event() {
    let (shop, _nats) = replicas(|_| {}).await;
    let product = create_product(&shop.client("seller", ALL_SCOPES), 1_000).await;
    let traded = trade(&shop, &product).await;
    each_once(&shop, traded).await;
}

#[tokio::test]
async fn one_replica_takes_up_each_saga_that_waits() {
    let (mut shop, _nats) = replicas(|command| {
        // Few at a time, so that each replica gets some.
        command.env("PALISADE_SAGA__BATCH", "2").env("PALISADE_SAGA__POLL_MS", "50");
    })
    .await;
    let product = create_product(&shop.client("seller", ALL_SCOPES), 1_000).await;
    for products in shop.replicas_mut("products") {
        products.kill();
    }
    let traded = trade(&shop, &product).await;
    for products in shop.replicas_mut("products") {
        products.restart();
    }
    shop.ready().await;
    each_once(&shop, traded).await;
}

#[tokio::test]
async fn who_stops_finishes_its_sagas_instead_of_leaving_them_leased() {
    let (mut shop, _nats) = replicas(|command| {
        // Answered at once, and of no use to anybody else for longer than this test may take.
        command.env("PALISADE_SAGA__INLINE_WAIT_MS", "20").env("PALISADE_SAGA__LEASE_MS", "600000");
    })
    .await;
    let product = create_product(&shop.client("seller", ALL_SCOPES), 1_000).await;
    reserve_slowly(&shop).await;
    let buyer = shop.client("buyer", CUSTOMER);
    let answer = order(&buyer, &[(&product, 1)]).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    for orders in shop.replicas("orders") {
        orders.ask_to_stop();
    }
    for orders in shop.replicas_mut("orders") {
        assert_eq!(orders.exit_code(), Some(0));
        orders.restart();
    }
    shop.ready().await;
    assert_eq!(settled(&buyer, &accepted(&answer)).await["status"], "CONFIRMED");
}

/// Its key was once "in progress" until the dead one's lease ended.
#[tokio::test]
async fn an_order_whose_replica_dies_is_answered_and_finished_by_another_one_at_once() {
    let (mut shop, _nats) = replicas(|command| {
        command.env("PALISADE_SAGA__LEASE_MS", "600000");
    })
    .await;
    let product = create_product(&shop.client("seller", ALL_SCOPES), 1_000).await;
    reserve_slowly(&shop).await;
    let buyer = shop.client("buyer", CUSTOMER);
    let ordering = async { order(&buyer, &[(&product, 1)]).header("idempotency-key", unique("key")).await };
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
    let id = accepted(&answer);
    assert_eq!(settled(&buyer, &id).await["status"], "CONFIRMED");
}
