//! Conditional requests (RFC 9110, section 13) and headers that may be sent once, on all routes.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue},
};
use palisade_gateway::METHODS;
use palisade_middleware::method_table::Access;
use serde_json::json;

use crate::{
    Gateway, TextResponse,
    fake_services::{ID, VERSION},
    request,
};

/// What a route does with the conditions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `GET` of a resource with the entity tag `"3"`.
    Read,
    /// `GET` of a representation without an entity tag.
    UntaggedRead,
    /// Write of a resource with the entity tag `"3"`.
    Write,
    /// `POST` to a collection.
    Post,
}

const PRODUCT: &str = r#"{"name": "Kettle", "price": 24.90, "quantity": 7, "category": "kitchen"}"#;

/// Returns the verb, path, body and kind of each route behind a scope.
fn routes() -> Vec<(&'static str, String, Option<String>, Kind)> {
    let order = json!({"items": [{"productId": ID, "quantity": 2}]}).to_string();
    vec![
        ("POST", "/products".to_owned(), Some(PRODUCT.to_owned()), Kind::Post),
        ("GET", "/products".to_owned(), None, Kind::UntaggedRead),
        ("GET", format!("/products/{ID}"), None, Kind::Read),
        ("GET", format!("/products/{ID}/history"), None, Kind::UntaggedRead),
        ("PUT", format!("/products/{ID}"), Some(PRODUCT.to_owned()), Kind::Write),
        ("PATCH", format!("/products/{ID}"), Some(r#"{"name": "Pot"}"#.to_owned()), Kind::Write),
        ("DELETE", format!("/products/{ID}"), None, Kind::Write),
        ("POST", format!("/products/{ID}/stock-adjustments"), Some(r#"{"delta": -3, "reason": "damaged"}"#.to_owned()), Kind::Post),
        ("GET", format!("/products/{ID}/stock-adjustments"), None, Kind::UntaggedRead),
        ("POST", "/orders".to_owned(), Some(order.clone()), Kind::Post),
        ("PUT", format!("/orders/{ID}"), Some(order), Kind::Write),
        ("GET", "/orders".to_owned(), None, Kind::UntaggedRead),
        ("GET", format!("/orders/{ID}"), None, Kind::Read),
        ("GET", format!("/orders/{ID}/history"), None, Kind::UntaggedRead),
        ("GET", format!("/orders/{ID}/events"), None, Kind::UntaggedRead),
        ("PUT", format!("/orders/{ID}/status"), Some(json!({"status": "CANCELLED"}).to_string()), Kind::Write),
        ("DELETE", format!("/orders/{ID}"), None, Kind::Write),
    ]
}

async fn send(verb: &str, path: &str, body: Option<&str>, headers: &[(&str, &[u8])]) -> TextResponse {
    let mut request = request(verb, path, &[], body.map_or_else(Body::empty, |body| Body::from(body.to_owned())));
    if body.is_some() {
        request.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    }
    for (name, value) in headers {
        request.headers_mut().append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value).unwrap());
    }
    Gateway::new().send(request).await
}

#[test]
fn every_scoped_route_is_in_the_table() {
    let mut scoped: Vec<_> = METHODS
        .iter()
        .filter(|method| method.access != Access::Public)
        .map(|method| (method.verb, method.path.replace("{id}", ID)))
        .collect();
    let mut tested: Vec<_> = routes().into_iter().map(|(verb, path, ..)| (verb, path)).collect();
    scoped.sort();
    tested.sort();
    assert_eq!(scoped, tested);
}

#[tokio::test]
async fn conditions_are_evaluated_on_all_routes() {
    // Lines of If-Match and of If-None-Match; whether each is true for the entity tag "3", and for
    // no entity tag.
    type Lines = &'static [&'static [u8]];
    let cases: [(Lines, Lines, [bool; 2], [bool; 2]); 20] = [
        (&[], &[], [true, true], [true, true]),
        (&[b"*"], &[], [true, true], [true, true]),
        (&[b"\"3\""], &[], [true, false], [true, true]),
        (&[b"\"1\", \"3\""], &[], [true, false], [true, true]),
        (&[b"\"1\"", b"\"3\""], &[], [true, false], [true, true]),
        (&[b" , \"1\",, \"3\" ,"], &[], [true, false], [true, true]),
        (&[b"\"\xff\x80\", \"3\""], &[], [true, false], [true, true]),
        (&[b"W/\"3\""], &[], [false, false], [true, true]),
        (&[b"\"2\""], &[], [false, false], [true, true]),
        (&[b"\"\xff\x80\""], &[], [false, false], [true, true]),
        (&[b","], &[], [false, false], [true, true]),
        (&[], &[b"*"], [true, true], [false, false]),
        (&[], &[b"\"3\""], [true, true], [false, true]),
        (&[], &[b"W/\"3\""], [true, true], [false, true]),
        (&[], &[b"\"1\"", b",\"3\""], [true, true], [false, true]),
        (&[], &[b"\"\xff\", \"1\""], [true, true], [true, true]),
        (&[], &[b", ,"], [true, true], [true, true]),
        (&[b"\"3\""], &[b"\"3\""], [true, false], [false, true]),
        (&[b"\"2\""], &[b"\"3\""], [false, false], [false, true]),
        (&[b"\"3\""], &[b"\"2\""], [true, false], [true, true]),
    ];
    for (verb, path, body, kind) in routes() {
        for (if_match, if_none_match, match_holds, none_match_holds) in cases {
            let untagged = usize::from(matches!(kind, Kind::UntaggedRead | Kind::Post));
            let headers = if_match.iter().map(|line| ("if-match", *line)).chain(if_none_match.iter().map(|line| ("if-none-match", *line)));
            let headers: Vec<_> = headers.collect();
            let response = send(verb, &path, body.as_deref(), &headers).await;
            let about = format!("{verb} {path} {headers:?}: {}", response.text);
            let is_read = matches!(kind, Kind::Read | Kind::UntaggedRead);
            let tag = (kind == Kind::Read).then(|| format!("\"{VERSION}\""));
            if !match_holds[untagged] || (!none_match_holds[untagged] && !is_read) {
                assert_eq!(response.status.as_u16(), 412, "{about}");
                response.problem(412, "version_mismatch");
            } else if !none_match_holds[untagged] {
                assert_eq!((response.status.as_u16(), response.text.as_str()), (304, ""), "{about}");
                assert_eq!(response.header("etag"), tag.as_deref(), "{about}");
            } else {
                assert!(response.status.is_success(), "{about}");
                if kind == Kind::Read {
                    assert_eq!(response.header("etag"), tag.as_deref(), "{about}");
                }
            }
        }
        for name in ["if-match", "if-none-match"] {
            for malformed in [&b"3"[..], b"\"3", b"\"3\" \"4\"", b"*, \"3\"", b"w/\"3\"", b"\"a b\""] {
                send(verb, &path, body.as_deref(), &[(name, malformed)]).await.problem(400, "invalid_parameter");
            }
            send(verb, &path, body.as_deref(), &[(name, b"*"), (name, b"*")]).await.problem(400, "invalid_parameter");
        }
    }
}

#[tokio::test]
async fn conditions_are_ignored_without_a_target() {
    // RFC 9110, section 13.2.1: the answer without the conditions would be 404.
    let missing = "01890a5d-ac96-774b-bcce-000000000000";
    for (verb, path, body, _) in routes().into_iter().filter(|(_, path, ..)| path.contains(ID)) {
        for (name, value) in [("if-match", &b"*"[..]), ("if-match", b"\"3\""), ("if-match", b","), ("if-none-match", b"*")] {
            send(verb, &path.replace(ID, missing), body.as_deref(), &[(name, value)]).await.problem(404, "not_found");
        }
    }
}

#[tokio::test]
async fn writes_return_the_new_entity_tag() {
    for (verb, path, body, kind) in routes() {
        let response = send(verb, &path, body.as_deref(), &[]).await;
        let is_entry = path.ends_with("/stock-adjustments");
        let has_representation = !response.text.is_empty() && !path.ends_with("/events") && !is_entry && kind != Kind::UntaggedRead;
        assert_eq!(response.header("etag").is_some(), has_representation, "{verb} {path}");
    }
}

#[tokio::test]
async fn repeated_singleton_is_rejected_on_all_routes() {
    let singletons: [(&str, &[u8]); 13] = [
        ("authorization", b"Bearer x"),
        ("content-type", b"application/json"),
        ("content-length", b"2"),
        ("from", b"a@example.org"),
        ("host", b"localhost"),
        ("idempotency-key", b"k-1"),
        ("if-modified-since", b"Thu, 01 Jan 2026 00:00:00 GMT"),
        ("last-event-id", b"1"),
        ("origin", b"http://localhost"),
        ("referer", b"http://localhost/"),
        ("user-agent", b"curl/8"),
        ("x-request-id", b"r-1"),
        ("x-request-timeout", b"1000"),
    ];
    let mut routes: Vec<_> = routes().into_iter().map(|(verb, path, ..)| (verb, path)).collect();
    routes.extend([("GET", "/openapi.json".to_owned()), ("GET", "/docs".to_owned()), ("GET", "/nothing".to_owned())]);
    for (verb, path) in routes {
        for (name, value) in singletons {
            let response = send(verb, &path, None, &[(name, value), (name, value)]).await;
            let detail = response.problem(400, "invalid_parameter")["detail"].clone();
            assert_eq!(detail, format!("header {name} must not be repeated"), "{verb} {path}");
        }
    }
}

#[tokio::test]
async fn list_headers_may_be_repeated() {
    for name in ["accept", "accept-language", "cache-control", "via", "x-forwarded-for", "traceparent", "tracestate"] {
        let response = send("GET", "/products", None, &[(name, b"a"), (name, b"b")]).await;
        assert!(response.status.is_success(), "{name}: {}", response.text);
    }
}
