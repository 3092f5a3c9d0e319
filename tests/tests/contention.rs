//! Contention: many buyers, few units. Sold and remaining units add up to the initial stock on
//! every combination of stores.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use futures_util::{
    StreamExt,
    future::{join, join_all},
    stream,
};
use palisade_tests::{
    Client, Shop,
    ledger::quantities,
    random::Random,
    servers,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{
        accepted_id, all_items, available_quantity, create_product, id_of, order_body, order_request, place_confirmed_order, set_status,
        wait_until_settled,
    },
    unique,
};
use serde_json::{Value, json};

const CLIENTS: usize = 32;
const ORDERS: usize = 300;
const UNITS: i64 = 37;
const RESTOCKED: i64 = 10;

/// Orders one unit of each product and returns the settled order, if it was accepted.
async fn buy(client: &Client, [first, second]: [&String; 2]) -> Option<Value> {
    let answer = order_request(client, &[(first, 1), (second, 1)]).await;
    if answer.status == 409 {
        answer.problem(409, "insufficient_stock");
        return None;
    }
    Some(wait_until_settled(client, &accepted_id(&answer)).await)
}

async fn assert_never_oversold(shop: &Shop) {
    let seller = shop.client("seller", ALL_SCOPES);
    let products = [create_product(&seller, UNITS).await, create_product(&seller, UNITS).await, create_product(&seller, UNITS).await];
    let buyers: Vec<_> = (0..CLIENTS).map(|_| shop.client(&unique("buyer"), CUSTOMER)).collect();
    let mut random = Random::from_environment();
    let baskets: Vec<_> = (0..ORDERS).map(|_| *random.choose(&[[0, 1], [1, 2], [2, 0]])).collect();
    let orders = stream::iter(baskets.into_iter().zip(buyers.iter().cycle()))
        .map(|(basket, buyer)| buy(buyer, basket.map(|product| &products[product])))
        .buffer_unordered(CLIENTS);

    // Units arrive meanwhile.
    let ledger = format!("/products/{}/stock-adjustments", products[0]);
    let restock = (0..RESTOCKED).map(|_| async { seller.post(&ledger, &json!({ "delta": 1, "reason": "delivery" })).await.ok(201) });
    let (orders, _) = join(orders.collect::<Vec<_>>(), join_all(restock)).await;
    let units = |product: &String| UNITS + if *product == products[0] { RESTOCKED } else { 0 };

    let mut sold = BTreeMap::<String, i64>::new();
    for order in orders.into_iter().flatten().filter(|order| order["status"] == "CONFIRMED") {
        for item in order["items"].as_array().unwrap() {
            *sold.entry(item["productId"].as_str().unwrap().to_owned()).or_default() += item["quantity"].as_i64().unwrap();
        }
    }
    let leftovers = join_all(products.iter().map(|product| available_quantity(&seller, product))).await;
    for (product, left) in products.iter().zip(&leftovers) {
        let sold = sold.get(product).copied().unwrap_or_default();
        assert_eq!(sold + left, units(product), "sold {sold}, left {left}");
        let entries = all_items(&seller, &format!("/products/{product}/stock-adjustments?limit=100")).await;
        assert_eq!(entries.iter().filter_map(|entry| entry["delta"].as_i64()).sum::<i64>(), units(product));
    }
    // 600 units are requested, 121 exist: if two products had units left, an order for both was
    // rejected wrongly.
    assert!(leftovers.iter().filter(|left| **left > 0).count() <= 1, "{leftovers:?}");
    for service in ["products", "orders"] {
        shop.invariants(service).await;
    }
}

#[tokio::test]
async fn sqlite_and_sqlite() {
    assert_never_oversold(&Shop::separate(None, None)).await;
}

#[tokio::test]
async fn mongo_and_sqlite() {
    let mongo = servers::mongo();
    assert_never_oversold(&Shop::separate(Some(&mongo.url("products")), None)).await;
}

