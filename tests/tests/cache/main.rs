//! Answers that the gateway keeps: what a reader sees of them, what outdates them, and what they are good for when something is down.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod events;
mod kept;
mod shared;
mod stale;

use std::process::Command;

use palisade_tests::{
    Answer, Client, Shop,
    process::Program,
    shop::ALL_SCOPES,
    shop_helpers::{product, with},
};
use serde_json::{Value, json};

/// Longer than any test.
const LONG_MS: u64 = 600_000;

/// Three services, of which the gateway keeps answers.
fn shop(configure: impl Fn(&mut Command)) -> Shop {
    Shop::separate_with(None, None, |service, command| {
        if service == "gateway" {
            keeps(command);
            configure(command);
        }
        command.env("PALISADE_SERVER__FAULTS__ENABLED", "true");
    })
}

/// Whatever is kept is fresh to the end of the test.
fn keeps(command: &mut Command) {
    command.env("PALISADE_CACHE__TTL_MS", LONG_MS.to_string());
}

/// Somebody who asks another gateway than the shop's own.
fn seller_at(gateway: &Program, shop: &Shop) -> Client {
    Client::new(gateway.url("gateway"), Some(shop.token("seller", ALL_SCOPES)))
}

/// What the answer says of the cache.
#[track_caller]
fn told(answer: &Answer) -> &str {
    answer.header("cache-status").unwrap_or_else(|| panic!("nothing is told of the cache: {answer:?}"))
}

/// The price that an answer has, and whether that was kept.
#[track_caller]
fn price(answer: &Answer) -> (Value, bool) {
    (answer.ok(200)["price"].clone(), told(answer).starts_with("palisade; hit; "))
}

fn priced(price: f64) -> Value {
    with(product(100), &json!({ "price": price }))
}

/// The sum of the series of a service that have all these words.
async fn counted(admin: &str, words: &[&str]) -> u64 {
    let text = Client::new(admin, None).get("/metrics").attempt().await.unwrap().text();
    let lines = text.lines().filter(|line| !line.starts_with('#') && words.iter().all(|word| line.contains(word)));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

/// How often products was asked for one product.
async fn asked(shop: &Shop) -> u64 {
    counted(&shop.admin_url("products"), &["rpc_server_call_duration_seconds_count", "/FindOne"]).await
}

/// Has products answer `FindOne` otherwise.
async fn fault(shop: &Shop, kind: Value) {
    let rule = json!({ "name": "read", "method": "palisade.products.v1.ProductsService/Find*", "rate": 1.0, "kind": kind });
    let admin = Client::new(shop.admin_url("products"), None);
    assert_eq!(admin.put("/faults", &json!({ "rules": [rule] })).attempt().await.unwrap().status, 200);
}
