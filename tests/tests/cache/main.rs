//! Response caching in the gateway: hits, invalidation, and stale responses during outages.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

mod events;
mod hits;
mod redis;
mod stale;

use std::process::Command;

use palisade_tests::{
    Client, Response, Shop,
    process::Program,
    shop::ALL_SCOPES,
    shop_helpers::{product_body, with_changes},
};
use serde_json::{Value, json};

/// Longer than any test.
const LONG_TTL_MS: u64 = 600_000;

/// Starts three services with a caching gateway.
fn shop(configure: impl Fn(&mut Command)) -> Shop {
    Shop::separate_with(None, None, |service, command| {
        if service == "gateway" {
            enable_cache(command);
            configure(command);
        }
        command.env("PALISADE_SERVER__FAULT_INJECTION__ENABLED", "true");
    })
}

/// Enables the cache with a TTL longer than the test.
fn enable_cache(command: &mut Command) {
    command.env("PALISADE_CACHE__TTL_MS", LONG_TTL_MS.to_string());
}

/// Returns a client of an additional gateway.
fn seller_at(gateway: &Program, shop: &Shop) -> Client {
    Client::new(gateway.url("gateway"), Some(shop.token("seller", ALL_SCOPES)))
}

/// Returns the `Cache-Status` header.
#[track_caller]
fn cache_status(answer: &Response) -> &str {
    answer.header("cache-status").unwrap_or_else(|| panic!("no Cache-Status header: {answer:?}"))
}

/// Returns the price in the response, and whether it was a cache hit.
#[track_caller]
fn price_and_hit(answer: &Response) -> (Value, bool) {
    (answer.ok(200)["price"].clone(), cache_status(answer).starts_with("palisade; hit; "))
}

fn product_with_price(price: f64) -> Value {
    with_changes(product_body(100), &json!({ "price": price }))
}

/// Returns the sum of the series whose lines contain all these words.
async fn metric_sum(admin: &str, words: &[&str]) -> u64 {
    let text = Client::new(admin, None).get("/metrics").attempt().await.unwrap().text();
    let lines = text.lines().filter(|line| !line.starts_with('#') && words.iter().all(|word| line.contains(word)));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

/// Returns the number of `FindOne` calls served by products.
async fn find_one_calls(shop: &Shop) -> u64 {
    metric_sum(&shop.admin_url("products"), &["rpc_server_call_duration_seconds_count", "/FindOne"]).await
}

/// Injects a fault into the read methods of products.
async fn inject_fault(shop: &Shop, kind: Value) {
    let rule = json!({ "name": "read", "method": "palisade.products.v1.ProductsService/Find*", "rate": 1.0, "kind": kind });
    let admin = Client::new(shop.admin_url("products"), None);
    assert_eq!(admin.put("/faults", &json!({ "rules": [rule] })).attempt().await.unwrap().status, 200);
}