#[tokio::test]
async fn sqlite_and_postgres() {
    let postgres = servers::postgres();
    assert_never_oversold(&Shop::separate(None, Some(&postgres.url("orders")))).await;
}

#[tokio::test]
async fn mongo_and_postgres() {
    let (mongo, postgres) = (servers::mongo(), servers::postgres());
    assert_never_oversold(&Shop::separate(Some(&mongo.url("products")), Some(&postgres.url("orders")))).await;
}

#[tokio::test]
async fn mongo_and_postgres_with_replicas() {
    let (mongo, postgres) = (servers::mongo(), servers::postgres());
    assert_never_oversold(&Shop::replicated(&mongo.url("products"), &postgres.url("orders"), |_, _| {})).await;
}

#[tokio::test]
async fn all_in_one() {
    assert_never_oversold(&Shop::all_in_one()).await;
}

/// Buyers revise their orders at once, each to a random part of what there is.
async fn assert_revisions_never_oversell(shop: &Shop) {
    let seller = shop.client("seller", ALL_SCOPES);
    let products = [create_product(&seller, UNITS).await, create_product(&seller, UNITS).await, create_product(&seller, UNITS).await];
    let mut random = Random::from_environment();
    let buyers = (0..12).map(|_| {
        let (buyer, products, mut random) = (shop.client(&unique("buyer"), CUSTOMER), &products, random.fork());
        async move {
            let id = id_of(&place_confirmed_order(&buyer, &[(&products[0], 1)]).await);
            for _ in 0..12 {
                let lines: Vec<(&str, i64)> =
                    products.iter().map(|product| (product.as_str(), random.choose(&[0, 1, 3, 6]).to_owned())).collect();
                let lines: Vec<_> = lines.into_iter().filter(|(_, quantity)| *quantity > 0).collect();
                if lines.is_empty() {
                    continue;
                }
                let answer = buyer.put(format!("/orders/{id}"), &order_body(&lines)).await;
                match answer.status.as_u16() {
                    200 | 202 => drop(wait_until_settled(&buyer, &id).await),
                    _ => drop(answer.problem(409, "insufficient_stock")),
                }
            }
            quantities(&wait_until_settled(&buyer, &id).await)
        }
    });
    let owned = join_all(buyers.collect::<Vec<_>>()).await;
    for product in &products {
        let sold: i64 = owned.iter().filter_map(|owned| owned.get(product)).sum();
        assert_eq!(sold + available_quantity(&seller, product).await, UNITS);
    }
    for service in ["products", "orders"] {
        shop.invariants(service).await;
    }
}

#[tokio::test]
async fn revisions_all_in_one() {
    assert_revisions_never_oversell(&Shop::all_in_one()).await;
}

#[tokio::test]
async fn revisions_on_mongo_and_postgres_with_replicas() {
    let (mongo, postgres) = (servers::mongo(), servers::postgres());
    assert_revisions_never_oversell(&Shop::replicated(&mongo.url("products"), &postgres.url("orders"), |_, _| {})).await;
}

/// Regression test: an order that is cancelled during the audit's comparison must not be reported.
#[tokio::test]
async fn audits_tolerate_concurrent_cancellations() {
    let shop = Shop::all_in_one();
    let product = create_product(&shop.client("seller", ALL_SCOPES), 100_000).await;
    let audited = AtomicBool::new(false);
    let buyers = (0..8).map(|_| {
        let (buyer, product, audited) = (shop.client(&unique("buyer"), CUSTOMER), &product, &audited);
        async move {
            while !audited.load(Ordering::Relaxed) {
                let answer = order_request(&buyer, &[(product, 1)]).await;
                if answer.status == 201 {
                    set_status(&buyer, &id_of(&answer.json()), "CANCELLED").await.ok(200);
                }
            }
        }
    });
    let audits = async {
        for _ in 0..150 {
            shop.invariants("orders").await;
            shop.invariants("products").await;
        }
        audited.store(true, Ordering::Relaxed);
    };
    join(join_all(buyers), audits).await;
}
