//! What is kept is better than nothing, and says how old it is.

use std::time::Duration;

use palisade_tests::{Client, Shop, eventually, shop::ALL_SCOPES, shop_helpers::create_product};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::{fault, shop, told};

/// A shop whose gateway has a product, and a page of them, that are stale, and for how long they are of use.
async fn with_stale_answers(stale_ms: u64) -> (Shop, Client, [String; 2]) {
    let shop = shop(|command| {
        command.env("PALISADE_CACHE__TTL_MS", "1").env("PALISADE_CACHE__STALE_MS", stale_ms.to_string());
    });
    shop.ready().await;
    let seller = shop.client("seller", ALL_SCOPES);
    let paths = [format!("/products/{}", create_product(&seller, 1).await), "/products".to_owned()];
    for path in &paths {
        seller.get(path).await.ok(200);
    }
    (shop, seller, paths)
}

#[tokio::test]
async fn when_products_is_dead_what_was_kept_is_given_for_a_while() {
    let (mut shop, seller, paths) = with_stale_answers(8_000).await;
    let before = seller.get(&paths[0]).await.ok(200);
    shop.program_mut("products").kill();
    for path in &paths {
        let answer = seller.get(path).await;
        assert!(
            told(&answer).starts_with("palisade; hit; ttl=") && told(&answer).ends_with("; detail=stale-if-error"),
            "{}",
            told(&answer)
        );
        assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
        assert!(answer.header("age").is_some() && answer.header("etag").is_some());
    }
    assert_eq!(seller.get(&paths[0]).await.ok(200), before);
    // Nor does an ingress take it out, which would answer 503 by itself.
    let admin = Client::new(shop.admin_url("gateway"), None);
    let report = eventually(async || {
        let report = admin.get("/readyz").attempt().await.unwrap().json();
        report["dependencies"].as_array().unwrap().iter().any(|one| one["name"] == "products" && one["ok"] == false).then_some(report)
    });
    assert_eq!(report.await["ready"], true);
    // Nobody who wants no such answer is given one.
    seller.get(&paths[0]).header("cache-control", "no-cache").await.any_problem(503);
    for path in &paths {
        eventually(async || Some(seller.get(path).await).filter(|answer| answer.status == 503)).await.any_problem(503);
    }
    shop.program_mut("products").restart();
    eventually(async || Some(seller.get(&paths[0]).await).filter(|answer| answer.status == 200 && told(answer).contains("fwd="))).await;
}

#[tokio::test]
async fn behind_an_open_breaker_what_was_kept_is_given_and_nobody_asked() {
    let (shop, seller, [path, _]) = with_stale_answers(600_000).await;
    let admin = Client::new(shop.admin_url("gateway"), None);
    let set = async |mode: &str| admin.put("/breakers/products", &json!({ "mode": mode })).attempt().await.unwrap();
    assert_eq!(set("forced_open").await.status, 200);
    let asked = crate::asked(&shop).await;
    assert!(told(&seller.get(&path).await).ends_with("; detail=stale-if-error"));
    assert_eq!(crate::asked(&shop).await, asked);
    let unknown = format!("/products/{}", uuid::Uuid::nil());
    seller.get(unknown).await.problem(503, "upstream_unavailable");
    set("active").await;
    eventually(async || Some(seller.get(&path).await).filter(|answer| told(answer) == "palisade; fwd=stale; stored")).await;
}

#[tokio::test]
async fn who_waits_too_long_for_products_is_given_what_was_kept() {
    let (shop, seller, [path, _]) = with_stale_answers(600_000).await;
    shop.program("products").pause();
    let began = Instant::now();
    let answer = timeout(Duration::from_secs(4), seller.get(&path)).await.expect("products would have 5 seconds");
    assert!(told(&answer).ends_with("; detail=stale-while-revalidate"), "{}", told(&answer));
    assert!(began.elapsed() >= Duration::from_millis(400), "products was given some time");
    let hurried = seller.get(&path).header("x-request-timeout", "200").await;
    assert!(told(&hurried).ends_with("; detail=stale-while-revalidate"), "{}", told(&hurried));
    shop.program("products").resume();
    eventually(async || Some(seller.get(&path).await).filter(|answer| told(answer).starts_with("palisade; fwd=stale"))).await;
}

#[tokio::test]
async fn what_products_says_is_not_covered_up() {
    let (shop, seller, [path, _]) = with_stale_answers(600_000).await;
    let reader = shop.client("reader", "products:read");
    seller.delete(&path).await.empty(204);
    reader.get(&path).await.problem(404, "not_found");
    fault(&shop, json!("abort")).await;
    let answer = reader.get(&path).await;
    assert!(answer.status.is_server_error(), "what was removed is not given: {answer:?}");
}
