//! Cache hits, invalidation by writes, and independence of orders from the cache.

use futures_util::future::join_all;
use palisade_tests::{
    Shop, eventually,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{create_product, id_of, place_confirmed_order, product_body},
};
use serde_json::json;

use crate::{cache_status, enable_cache, find_one_calls, inject_fault, metric_sum, price_and_hit, product_with_price, seller_at, shop};

#[tokio::test]
async fn cached_response_has_cache_status_and_age() {
    let shop = shop(|_| {});
    let seller = shop.client("seller", ALL_SCOPES);
    let id = create_product(&seller, 1).await;
    for path in [format!("/products/{id}"), "/products?limit=5".to_owned()] {
        let first = seller.get(&path).await;
        assert_eq!((cache_status(&first), first.header("age")), ("palisade; fwd=uri-miss; stored", None), "{path}");
        // Another user gets the same entry, because the response does not depend on the caller.
        let other = shop.client("other", CUSTOMER);
        let second =
            eventually(async || Some(other.get(&path).await).filter(|answer| answer.header("age").is_some_and(|age| age != "0"))).await;
        assert!(cache_status(&second).starts_with("palisade; hit; ttl=59"), "{}", cache_status(&second));
        for answer in [&first, &second] {
            assert_eq!(answer.header("cache-control"), Some("private, no-cache"), "{path}");
            assert_eq!((answer.ok(200), answer.header("etag")), (first.ok(200), first.header("etag")), "{path}");
        }
        let unchanged = other.get(&path).header("if-none-match", first.header("etag").unwrap()).await;
        unchanged.empty(304);
        assert_eq!((unchanged.header("etag"), unchanged.header("cache-control")), (first.header("etag"), Some("private, no-cache")));
        assert!(cache_status(&unchanged).starts_with("palisade; hit; "));
        let anew = other.get(&path).header("cache-control", "no-cache").await;
        assert_eq!((cache_status(&anew), anew.ok(200)), ("palisade; fwd=request; stored", first.ok(200)), "{path}");
    }
    assert_eq!(find_one_calls(&shop).await, 2, "one load for the first read, one for `no-cache`");
    shop.anonymous().get(format!("/products/{id}")).await.problem(401, "unauthenticated");
    shop.client("writer", "products:write").get(format!("/products/{id}")).await.problem(403, "insufficient_scope");
}

#[tokio::test]
async fn write_invalidates_entry_immediately() {
    let shop = shop(|_| {});
    let seller = shop.client("seller", ALL_SCOPES);
    let id = id_of(&seller.post("/products", &product_with_price(5.5)).await.ok(201));
    let path = format!("/products/{id}");
    let in_list = async || {
        let page = seller.get("/products").await.ok(200);
        page["items"].as_array().unwrap().iter().find(|item| item["id"] == *id).map(|item| item["price"].clone())
    };
    for new in [6.5, 7.5] {
        price_and_hit(&seller.get(&path).await);
        in_list().await;
        seller.put(&path, &product_with_price(new)).await.ok(200);
        assert_eq!(price_and_hit(&seller.get(&path).await), (json!(new), false));
        assert_eq!(price_and_hit(&seller.get(&path).await), (json!(new), true));
        assert_eq!(in_list().await, Some(json!(new)));
    }
    seller.delete(&path).await.empty(204);
    seller.get(&path).await.problem(404, "not_found");
    assert_eq!(in_list().await, None);
    assert_eq!(metric_sum(&shop.admin_url("gateway"), &["palisade_cache_invalidations_total", "\"write\""]).await, 4);
}

