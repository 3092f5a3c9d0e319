//! How much one caller may ask, and how long anyone waits.

use std::time::{Duration, Instant};

use palisade_tests::{
    Shop,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{all, id_of, product, with},
    unique,
};
use serde_json::json;

#[tokio::test]
async fn a_caller_over_its_rate_is_told_when_to_come_back() {
    let shop = Shop::separate_with(None, None, |service, command| {
        if service == "gateway" {
            command.envs([("PALISADE_SERVER__RATE_LIMIT__PER_SECOND", "1"), ("PALISADE_SERVER__RATE_LIMIT__BURST", "3")]);
        }
    });
    shop.ready().await;
    let greedy = shop.client("greedy", CUSTOMER);
    // As many as the burst, and those that come free while the machine is slow.
    let mut answer = greedy.get("/products").await;
    for _ in 0..20 {
        if answer.status == 429 {
            break;
        }
        answer.ok(200);
        answer = greedy.get("/products").await;
    }
    answer.problem(429, "rate_limited");
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3).contains(&wait), "{wait}");
    assert!(answer.header("ratelimit").is_some() && answer.header("ratelimit-policy").is_some(), "{:?}", answer.headers);
    shop.client("modest", CUSTOMER).get("/products").await.ok(200);
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "measured from outside, where the clock cannot be paused")]
async fn nobody_waits_longer_than_they_said_and_the_key_is_good_for_another_try() {
    let shop = Shop::separate(None, None);
    shop.ready().await;
    let seller = shop.client("seller", ALL_SCOPES);
    seller.get("/products").header("x-request-timeout", "0").await.problem(504, "deadline_exceeded");

    let (key, category) = (unique("key"), unique("category"));
    let body = with(product(1), &json!({ "category": category }));
    shop.program("products").pause();
    let asked = Instant::now();
    for request in [seller.get("/products"), seller.post("/products", &body).header("idempotency-key", &key)] {
        request.header("x-request-timeout", "500").await.problem(504, "deadline_exceeded");
    }
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    shop.program("products").resume();

    let created = seller.post("/products", &body).header("idempotency-key", &key).await.ok(201);
    let listed: Vec<_> = all(&seller, &format!("/products?category={category}")).await.iter().map(id_of).collect();
    assert_eq!(listed, [id_of(&created)], "asked twice, done once");
}
