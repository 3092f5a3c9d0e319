//! Stale responses (stale-if-error, stale-while-revalidate) and their `Age`.

use std::time::Duration;

use palisade_tests::{Client, Shop, eventually, shop::ALL_SCOPES, shop_helpers::create_product};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::{cache_status, inject_fault, shop};

/// Starts a shop whose gateway has a stale product and a stale list, usable for `stale_ms`.
async fn shop_with_stale_entries(stale_ms: u64) -> (Shop, Client, [String; 2]) {
    let shop = shop(|command| {
        command.env("PALISADE_CACHE__TTL_MS", "1").env("PALISADE_CACHE__STALE_MS", stale_ms.to_string());
    });
    let seller = shop.client("seller", ALL_SCOPES);
    let paths = [format!("/products/{}", create_product(&seller, 1).await), "/products".to_owned()];
    for path in &paths {
        seller.get(path).await.ok(200);
    }
    (shop, seller, paths)
}

#[tokio::test]
async fn stale_entries_are_served_while_products_is_down() {
    let (mut shop, seller, paths) = shop_with_stale_entries(8_000).await;
    let before = seller.get(&paths[0]).await.ok(200);
    shop.program_mut("products").kill();
    for path in &paths {
        let answer = seller.get(path).await;
        assert!(
            cache_status(&answer).starts_with("palisade; hit; ttl=") && cache_status(&answer).ends_with("; detail=stale-if-error"),
            "{}",
            cache_status(&answer)
        );
        assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
        assert!(answer.header("age").is_some() && answer.header("etag").is_some());
    }
    assert_eq!(seller.get(&paths[0]).await.ok(200), before);
    // The gateway stays ready, so that an ingress does not remove it and respond 503 itself.
    let admin = Client::new(shop.admin_url("gateway"), None);
    let report = eventually(async || {
        let report = admin.get("/readyz").attempt().await.unwrap().json();
        report["dependencies"].as_array().unwrap().iter().any(|one| one["name"] == "products" && one["ok"] == false).then_some(report)
    });
    assert_eq!(report.await["ready"], true);
    // `no-cache` excludes stale responses.
    seller.get(&paths[0]).header("cache-control", "no-cache").await.any_problem(503);
    for path in &paths {
        eventually(async || Some(seller.get(path).await).filter(|answer| answer.status == 503)).await.any_problem(503);
    }
    shop.program_mut("products").restart();
    eventually(async || Some(seller.get(&paths[0]).await).filter(|answer| answer.status == 200 && cache_status(answer).contains("fwd=")))
        .await;
}

#[tokio::test]
async fn open_breaker_serves_stale_entries_without_calls() {
    let (shop, seller, [path, _]) = shop_with_stale_entries(600_000).await;
    let admin = Client::new(shop.admin_url("gateway"), None);
    let set = async |mode: &str| admin.put("/breakers/products", &json!({ "mode": mode })).attempt().await.unwrap();
    assert_eq!(set("forced_open").await.status, 200);
    let asked = crate::find_one_calls(&shop).await;
    assert!(cache_status(&seller.get(&path).await).ends_with("; detail=stale-if-error"));
    assert_eq!(crate::find_one_calls(&shop).await, asked);
    let unknown = format!("/products/{}", uuid::Uuid::nil());
    seller.get(unknown).await.problem(503, "upstream_unavailable");
    set("active").await;
    eventually(async || Some(seller.get(&path).await).filter(|answer| cache_status(answer) == "palisade; fwd=stale; stored")).await;
}

#[tokio::test]
async fn soft_timeout_serves_stale_entry() {
    let (shop, seller, [path, _]) = shop_with_stale_entries(600_000).await;
    shop.program("products").pause();
    let started = Instant::now();
    let answer = timeout(Duration::from_secs(4), seller.get(&path)).await.expect("stale response before the call timeout of 5 seconds");
    assert!(cache_status(&answer).ends_with("; detail=stale-while-revalidate"), "{}", cache_status(&answer));
    assert!(started.elapsed() >= Duration::from_millis(400), "products must get the soft timeout first");
    let hurried = seller.get(&path).header("x-request-timeout", "200").await;
    assert!(cache_status(&hurried).ends_with("; detail=stale-while-revalidate"), "{}", cache_status(&hurried));
    shop.program("products").resume();
    eventually(async || Some(seller.get(&path).await).filter(|answer| cache_status(answer).starts_with("palisade; fwd=stale"))).await;
}

#[tokio::test]
async fn not_found_replaces_stale_entry() {
    let (shop, seller, [path, _]) = shop_with_stale_entries(600_000).await;
    let reader = shop.client("reader", "products:read");
    seller.delete(&path).await.empty(204);
    reader.get(&path).await.problem(404, "not_found");
    inject_fault(&shop, json!("abort")).await;
    let answer = reader.get(&path).await;
    assert!(answer.status.is_server_error(), "removed products must not be served: {answer:?}");
}
