//! Rate limits and deadlines.

use std::time::{Duration, Instant};

use palisade_tests::{
    Shop,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{all_items, id_of, product_body, with_changes},
    unique,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[tokio::test]
async fn rate_limited_client_gets_retry_after() {
    let shop = Shop::separate_with(None, None, |service, command| {
        if service == "gateway" {
            command.envs([("PALISADE_SERVER__RATE_LIMIT__PER_SECOND", "1"), ("PALISADE_SERVER__RATE_LIMIT__BURST", "3")]);
        }
    });
    let greedy = shop.client("greedy", CUSTOMER);
    // The burst, plus the requests that are refilled while the machine is slow.
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
#[expect(clippy::disallowed_methods, reason = "measures a real process, whose clock cannot be paused")]
async fn deadline_is_enforced_and_key_allows_retry() {
    let shop = Shop::separate(None, None);
    let seller = shop.client("seller", ALL_SCOPES);
    seller.get("/products").header("x-request-timeout", "0").await.problem(400, "invalid_parameter");

    let (key, category) = (unique("key"), unique("category"));
    let body = with_changes(product_body(1), &json!({ "category": category }));
    shop.program("products").pause();
    let started = Instant::now();
    for request in [seller.get("/products"), seller.post("/products", &body).header("idempotency-key", &key)] {
        request.header("x-request-timeout", "500").await.problem(504, "deadline_exceeded");
    }
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    shop.program("products").resume();

    let created = seller.post("/products", &body).header("idempotency-key", &key).await.ok(201);
    let listed: Vec<_> = all_items(&seller, &format!("/products?category={category}")).await.iter().map(id_of).collect();
    assert_eq!(listed, [id_of(&created)], "a retried request must have one effect");
}

/// A client that sends a large body before it reads gets the reason of the rejection.
#[tokio::test]
async fn early_rejection_reaches_a_client_that_sends_its_body() {
    const BODY_BYTES: usize = 5_000_000;
    let shop = Shop::shared();
    let url = shop.url();
    let host = url.trim_start_matches("http://");
    let authorization = format!("authorization: Bearer {}\r\n", shop.token("seller", ALL_SCOPES));
    let body = vec![b'x'; BODY_BYTES];
    for (authorization, expected) in [("", "401"), (authorization.as_str(), "413")] {
        for round in 0..20 {
            let mut stream = TcpStream::connect(host).await.unwrap();
            let head = format!(
                "POST /products HTTP/1.1\r\nhost: {host}\r\n{authorization}content-type: application/json\r\ncontent-length: {BODY_BYTES}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&body).await.unwrap_or_else(|error| panic!("{expected}, round {round}: {error}"));
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "round {round}: {answer}");
        }
    }
}