#[tokio::test]
async fn patch_and_adjustment_invalidate_the_product() {
    let shop = shop(|_| {});
    let seller = shop.client("seller", ALL_SCOPES);
    let path = format!("/products/{}", create_product(&seller, 5).await);
    let shown = async || {
        let product = seller.get(&path).await.ok(200);
        (product["name"].clone(), product["quantity"].clone())
    };
    assert_eq!(shown().await.1, 5);
    seller.request(reqwest::Method::PATCH, &path).json(r#"{"name": "patched"}"#).await.ok(200);
    assert_eq!(shown().await, (json!("patched"), json!(5)));
    for expected in [3, 1] {
        seller.post(format!("{path}/stock-adjustments"), &json!({ "delta": -2, "reason": "damaged" })).await.ok(201);
        assert_eq!(shown().await.1, expected);
    }
}

#[tokio::test]
async fn concurrent_reads_are_collapsed_into_one_call() {
    let shop = shop(|_| {});
    let seller = shop.client("seller", ALL_SCOPES);
    let path = format!("/products/{}", create_product(&seller, 1).await);
    inject_fault(&shop, json!({ "latency": { "ms": 500 } })).await;
    let answers = join_all((0..30).map(|_| async { seller.get(&path).await })).await;
    for answer in &answers {
        assert_eq!(answer.ok(200), answers[0].ok(200));
    }
    assert_eq!(find_one_calls(&shop).await, 1);
    let collapsed = answers.iter().filter(|answer| cache_status(answer).ends_with("; collapsed")).count();
    let hits = answers.iter().filter(|answer| cache_status(answer).starts_with("palisade; hit; ")).count();
    assert_eq!(collapsed + hits, 29);
}

#[tokio::test]
async fn not_found_is_not_cached() {
    let shop = shop(|_| {});
    let seller = shop.client("seller", ALL_SCOPES);
    for _ in 0..2 {
        seller.get(format!("/products/{}", uuid::Uuid::nil())).await.problem(404, "not_found");
    }
    assert_eq!(find_one_calls(&shop).await, 2);
}

/// The stock of a product changes with the orders of it, also of the same caller.
#[tokio::test]
async fn order_invalidates_its_products() {
    let shop = shop(|_| {});
    let seller = shop.client("seller", ALL_SCOPES);
    let ids = [create_product(&seller, 100).await, create_product(&seller, 100).await];
    let quantity = async |id: &str| seller.get(format!("/products/{id}")).await.ok(200)["quantity"].as_i64().unwrap();
    let in_list = async |id: &str| {
        let page = seller.get("/products?limit=100").await.ok(200);
        page["items"].as_array().unwrap().iter().find(|item| item["id"] == id).and_then(|item| item["quantity"].as_i64())
    };
    for bought in 1..=10 {
        for id in &ids {
            assert_eq!((quantity(id).await, in_list(id).await), (100 - (bought - 1) * 2, Some(100 - (bought - 1) * 2)), "cached");
        }
        place_confirmed_order(&seller, &[(&ids[0], 2), (&ids[1], 2)]).await;
        for id in &ids {
            assert_eq!((quantity(id).await, in_list(id).await), (100 - bought * 2, Some(100 - bought * 2)));
        }
    }
}

/// The other gateway changes the price without an invalidation event.
#[tokio::test]
async fn orders_ignore_the_cache() {
    let shop = shop(|_| {});
    let other = shop.additional_gateway(enable_cache);
    let (seller, elsewhere) = (shop.client("seller", ALL_SCOPES), seller_at(&other, &shop));
    let id = id_of(&seller.post("/products", &product_with_price(5.5)).await.ok(201));
    let path = format!("/products/{id}");
    assert_eq!(price_and_hit(&seller.get(&path).await), (json!(5.5), false));
    elsewhere.put(&path, &product_with_price(8.5)).await.ok(200);
    assert_eq!(price_and_hit(&seller.get(&path).await), (json!(5.5), true), "the cached price must still be the old one");
    let order = place_confirmed_order(&seller, &[(&id, 2)]).await;
    assert_eq!((order["items"][0]["unitPrice"].as_f64(), order["total"].as_f64()), (Some(8.5), Some(17.0)));
    assert_eq!(price_and_hit(&seller.get(&path).await), (json!(8.5), false), "the order invalidates its products");
    // The stock is not cached for orders either.
    seller.post("/orders", &json!({ "items": [{ "productId": id, "quantity": 99 }] })).await.problem(409, "insufficient_stock");
}

#[tokio::test]
async fn disabled_cache_adds_no_headers() {
    let seller = Shop::shared().client("seller", ALL_SCOPES);
    let id = id_of(&seller.post("/products", &product_body(1)).await.ok(201));
    for path in [format!("/products/{id}"), "/products".to_owned()] {
        for _ in 0..2 {
            let answer = seller.get(&path).header("if-none-match", "\"x\"").await;
            answer.ok(200);
            assert_eq!(["cache-status", "age"].map(|name| answer.header(name)), [None, None], "{path}");
            assert_eq!(answer.header("cache-control"), Some("private, no-cache"), "{path}");
        }
    }
    assert_eq!(seller.get("/products").await.header("etag"), None);
}
