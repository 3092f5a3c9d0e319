//! Errors independent of products and orders: paths, methods, bodies, parameters.

use palisade_tests::{Shop, shop::ALL_SCOPES, shop_helpers::product_body};
use reqwest::Method;

#[tokio::test]
async fn unknown_paths_return_404() {
    let shop = Shop::shared();
    let paths = [
        "/",
        "/nothing",
        "/products/1/2",
        "/product",
        "/Products",
        "/products/",
        "/orders%2f1",
        "/..%5cetc",
        "/%2e%2e%2fetc/passwd",
        "/metrics",
        "/debug",
        "/admin",
        "/.git/config",
        "/.env",
        "/actuator/health",
        "/invariants",
        "/palisade.products.v1.ProductsService/FindAll",
    ];
    for path in paths {
        shop.anonymous().get(path).await.problem(404, "not_found");
        shop.client("lost", ALL_SCOPES).get(path).await.problem(404, "not_found");
    }
}

#[tokio::test]
async fn unsupported_methods_return_405_with_allow() {
    let caller = Shop::shared().client("caller", ALL_SCOPES);
    let id = uuid::Uuid::new_v4();
    let cases = [
        ("/products".to_owned(), vec!["GET", "POST"]),
        (format!("/products/{id}"), vec!["DELETE", "GET", "PATCH", "PUT"]),
        (format!("/products/{id}/history"), vec!["GET"]),
        (format!("/products/{id}/stock-adjustments"), vec!["GET", "POST"]),
        ("/orders".into(), vec!["GET", "POST"]),
        (format!("/orders/{id}"), vec!["DELETE", "GET", "PUT"]),
        (format!("/orders/{id}/history"), vec!["GET"]),
        (format!("/orders/{id}/status"), vec!["PUT"]),
        ("/openapi.json".into(), vec!["GET"]),
        ("/livez".into(), vec!["GET"]),
    ];
    for (path, methods) in cases {
        for wrong in ["DELETE", "GET", "PATCH", "POST", "PUT", "TRACE", "FROB"] {
            if methods.contains(&wrong) {
                continue;
            }
            let answer = caller.request(Method::from_bytes(wrong.as_bytes()).unwrap(), &path).await;
            answer.problem(405, "method_not_allowed");
            let mut allowed: Vec<_> =
                answer.header("allow").unwrap().split(',').map(str::trim).filter(|allowed| *allowed != "HEAD").collect();
            allowed.sort_unstable();
            assert_eq!(allowed, methods, "{wrong} {path}");
        }
    }
}

#[tokio::test]
async fn body_limit_is_256_kib() {
    // HTTP/2, because over HTTP/1 a client that still writes when the response arrives may find the
    // connection closed.
    let caller = Shop::shared().client("caller", ALL_SCOPES).with_http2();
    for path in ["/products", "/orders"] {
        let body = |size: usize| format!("{{}}{}", " ".repeat(size - 2));
        caller.request(Method::POST, path).json(body(256 * 1024)).await.assert_violations();
        caller.request(Method::POST, path).json(body(256 * 1024 + 1)).await.problem(413, "body_too_large");
        // Without a content length that reveals the size.
        let chunks = futures_util::stream::iter((0..257).map(|_| Ok::<_, std::io::Error>(" ".repeat(1024))));
        caller.request(Method::POST, path).json(reqwest::Body::wrap_stream(chunks)).await.problem(413, "body_too_large");
    }
}

#[tokio::test]
async fn only_json_bodies_are_accepted() {
    let caller = Shop::shared().client("caller", ALL_SCOPES);
    let body = product_body(1).to_string();
    caller.request(Method::POST, "/products").body(body.clone()).await.problem(415, "unsupported_media_type");
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml", "text/json", "nonsense"]
    {
        let request = caller.request(Method::POST, "/products").header("content-type", kind).body(body.clone());
        request.await.problem(415, "unsupported_media_type");
    }
    for kind in ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"] {
        caller.request(Method::POST, "/products").header("content-type", kind).body(body.clone()).await.ok(201);
    }
}

#[tokio::test]
async fn malformed_ids_are_rejected() {
    let caller = Shop::shared().client("caller", ALL_SCOPES);
    for id in ["1", "x", "1%20OR%201=1", "%7B%22$ne%22:null%7D", "%00", "0199aaaa-0000-7000-8000-00000000000g", &"9".repeat(2_000)] {
        caller.get(format!("/products/{id}")).await.problem(400, "invalid_parameter");
        caller.delete(format!("/orders/{id}")).await.problem(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn malformed_query_values_are_rejected() {
    let caller = Shop::shared().client("caller", ALL_SCOPES);
    for limit in ["0", "-1", "101", "1e9", "abc", "1.5", "", "%201", "99999999999999999999"] {
        caller.get(format!("/products?limit={limit}")).await.problem(400, "invalid_parameter");
        caller.get(format!("/orders?limit={limit}")).await.problem(400, "invalid_parameter");
    }
    for query in [
        "isActive=yes",
        "minPrice=cheap",
        "maxPrice=-1",
        "minPrice=0.001",
        "sort=random",
        "limit=1&limit=2",
        "nope=1",
        "limit[$gt]=1",
        "offset=10",
    ] {
        caller.get(format!("/products?{query}")).await.problem(400, "invalid_parameter");
    }
    for query in ["status=NOPE", "status=", "nope=1"] {
        caller.get(format!("/orders?{query}")).await.problem(400, "invalid_parameter");
    }
}
