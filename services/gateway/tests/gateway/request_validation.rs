//! Request validation in the gateway: malformed paths, methods, media types, sizes, ids, keys and
//! bodies never reach a service.

use std::convert::Infallible;

use axum::body::Body;
use futures_util::stream;
use serde_json::json;

use crate::{Gateway, fake_services::ID, request};

const MAX_BODY: usize = 256 * 1024;

#[tokio::test]
async fn unknown_path_returns_404() {
    for path in ["/", "/nothing", "/products/", "/orders%2f1", "/../../etc/passwd", "/docs/../openapi.json", "/metrics"] {
        Gateway::new().send_empty("GET", path, &[]).await.problem(404, "not_found");
    }
}

#[tokio::test]
async fn wrong_method_returns_405_with_allow() {
    let gateway = Gateway::new();
    for (verb, path, allow) in [
        ("PATCH", "/products", "POST,GET,HEAD"),
        ("FROB", "/orders/x", "GET,HEAD,PUT,DELETE"),
        ("GET", "/orders/x/status", "PUT"),
        ("POST", "/openapi.json", "GET,HEAD"),
    ] {
        let response = gateway.send_empty(verb, path, &[]).await;
        response.problem(405, "method_not_allowed");
        assert_eq!(response.header("allow"), Some(allow), "{verb} {path}");
    }
}

#[tokio::test]
async fn id_must_be_a_hyphenated_uuid() {
    let gateway = Gateway::new();
    for id in ["1", "1%20OR%201=1", "%ff", "01890a5dac96774bbcceb302099a8057", "urn:uuid:01890a5d-ac96-774b-bcce-b302099a8057"] {
        gateway.send_empty("GET", &format!("/products/{id}"), &[]).await.problem(400, "invalid_parameter");
        gateway.send_empty("DELETE", &format!("/orders/{id}"), &[]).await.problem(400, "invalid_parameter");
    }
    assert_eq!(gateway.send_empty("GET", &format!("/products/{}", ID.to_uppercase()), &[]).await.status.as_u16(), 200);
}

#[tokio::test]
async fn body_must_be_json_in_utf8() {
    let gateway = Gateway::new();
    let send = |headers: Vec<(&'static str, &'static str)>| gateway.send(request("POST", "/orders", &headers, Body::from("{}")));
    for headers in [
        vec![],
        vec![("content-type", "text/plain")],
        vec![("content-type", "application/x-www-form-urlencoded")],
        vec![("content-type", "application/json; charset=utf-16")],
        vec![("content-type", "application/json"), ("content-encoding", "gzip")],
    ] {
        send(headers).await.problem(415, "unsupported_media_type");
    }
    let repeated = vec![("content-type", "application/json"), ("content-type", "application/json")];
    send(repeated).await.problem(400, "invalid_parameter");
    send(vec![("content-type", "application/json;charset=UTF-8"), ("content-encoding", "identity")])
        .await
        .problem(400, "validation_failed");
}

#[tokio::test]
async fn oversized_body_returns_413() {
    let gateway = Gateway::new();
    // The body never arrives, so only the declared length can cause the rejection.
    let headers = [("content-type", "application/json"), ("content-length", "10000000000")];
    let endless = Body::from_stream(stream::pending::<Result<Vec<u8>, Infallible>>());
    gateway.send(request("POST", "/orders", &headers, endless)).await.problem(413, "body_too_large");
    let endless = Body::from_stream(stream::repeat_with(|| Ok::<_, Infallible>(vec![b' '; 1024])));
    gateway.send(request("POST", "/orders", &[("content-type", "application/json")], endless)).await.problem(413, "body_too_large");
    let fits = format!("{{}}{}", " ".repeat(MAX_BODY - 2));
    gateway.send_json("POST", "/orders", &[], &fits).await.problem(400, "validation_failed");
}

#[tokio::test]
async fn malformed_body_is_invalid_body() {
    let gateway = Gateway::new();
    for body in [
        "",
        "[]",
        "null",
        r#"[[["01890a5d-ac96-774b-bcce-b302099a8057", 1]]]"#,
        r#"{"items": [["01890a5d-ac96-774b-bcce-b302099a8057", 1]]}"#,
        r#"{"items": {}}"#,
        r#"{"items": [], "items": []}"#,
        r#"{"items": [{"productId": {"$ne": null}, "quantity": 1}]}"#,
        r#"{"items": [], "total": 0}"#,
        r#"{"items": []} {}"#,
    ] {
        gateway.send_json("POST", "/orders", &[], body).await.problem(400, "invalid_body");
    }
    for field in ["id", "version", "createdAt", "__proto__"] {
        let body = json!({"name": "Kettle", "price": 1, "quantity": 1, "category": "kitchen", field: 1}).to_string();
        let problem = gateway.send_json("POST", "/products", &[], &body).await.problem(400, "invalid_body");
        assert_eq!(problem["detail"], format!("`{field}` is unknown"));
    }
    assert!(gateway.products.inputs.lock().unwrap().is_empty());
}

#[tokio::test]
async fn invalid_idempotency_key_is_rejected() {
    let gateway = Gateway::new();
    let long = "k".repeat(256);
    for key in ["", "a b", "\"open", long.as_str()] {
        gateway.send_json("POST", "/orders", &[("idempotency-key", key)], "{}").await.problem(400, "invalid_parameter");
    }
    gateway
        .send_json("POST", "/orders", &[("idempotency-key", "a"), ("idempotency-key", "a")], "{}")
        .await
        .problem(400, "invalid_parameter");
}
