//! Shared Redis cache: saves calls to products, and only adds latency when it fails.

use std::time::Duration;

use palisade_tests::{
    Client, Response, Shop, eventually,
    process::Program,
    servers::Redis,
    shop::ALL_SCOPES,
    shop_helpers::{create_product, id_of},
};
use serde_json::json;
use tokio::time::timeout;

use crate::{cache_status, enable_cache, find_one_calls, metric_sum, price_and_hit, product_with_price, seller_at, shop};

/// Longer than any read here, shorter than the delay by a hanging Redis without a timeout.
const READ_TIMEOUT: Duration = Duration::from_secs(3);

struct TwoGateways {
    other: Program,
    shop: Shop,
    redis: Redis,
    first: Client,
    second: Client,
}

impl TwoGateways {
    async fn start() -> Self {
        let redis = Redis::start();
        let url = redis.url();
        let shop = shop(|command| {
            command.env("PALISADE_CACHE__REDIS_URL", &url);
        });
        let other = shop.additional_gateway(|command| {
            enable_cache(command);
            command.env("PALISADE_CACHE__REDIS_URL", &url);
        });
        shop.ready().await;
        let (here, there) = (shop.client("seller", ALL_SCOPES), seller_at(&other, &shop));
        Self { other, shop, redis, first: here, second: there }
    }

    /// Returns the number of Redis operations of the first gateway with this outcome.
    async fn redis_operations(&self, outcome: &str) -> u64 {
        metric_sum(&self.shop.admin_url("gateway"), &["palisade_cache_redis_operations_total", &format!("\"{outcome}\"")]).await
    }

    /// Creates a product that was never read.
    async fn product(&self) -> String {
        format!("/products/{}", create_product(&self.first, 5).await)
    }
}

fn is_shared(answer: &Response) -> bool {
    cache_status(answer).starts_with("palisade; hit; ttl=") && cache_status(answer).ends_with("; detail=shared")
}

/// Reads new products through both gateways until the second gets one from Redis.
async fn wait_until_shared(scene: &TwoGateways) {
    eventually(async || {
        let path = scene.product().await;
        scene.first.get(&path).await.ok(200);
        is_shared(&scene.second.get(&path).await).then_some(())
    })
    .await;
}

#[tokio::test]
async fn gateways_share_entries_through_redis() {
    let scene = TwoGateways::start().await;
    wait_until_shared(&scene).await;
    let path = format!("/products/{}", id_of(&scene.first.post("/products", &product_with_price(5.5)).await.ok(201)));
    let before = find_one_calls(&scene.shop).await;
    let first = scene.first.get(&path).await;
    let second = eventually(async || Some(scene.second.get(&path).await).filter(is_shared)).await;
    assert_eq!((second.ok(200), second.header("etag")), (first.ok(200), first.header("etag")));
    assert!(second.header("age").is_some());
    assert!(find_one_calls(&scene.shop).await <= before + 2);
    let third = scene.second.get(&path).await;
    assert!(
        cache_status(&third).starts_with("palisade; hit; ") && !is_shared(&third),
        "the second read must hit the local cache: {}",
        cache_status(&third)
    );
}

#[tokio::test]
async fn write_invalidates_shared_entry() {
    let scene = TwoGateways::start().await;
    wait_until_shared(&scene).await;
    let path = format!("/products/{}", id_of(&scene.first.post("/products", &product_with_price(5.5)).await.ok(201)));
    let set = scene.redis_operations("done").await;
    scene.first.get(&path).await.ok(200);
    eventually(async || (scene.redis_operations("done").await > set).then_some(())).await;
    let told_before = scene.redis_operations("done").await;
    scene.first.put(&path, &product_with_price(6.5)).await.ok(200);
    eventually(async || (scene.redis_operations("done").await > told_before).then_some(())).await;
    assert_eq!(price_and_hit(&scene.second.get(&path).await), (json!(6.5), false));
}

#[tokio::test]
async fn failing_or_hanging_redis_only_adds_latency() {
    let mut scene = TwoGateways::start().await;
    wait_until_shared(&scene).await;
    let read = async |client: &Client, path: &str| timeout(READ_TIMEOUT, client.get(path)).await.expect("response in time").ok(200);
    for hangs in [false, true] {
        let (old, new) = (scene.product().await, scene.product().await);
        read(&scene.first, &old).await;
        if hangs {
            scene.redis.pause();
        } else {
            scene.redis.kill();
        }
        let failed = scene.redis_operations("failed").await;
        for path in [&old, &new] {
            assert_eq!(read(&scene.first, path).await, read(&scene.second, path).await);
            timeout(READ_TIMEOUT, scene.first.put(path, &product_with_price(7.5))).await.expect("response in time").ok(200);
            assert_eq!(price_and_hit(&scene.first.get(path).await).0, 7.5);
        }
        // After a failure Redis is left alone for a while, which may have begun before.
        let failure = async || {
            timeout(READ_TIMEOUT, scene.first.put(&new, &product_with_price(7.5))).await.expect("response in time").ok(200);
            (scene.redis_operations("failed").await > failed).then_some(())
        };
        eventually(failure).await;
        if hangs {
            scene.redis.resume();
        } else {
            scene.redis.restart();
        }
        // The failure does not affect readiness.
        let admin = Client::new(scene.other.url("gateway-admin"), None);
        assert_eq!(admin.get("/readyz").attempt().await.unwrap().status, 200);
        wait_until_shared(&scene).await;
    }
    let log = scene.other.log() + &scene.shop.program("gateway").log();
    assert!(!log.contains(Redis::PASSWORD), "the Redis password leaked into the log");
}
