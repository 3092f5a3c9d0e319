//! Request and response headers of the contract.

use palisade_tests::{Shop, shop::ALL_SCOPES, shop_helpers::create_product};
use reqwest::Method;

#[tokio::test]
async fn request_id_is_kept_if_valid_else_replaced() {
    let caller = Shop::shared().client("caller", ALL_SCOPES);
    let kept = caller.get("/products").header("x-request-id", "my-id-42").await;
    assert_eq!(kept.header("x-request-id"), Some("my-id-42"));
    let long = "x".repeat(1_000);
    for given in [&b""[..], b"a b", b"%0d%0aset-cookie: x", "é".as_bytes(), long.as_bytes()] {
        let answer = caller.get("/products").header("x-request-id", given).await;
        let id = answer.header("x-request-id").unwrap();
        assert!(id.as_bytes() != given && id.len() >= 16, "{id}");
    }
    let (one, two) = (caller.get("/products").await, caller.get("/products").await);
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
}

#[tokio::test]
async fn trace_is_continued_if_traceparent_is_valid() {
    let caller = Shop::shared().client("caller", ALL_SCOPES);
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let answer = caller.get("/products").header("traceparent", format!("00-{id}-00f067aa0ba902b7-01")).await;
    assert_eq!(answer.header("x-trace-id"), Some(id));
    let zero = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
    for bad in ["nonsense", &zero, &format!("ff-{id}-00f067aa0ba902b7-01"), &"0".repeat(10_000)] {
        let answer = caller.get("/products").header("traceparent", bad).await;
        answer.ok(200);
        let fresh = answer.header("x-trace-id").unwrap();
        assert!(fresh.len() == 32 && fresh != id && fresh.bytes().any(|byte| byte != b'0'), "{bad}: {fresh}");
    }
}

#[tokio::test]
async fn head_returns_get_headers_without_body() {
    let caller = Shop::shared().client("caller", ALL_SCOPES);
    let product = format!("/products/{}", create_product(&caller, 1).await);
    let missing = format!("/products/{}", uuid::Uuid::new_v4());
    for path in ["/products", &product, &missing, "/orders", "/livez", "/openapi.json", "/nothing"] {
        let (get, head) = (caller.get(path).await, caller.request(Method::HEAD, path).await);
        head.empty(get.status.as_u16());
        for name in ["content-type", "etag"] {
            assert_eq!(head.header(name), get.header(name), "{path}");
        }
    }
}

#[tokio::test]
async fn responses_forbid_sniffing_and_shared_caching() {
    let caller = Shop::shared().client("caller", ALL_SCOPES);
    for (path, caching) in [("/products", "private, no-cache"), ("/orders", "no-store"), ("/nothing", "no-store")] {
        let answer = caller.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("cache-control"), Some(caching), "{path}");
        assert_eq!(answer.header("server"), None);
    }
}

#[tokio::test]
async fn http2_prior_knowledge_uses_same_port() {
    let caller = Shop::shared().client("caller", ALL_SCOPES).with_http2();
    caller.get("/products").await.ok(200);
    caller.get("/nothing").await.problem(404, "not_found");
}

#[tokio::test]
async fn request_timeout_header_is_validated_and_capped() {
    let caller = Shop::shared().client("caller", ALL_SCOPES);
    caller.get("/products").header("x-request-timeout", "5000").await.ok(200);
    // Far above the server's maximum: capped, not rejected.
    caller.get("/products").header("x-request-timeout", "86400000").await.ok(200);
    for bad in ["-1", "soon", "1.5", ""] {
        caller.get("/products").header("x-request-timeout", bad).await.problem(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn openapi_and_docs_are_public_and_self_contained() {
    let nobody = Shop::shared().anonymous();
    let description = nobody.get("/openapi.json").await.ok(200);
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"), "{}", description["openapi"]);
    let cases = [
        ("/products", vec!["get", "post"]),
        ("/products/{id}", vec!["delete", "get", "put"]),
        ("/products/{id}/history", vec!["get"]),
        ("/orders", vec!["get", "post"]),
        ("/orders/{id}", vec!["delete", "get"]),
        ("/orders/{id}/history", vec!["get"]),
        ("/orders/{id}/status", vec!["put"]),
    ];
    for (path, methods) in cases {
        for method in methods {
            let operation = &description["paths"][path][method];
            assert!(operation["responses"].as_object().is_some_and(|responses| responses.contains_key("401")), "{method} {path}");
        }
    }
    let page = nobody.get("/docs").await;
    // The page, or a redirect to it that the client followed.
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    for outside in ["src=\"http", "href=\"http", "src=\"//", "href=\"//"] {
        assert!(!page.text().contains(outside), "{outside}");
    }
}
