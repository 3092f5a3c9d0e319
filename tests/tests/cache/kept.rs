//! What readers see of a cache that is well, and what orders do not.

use futures_util::future::join_all;
use palisade_tests::{
    Shop, eventually,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{confirmed, id_of, product, create_product},
};
use serde_json::json;

use crate::{asked, counted, fault, keeps, price, priced, seller_at, shop, told};

#[tokio::test]
async fn an_answer_is_kept_and_says_so() {
    let shop = shop(|_| {});
    shop.ready().await;
    let seller = shop.client("seller", ALL_SCOPES);
    let id = create_product(&seller, 1).await;
    for path in [format!("/products/{id}"), "/products?limit=5".to_owned()] {
        let first = seller.get(&path).await;
        assert_eq!((told(&first), first.header("age")), ("palisade; fwd=uri-miss; stored", None), "{path}");
        // Somebody else is given the same: nothing in it depends on who asks.
        let other = shop.client("other", CUSTOMER);
        let second =
            eventually(async || Some(other.get(&path).await).filter(|answer| answer.header("age").is_some_and(|age| age != "0"))).await;
        assert!(told(&second).starts_with("palisade; hit; ttl=59"), "{}", told(&second));
        for answer in [&first, &second] {
            assert_eq!(answer.header("cache-control"), Some("private, no-cache"), "{path}");
            assert_eq!((answer.ok(200), answer.header("etag")), (first.ok(200), first.header("etag")), "{path}");
        }
        let unchanged = other.get(&path).header("if-none-match", first.header("etag").unwrap()).await;
        unchanged.empty(304);
        assert_eq!((unchanged.header("etag"), unchanged.header("cache-control")), (first.header("etag"), Some("private, no-cache")));
        assert!(told(&unchanged).starts_with("palisade; hit; "));
        let anew = other.get(&path).header("cache-control", "no-cache").await;
        assert_eq!((told(&anew), anew.ok(200)), ("palisade; fwd=request; stored", first.ok(200)), "{path}");
    }
    assert_eq!(asked(&shop).await, 2, "once for the first reader, once for who wanted it so");
    shop.anonymous().get(format!("/products/{id}")).await.problem(401, "unauthenticated");
    shop.client("writer", "products:write").get(format!("/products/{id}")).await.problem(403, "insufficient_scope");
}

#[tokio::test]
async fn a_write_through_the_gateway_is_seen_at_once() {
    let shop = shop(|_| {});
    shop.ready().await;
    let seller = shop.client("seller", ALL_SCOPES);
    let id = id_of(&seller.post("/products", &priced(5.5)).await.ok(201));
    let path = format!("/products/{id}");
    let in_list = async || {
        let page = seller.get("/products").await.ok(200);
        page["items"].as_array().unwrap().iter().find(|item| item["id"] == *id).map(|item| item["price"].clone())
    };
    for new in [6.5, 7.5] {
        price(&seller.get(&path).await);
        in_list().await;
        seller.put(&path, &priced(new)).await.ok(200);
        assert_eq!(price(&seller.get(&path).await), (json!(new), false));
        assert_eq!(price(&seller.get(&path).await), (json!(new), true));
        assert_eq!(in_list().await, Some(json!(new)));
    }
    seller.delete(&path).await.empty(204);
    seller.get(&path).await.problem(404, "not_found");
    assert_eq!(in_list().await, None);
    assert_eq!(counted(&shop.admin_url("gateway"), &["palisade_cache_invalidations_total", "\"write\""]).await, 4);
}

#[tokio::test]
async fn many_who_want_the_same_cost_one_call() {
    let shop = shop(|_| {});
    shop.ready().await;
    let seller = shop.client("seller", ALL_SCOPES);
    let path = format!("/products/{}", create_product(&seller, 1).await);
    fault(&shop, json!({ "latency": { "ms": 500 } })).await;
    let answers = join_all((0..30).map(|_| async { seller.get(&path).await })).await;
    for answer in &answers {
        assert_eq!(answer.ok(200), answers[0].ok(200));
    }
    assert_eq!(asked(&shop).await, 1);
    let collapsed = answers.iter().filter(|answer| told(answer).ends_with("; collapsed")).count();
    let hits = answers.iter().filter(|answer| told(answer).starts_with("palisade; hit; ")).count();
    assert_eq!(collapsed + hits, 29);
}

#[tokio::test]
async fn what_does_not_exist_is_not_kept() {
    let shop = shop(|_| {});
    shop.ready().await;
    let seller = shop.client("seller", ALL_SCOPES);
    for _ in 0..2 {
        seller.get(format!("/products/{}", uuid::Uuid::nil())).await.problem(404, "not_found");
    }
    assert_eq!(asked(&shop).await, 2);
}

/// The other gateway changes the price, of which nobody tells this one.
#[tokio::test]
async fn an_order_has_the_price_of_products_whatever_is_kept() {
    let shop = shop(|_| {});
    let other = shop.another_gateway(keeps);
    shop.ready().await;
    let (seller, elsewhere) = (shop.client("seller", ALL_SCOPES), seller_at(&other, &shop));
    let id = id_of(&seller.post("/products", &priced(5.5)).await.ok(201));
    let path = format!("/products/{id}");
    assert_eq!(price(&seller.get(&path).await), (json!(5.5), false));
    elsewhere.put(&path, &priced(8.5)).await.ok(200);
    let order = confirmed(&seller, &[(&id, 2)]).await;
    assert_eq!((order["items"][0]["unitPrice"].as_f64(), order["total"].as_f64()), (Some(8.5), Some(17.0)));
    assert_eq!(price(&seller.get(&path).await), (json!(5.5), true), "what is kept is still the old price");
    // Nor its stock: there are 98 left, and 100 are kept.
    seller.post("/orders", &json!({ "items": [{ "productId": id, "quantity": 99 }] })).await.problem(409, "insufficient_stock");
}

#[tokio::test]
async fn without_a_cache_nothing_is_told_of_one() {
    let seller = Shop::shared().client("seller", ALL_SCOPES);
    let id = id_of(&seller.post("/products", &product(1)).await.ok(201));
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
