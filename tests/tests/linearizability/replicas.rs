//! Histories of concurrent clients, with and without replicas, while programs are killed.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use futures_util::future::{join_all, join3};
use palisade_tests::{
    Shop,
    linearizability::{Model, Operation, check},
    random::Random,
    servers,
    shop::{ALL_SCOPES, CUSTOMER, SERVICES},
    shop_helpers::create_product,
    unique,
};
use tokio::{runtime::Handle, task::spawn_blocking};

use crate::{order, orders, product, products};

/// Products whose reservations are recorded.
const PRODUCTS: usize = 3;
/// Buyers, each with three clients.
const BUYERS: usize = 3;
/// Kills of each service.
const KILLS: usize = 2;
/// Lease of a saga, milliseconds: an order of a killed process resumes afterwards.
const LEASE_MS: &str = "1000";

fn configure(service: &str, command: &mut Command) {
    if service == "orders" {
        command.env("PALISADE_SAGA__LEASE_MS", LEASE_MS);
    }
}

/// Kills and restarts a program of each service at random moments.
fn kill_randomly(mut shop: Shop, mut random: Random) -> Shop {
    for _ in 0..KILLS {
        for service in SERVICES {
            // No condition is awaited: the random moment is intended.
            Handle::current().block_on(tokio::time::sleep(random.millis(100, 1_200)));
            let victim = random.choose_mut(shop.replicas_mut(service));
            victim.kill();
            victim.restart();
        }
    }
    shop
}

/// Asserts that a history is linearizable, and that it is not with a reply that contradicts it.
fn assert_linearizable<M: Model>(operations: &[Operation<M::Call, M::Reply>], planted: Operation<M::Call, M::Reply>) -> usize {
    let visited = check::<M>(operations).unwrap_or_else(|error| panic!("{error}"));
    let with_fault = [operations, &[planted]].concat();
    check::<M>(&with_fault).expect_err("a planted stale read is found");
    visited
}

/// Operation after all others.
fn last<C, R>(operations: &[Operation<C, R>], call: C, reply: R) -> Operation<C, R> {
    let end = operations.iter().map(|operation| operation.replied_at.unwrap_or(operation.called_at)).max().unwrap_or_default();
    Operation { call, reply: Some(reply), called_at: end + 1, replied_at: Some(end + 2) }
}

async fn assert_histories_are_linearizable(shop: Shop) {
    let mut random = Random::from_environment();
    let seller = shop.client("seller", ALL_SCOPES);
    // Half of the orders are for a product that is sold out early.
    let sold = [create_product(&seller, 1_000).await, create_product(&seller, 20).await];
    let subjects = join_all((0..PRODUCTS).map(|_| products::Subject::create(&shop))).await;
    let replicas = products::Products::new(&shop);
    let stopped = AtomicBool::new(false);
    let reserving = subjects.iter().map(|subject| {
        let mut random = random.fork();
        let (replicas, stopped) = (&replicas, &stopped);
        async move { subject.run(replicas, stopped, &mut random).await }
    });
    let reserving = join_all(reserving.collect::<Vec<_>>());
    let buying = (0..BUYERS).map(|_| orders::run(shop.client(&unique("buyer"), CUSTOMER), &sold, &stopped, random.fork()));
    let buying = join_all(buying.collect::<Vec<_>>());
    let killing = async {
        // On a separate thread, so that the clients continue while a program starts.
        let random = random.fork();
        let shop = spawn_blocking(move || kill_randomly(shop, random)).await.unwrap();
        shop.ready().await;
        stopped.store(true, Ordering::Relaxed);
        shop
    };
    let (_, bought, shop) = join3(reserving, buying, killing).await;

    let mut counts = [0; 4];
    for subject in &subjects {
        let operations = subject.history().operations();
        let units = operations.iter().rev().find_map(|operation| match operation.reply {
            Some(product::Reply::Units(units)) if operation.call == product::Call::Read => Some(units),
            _ => None,
        });
        let stale = last(&operations, product::Call::Read, product::Reply::Units(units.unwrap() + 1));
        counts[1] += assert_linearizable::<product::Product>(&operations, stale);
        counts[0] += operations.len();
    }
    for history in bought.iter().flatten() {
        let operations = history.operations();
        // It was pending at most before the first read.
        let stale = last(&operations, order::Call::Read, order::Reply::Is(order::Status::Pending, 0));
        counts[3] += assert_linearizable::<order::Order>(&operations, stale);
        counts[2] += operations.len();
    }
    eprintln!("{} calls about products ({} steps), {} about orders ({} steps)", counts[0], counts[1], counts[2], counts[3]);
    // The audit of orders reports the reservations that were made here without an order.
    shop.invariants("products").await;
}

#[tokio::test]
async fn mongo_and_postgres_with_replicas() {
    let (postgres, mongo) = (servers::postgres(), servers::mongo());
    assert_histories_are_linearizable(Shop::replicated(&mongo.url("products"), &postgres.url("orders"), configure)).await;
}

#[tokio::test]
async fn sqlite() {
    assert_histories_are_linearizable(Shop::separate_with(None, None, configure)).await;
}
