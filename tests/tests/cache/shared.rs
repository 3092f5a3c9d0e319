//! A Redis that gateways share: it saves calls, and costs nothing but time when it is away.

use std::time::Duration;

use palisade_tests::{
    Answer, Client, Shop, eventually,
    process::Program,
    servers::Redis,
    shop::ALL_SCOPES,
    shop_helpers::{id_of, create_product},
};
use serde_json::json;
use tokio::time::timeout;

use crate::{asked, counted, keeps, price, priced, seller_at, shop, told};

/// Longer than any read may take here, and shorter than what a hanging Redis would cost without a limit.
const SOON: Duration = Duration::from_secs(3);

struct Scene {
    other: Program,
    shop: Shop,
    redis: Redis,
    here: Client,
    there: Client,
}

impl Scene {
    async fn start() -> Self {
        let redis = Redis::start();
        let url = redis.url();
        let shop = shop(|command| {
            command.env("PALISADE_CACHE__REDIS_URL", &url);
        });
        let other = shop.another_gateway(|command| {
            keeps(command);
            command.env("PALISADE_CACHE__REDIS_URL", &url);
        });
        shop.ready().await;
        let (here, there) = (shop.client("seller", ALL_SCOPES), seller_at(&other, &shop));
        Self { other, shop, redis, here, there }
    }

    /// How often the first gateway's second level came to this.
    async fn counted(&self, outcome: &str) -> u64 {
        counted(&self.shop.admin_url("gateway"), &["palisade_cache_second_level_total", &format!("\"{outcome}\"")]).await
    }

    /// A product that nobody has read.
    async fn product(&self) -> String {
        format!("/products/{}", create_product(&self.here, 5).await)
    }
}

fn is_shared(answer: &Answer) -> bool {
    told(answer).starts_with("palisade; hit; ttl=") && told(answer).ends_with("; detail=shared")
}

/// Reads new products through both until the second has it from the first.
async fn until_they_share(scene: &Scene) {
    eventually(async || {
        let path = scene.product().await;
        scene.here.get(&path).await.ok(200);
        is_shared(&scene.there.get(&path).await).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_one_gateway_has_read_the_other_need_not_ask_for() {
    let scene = Scene::start().await;
    until_they_share(&scene).await;
    let path = format!("/products/{}", id_of(&scene.here.post("/products", &priced(5.5)).await.ok(201)));
    let before = asked(&scene.shop).await;
    let first = scene.here.get(&path).await;
    let second = eventually(async || Some(scene.there.get(&path).await).filter(is_shared)).await;
    assert_eq!((second.ok(200), second.header("etag")), (first.ok(200), first.header("etag")));
    assert!(second.header("age").is_some());
    assert!(asked(&scene.shop).await <= before + 2);
    let third = scene.there.get(&path).await;
    assert!(told(&third).starts_with("palisade; hit; ") && !is_shared(&third), "it has it itself by now: {}", told(&third));
}

#[tokio::test]
async fn a_write_through_one_gateway_is_not_hidden_by_what_it_had_left_for_the_other() {
    let scene = Scene::start().await;
    until_they_share(&scene).await;
    let path = format!("/products/{}", id_of(&scene.here.post("/products", &priced(5.5)).await.ok(201)));
    let set = scene.counted("done").await;
    scene.here.get(&path).await.ok(200);
    eventually(async || (scene.counted("done").await > set).then_some(())).await;
    let told_before = scene.counted("done").await;
    scene.here.put(&path, &priced(6.5)).await.ok(200);
    eventually(async || (scene.counted("done").await > told_before).then_some(())).await;
    assert_eq!(price(&scene.there.get(&path).await), (json!(6.5), false));
}

#[tokio::test]
async fn a_redis_that_is_away_or_hangs_costs_time_and_nothing_else() {
    let mut scene = Scene::start().await;
    until_they_share(&scene).await;
    let read = async |client: &Client, path: &str| timeout(SOON, client.get(path)).await.expect("soon").ok(200);
    for hangs in [false, true] {
        let (old, new) = (scene.product().await, scene.product().await);
        read(&scene.here, &old).await;
        if hangs {
            scene.redis.pause();
        } else {
            scene.redis.kill();
        }
        let failed = scene.counted("failed").await;
        for path in [&old, &new] {
            assert_eq!(read(&scene.here, path).await, read(&scene.there, path).await);
            timeout(SOON, scene.here.put(path, &priced(7.5))).await.expect("soon").ok(200);
            assert_eq!(price(&scene.here.get(path).await).0, 7.5);
        }
        assert!(scene.counted("failed").await > failed);
        if hangs {
            scene.redis.resume();
        } else {
            scene.redis.restart();
        }
        // It is told, and nobody is the less ready for it.
        let admin = Client::new(scene.other.url("gateway-admin"), None);
        assert_eq!(admin.get("/readyz").attempt().await.unwrap().status, 200);
        until_they_share(&scene).await;
    }
    let log = scene.other.log() + &scene.shop.program("gateway").log();
    assert!(!log.contains(Redis::PASSWORD), "the password is in the log");
}
