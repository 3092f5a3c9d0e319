//! Request bodies: malformed JSON, and JSON of the wrong type.

use palisade_tests::{
    Client, Shop,
    shop::ALL_SCOPES,
    shop_helpers::{accepted_id, available_quantity, create_product, order_body},
    unique,
};
use reqwest::Method;

fn caller() -> Client {
    Shop::shared().client(&unique("caller"), ALL_SCOPES)
}

fn post(caller: &Client, path: &str, body: impl Into<Vec<u8>>) -> palisade_tests::client::Request {
    caller.request(Method::POST, path).json(body.into())
}

#[tokio::test]
async fn malformed_json_is_an_invalid_body() {
    let caller = caller();
    let product = create_product(&caller, 5).await;
    let good = order_body(&[(&product, 1)]).to_string();
    let bodies: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"{".to_vec(),
        good[..good.len() - 1].into(),
        format!("{good}{good}").into(),
        format!("{good}\n{good}\n").into(),
        format!("{good} trailing").into(),
        good.replace('1', "01").into(),
        good.replace(":1", ":.5").into(),
        good.replace(":1", ":NaN").into(),
        good.replace(":1", ":Infinity").into(),
        good.replace(":1", ":1,").into(),
        good.replace('"', "'").into(),
        format!("// comment\n{good}").into(),
        format!("\u{feff}{good}").into(),
        br#"{"items":[{"productId":"\ud800","quantity":1}]}"#.to_vec(),
        b"{\"items\":[{\"productId\":\"\xff\xfe\",\"quantity\":1}]}".to_vec(),
        b"{\"items\":[{\"productId\":\"\xc0\xaf\",\"quantity\":1}]}".to_vec(),
        "[".repeat(100_000).into(),
        "{\"items\":".repeat(10_000).into(),
    ];
    for body in bodies {
        post(&caller, "/orders", body).await.problem(400, "invalid_body");
    }
    assert_eq!(available_quantity(&caller, &product).await, 5);
}

#[tokio::test]
async fn json_of_wrong_type_is_an_invalid_body() {
    let caller = caller();
    let product = create_product(&caller, 5).await;
    let line = format!("\"productId\":\"{product}\"");
    let orders = [
        "null".to_owned(),
        "7".into(),
        "\"text\"".into(),
        "[]".into(),
        // serde accepts a list for a struct (serde-rs/serde#1587), the API must not.
        format!("[[[\"{product}\",1]]]"),
        format!("{{\"items\":[[\"{product}\",1]]}}"),
        format!("{{\"items\":{{{line},\"quantity\":1}}}}"),
        "{\"items\":null}".into(),
        "{\"items\":[null]}".into(),
        format!("{{\"items\":[{{{line},\"quantity\":\"1\"}}]}}"),
        format!("{{\"items\":[{{{line},\"quantity\":1.5}}]}}"),
        format!("{{\"items\":[{{{line},\"quantity\":true}}]}}"),
        format!("{{\"items\":[{{{line},\"quantity\":1e400}}]}}"),
        format!("{{\"items\":[{{{line},\"quantity\":1,\"quantity\":2}}]}}"),
        format!("{{\"items\":[],\"items\":[{{{line},\"quantity\":1}}]}}"),
        format!("{{\"items\":[{{{line},\"quantity\":1}}],\"maxTotal\":\"10\"}}"),
        format!("{{\"items\":[{{{line},\"quantity\":1}}],\"maxTotal\":null}}"),
        format!("{{\"items\":[{{{line},\"quantity\":1}}],\"maxTotal\":{{\"amount\":10}}}}"),
        format!("{{\"items\":[{{{line},\"quantity\":1}}],\"maxTotal\":1,\"maxTotal\":2}}"),
        "{\"items\":[{\"productId\":{\"$ne\":null},\"quantity\":1}]}".into(),
        "{\"items\":[{\"productId\":{\"$where\":\"sleep(1)\"},\"quantity\":1}]}".into(),
        format!("{{\"items\":[{{{line},\"quantity\":1}}],\"constructor\":{{}}}}"),
    ];
    for body in orders {
        post(&caller, "/orders", body).await.problem(400, "invalid_body");
    }
    let product = |members: &str| format!("{{\"name\":\"n\",\"description\":\"\",\"category\":\"c\",\"quantity\":1,\"price\":1{members}}}");
    post(&caller, "/products", product("")).await.ok(201);
    for body in [
        product(",\"isActive\":\"true\""),
        product(",\"isActive\":1"),
        product(",\"name\":\"again\""),
        product("").replace("\"n\"", "7"),
        product("").replace("\"n\"", "[\"n\"]"),
        product("").replace("\"price\":1", "\"price\":\"1\""),
        product("").replace("\"price\":1", "\"price\":{\"amount\":1,\"currency\":\"EUR\"}"),
        product("").replace("\"quantity\":1", "\"quantity\":1.5"),
        product("").replace("\"quantity\":1", "\"quantity\":9223372036854775808"),
    ] {
        post(&caller, "/products", body).await.problem(400, "invalid_body");
    }
    // Numbers that are not valid amounts of money.
    for price in ["1e400", "1e2", "0.001", "99999999999999999999"] {
        assert_eq!(
            post(&caller, "/products", product("").replace("\"price\":1", &format!("\"price\":{price}"))).await.assert_violations(),
            ["price"]
        );
    }
}

