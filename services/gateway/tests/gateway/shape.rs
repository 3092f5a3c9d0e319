//! What no service needs to see: paths, methods, media types, sizes, ids, keys and bodies of the wrong shape.

use std::convert::Infallible;

use axum::body::Body;
use futures_util::stream;
use serde_json::json;

use crate::{Gateway, fake::ID, request};

const LIMIT: usize = 256 * 1024;

#[tokio::test]
async fn an_unknown_path_is_a_problem() {
    for path in ["/", "/nothing", "/products/", "/orders%2f1", "/../../etc/passwd", "/docs/../openapi.json", "/metrics"] {
        Gateway::new().send_empty("GET", path, &[]).await.problem(404, "not_found");
    }
}

#[tokio::test]
async fn another_method_is_a_problem_that_names_the_right_ones() {
    let gateway = Gateway::new();
    for (verb, path, allow) in [
        ("PATCH", "/products", "POST,GET,HEAD"),
        ("FROB", "/orders/x", "GET,HEAD,DELETE"),
        ("GET", "/orders/x/status", "PUT"),
        ("POST", "/openapi.json", "GET,HEAD"),
    ] {
        let answer = gateway.send_empty(verb, path, &[]).await;
        answer.problem(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some(allow), "{verb} {path}");
    }
}

#[tokio::test]
async fn an_id_is_a_hyphenated_uuid() {
    let gateway = Gateway::new();
    for id in ["1", "1%20OR%201=1", "%ff", "01890a5dac96774bbcceb302099a8057", "urn:uuid:01890a5d-ac96-774b-bcce-b302099a8057"] {
        gateway.send_empty("GET", &format!("/products/{id}"), &[]).await.problem(400, "invalid_parameter");
        gateway.send_empty("DELETE", &format!("/orders/{id}"), &[]).await.problem(400, "invalid_parameter");
    }
    assert_eq!(gateway.send_empty("GET", &format!("/products/{}", ID.to_uppercase()), &[]).await.status.as_u16(), 200);
}

#[tokio::test]
async fn only_json_in_utf8_is_read() {
    let gateway = Gateway::new();
    let sent = |headers: Vec<(&'static str, &'static str)>| gateway.send(request("POST", "/orders", &headers, Body::from("{}")));
    for headers in [
        vec![],
        vec![("content-type", "text/plain")],
        vec![("content-type", "application/x-www-form-urlencoded")],
        vec![("content-type", "application/json; charset=utf-16")],
        vec![("content-type", "application/json"), ("content-encoding", "gzip")],
    ] {
        sent(headers).await.problem(415, "unsupported_media_type");
    }
    let twice = vec![("content-type", "application/json"), ("content-type", "application/json")];
    sent(twice).await.problem(400, "invalid_parameter");
    sent(vec![("content-type", "application/json;charset=UTF-8"), ("content-encoding", "identity")])
        .await
        .problem(400, "validation_failed");
}

#[tokio::test]
async fn a_large_body_is_refused_declared_or_not() {
    let gateway = Gateway::new();
    // A body that never comes: only the declared length can have been looked at.
    let headers = [("content-type", "application/json"), ("content-length", "10000000000")];
    let endless = Body::from_stream(stream::pending::<Result<Vec<u8>, Infallible>>());
    gateway.send(request("POST", "/orders", &headers, endless)).await.problem(413, "body_too_large");
    let endless = Body::from_stream(stream::repeat_with(|| Ok::<_, Infallible>(vec![b' '; 1024])));
    gateway.send(request("POST", "/orders", &[("content-type", "application/json")], endless)).await.problem(413, "body_too_large");
    let fits = format!("{{}}{}", " ".repeat(LIMIT - 2));
    gateway.send_json("POST", "/orders", &[], &fits).await.problem(400, "validation_failed");
}

#[tokio::test]
async fn a_body_of_the_wrong_shape_is_an_invalid_body() {
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
        assert_eq!(problem["detail"], format!("`{field}` is not known here"));
    }
    assert!(gateway.products.inputs.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_key_is_one_visible_word() {
    let gateway = Gateway::new();
    let long = "k".repeat(256);
    for key in ["", "a b", "\"open", long.as_str()] {
        gateway.send_json("POST", "/orders", &[("idempotency-key", key)], "{}").await.problem(400, "invalid_parameter");
    }
    gateway.send_json("POST", "/orders", &[("idempotency-key", "a"), ("idempotency-key", "a")], "{}").await.problem(400, "invalid_parameter");
}
