use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::{Layer, ServiceExt};

use super::*;
use palisade_resilience::{
    fault_injection::Config,
    method_table::{Access, Method, MethodTable},
    respond::{Protocol, RespondLayer},
};

static METHODS: [Method; 2] =
    [Method::grpc("/a.B/One", Access::Public), Method::grpc("/grpc.health.v1.Health/Check", Access::Public).infrastructure()];

fn faults(enabled: bool) -> Faults {
    Faults::new(&Config { enabled }, Protocol::Grpc, &MethodTable::new(&[&METHODS]).unwrap())
}

async fn send(faults: &Faults, verb: &str, body: impl Into<Body>) -> (StatusCode, Value) {
    let request = Request::builder().method(verb).uri("/faults").body(body.into()).unwrap();
    let answer = RespondLayer(Protocol::Http).layer(routes(faults.clone())).oneshot(request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test]
async fn rules_can_be_set_listed_and_cleared() {
    let faults = faults(true);
    let first = json!({ "rules": [
        { "name": "slow", "method": "a.B/*", "rate": 0.5, "kind": { "latency": { "ms": 800, "jitter_ms": 200 } } },
        { "name": "sick", "method": "a.B/One", "rate": 1.0, "kind": { "error": "overloaded" } },
        { "name": "gone", "method": "*", "rate": 0.0, "kind": "abort" },
    ] });
    assert_eq!(send(&faults, "PUT", first.to_string()).await, (StatusCode::OK, first.clone()));
    assert_eq!(send(&faults, "GET", "").await, (StatusCode::OK, first));
    let second = json!({ "rules": [{ "name": "mute", "method": "*", "rate": 1.0, "kind": "hang" }] });
    send(&faults, "PUT", second.to_string()).await;
    assert_eq!(send(&faults, "GET", "").await, (StatusCode::OK, second));
    assert_eq!(send(&faults, "DELETE", "").await.0, StatusCode::NO_CONTENT);
    assert_eq!(send(&faults, "GET", "").await, (StatusCode::OK, json!({ "rules": [] })));
}

#[tokio::test]
async fn invalid_rules_list_all_violations_without_effect() {
    let faults = faults(true);
    let kept = json!({ "rules": [{ "name": "kept", "method": "*", "rate": 0.5, "kind": "hang" }] });
    send(&faults, "PUT", kept.to_string()).await;
    let rule = |name: &str, method: &str, rate: f64, kind: Value| json!({ "name": name, "method": method, "rate": rate, "kind": kind });
    let rules = [
        rule("", "*", 1.01, json!("abort")),
        rule("a", "a.B/Two", -0.1, json!({ "latency": { "ms": 0 } })),
        rule("a", "grpc.health.v1.Health/Check", 1.0, json!({ "latency": { "ms": 5, "jitter_ms": 6 } })),
        rule("b", "a.B/On", 1.0, json!({ "error": "validation_failed" })),
    ];
    let (status, problem) = send(&faults, "PUT", json!({ "rules": rules }).to_string()).await;
    assert_eq!((status, &problem["code"]), (StatusCode::BAD_REQUEST, &json!("validation_failed")));
    let broken: Vec<_> = problem["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect();
    let expected = ["0.name", "0.rate", "1.rate", "1.method", "1.kind", "2.name", "2.method", "2.kind", "3.method", "3.kind"];
    assert_eq!(broken, expected.map(|field| format!("rules[{}].{}", &field[..1], &field[2..])));

    let many: Vec<_> = (0..33).map(|n| rule(&n.to_string(), "*", 1.0, json!("hang"))).collect();
    assert_eq!(send(&faults, "PUT", json!({ "rules": many }).to_string()).await.1["errors"][0]["code"], "too_many");

    for (body, word) in [
        ("", "EOF"),
        ("[]", "Rules"),
        (r#"{"rules":[{"name":"a","method":"*","rate":"1","kind":"hang"}]}"#, "f64 at line 1"),
        (r#"{"rules":[{"name":"a","method":"*","rate":1,"kind":"hangs"}]}"#, "hangs"),
        (r#"{"rules":[{"name":"a","method":"*","rate":1,"kind":{"latency":{"ms":1,"jiter_ms":1}}}]}"#, "jiter_ms"),
        (r#"{"rules":[{"name":"a","method":"*","rate":1,"kind":"hang","for":"ever"}]}"#, "for"),
    ] {
        let (status, problem) = send(&faults, "PUT", body).await;
        assert_eq!((status, &problem["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_body")), "{body}");
        assert!(problem["detail"].as_str().unwrap().contains(word), "{problem}");
    }
    assert_eq!(send(&faults, "GET", "").await.1, kept);
}

#[tokio::test]
async fn disabled_injection_has_no_route_and_no_rules() {
    let faults = faults(false);
    let rules = json!({ "rules": [{ "name": "a", "method": "*", "rate": 1.0, "kind": "hang" }] });
    for (verb, body) in [("GET", String::new()), ("PUT", rules.to_string()), ("DELETE", String::new())] {
        assert_eq!(send(&faults, verb, body).await.0, StatusCode::NOT_FOUND, "{verb}");
    }
    let Rules { rules } = serde_json::from_value(rules).unwrap();
    assert_eq!(faults.replace(rules).unwrap_err().reason(), &reasons::NOT_FOUND);
    assert!(faults.rules().is_empty());
}