#[tokio::test]
async fn encoded_bodies_are_rejected() {
    let caller = caller();
    for coding in ["gzip", "br", "zstd", "deflate", "x"] {
        let request = post(&caller, "/orders", "{}").header("content-encoding", coding);
        request.await.problem(415, "unsupported_media_type");
    }
    for kind in ["application/json; charset=utf-16", "application/json; charset=latin1"] {
        let request = caller.request(Method::POST, "/orders").header("content-type", kind).body("{}");
        request.await.problem(415, "unsupported_media_type");
    }
    let twice = post(&caller, "/orders", "{}").header("content-type", "text/plain");
    assert!(twice.await.status.is_client_error());
}

#[tokio::test]
async fn injection_attempts_have_no_effect() {
    let caller = caller();
    let attacks =
        ["' OR 1=1 --", "\"; DROP TABLE orders; --", "{\"$gt\":\"\"}", "../../etc/passwd", "%00", "${jndi:ldap://x}", "(a+)+$", "\\"];
    let adjustments = format!("/products/{}/stock-adjustments", create_product(&caller, 5).await);
    for attack in attacks {
        let line = serde_json::json!({ "items": [{ "productId": attack, "quantity": 1 }] });
        assert_eq!(caller.post("/orders", &line).await.assert_violations(), ["items[0].productId"]);
        let found = caller.get(format!("/products{}", palisade_tests::client::query(&[("q", attack), ("category", attack)]))).await.ok(200);
        assert_eq!(found["items"], serde_json::json!([]), "{attack}");
        let entry = caller.post(&adjustments, &serde_json::json!({ "delta": 1, "reason": attack })).await.ok(201);
        assert_eq!(entry["reason"], attack, "text is stored literally");
    }
    caller.get(format!("/products{}", palisade_tests::client::query(&[("q", "nul \0")]))).await.problem(400, "invalid_parameter");
}

#[tokio::test]
async fn identity_headers_from_clients_are_ignored() {
    let shop = Shop::shared();
    let (victim, mallory) = (unique("victim"), unique("mallory"));
    let seller = shop.client("seller", ALL_SCOPES);
    let product = create_product(&seller, 5).await;
    let caller = shop.client(&mallory, "orders:read orders:write");
    let mut request = caller.post("/orders", &order_body(&[(&product, 1)]));
    for name in ["x-user-id", "x_user_id", "x-forwarded-user", "x-real-ip", "x-internal-subject"] {
        request = request.header(name, &victim);
    }
    let id = accepted_id(&request.await);
    assert_eq!(caller.get(format!("/orders/{id}")).await.ok(200)["userId"], mallory);
}

#[tokio::test]
async fn cors_is_denied() {
    let caller = caller();
    let plain = caller.get("/products").header("origin", "https://evil.example").await;
    assert_eq!(plain.header("access-control-allow-origin"), None);
    let preflight = caller.request(Method::OPTIONS, "/products").header("origin", "null").header("access-control-request-method", "PUT");
    assert_eq!(preflight.await.header("access-control-allow-origin"), None);
}
