//! Traces of retried calls and of calls that were not attempted.

use palisade_tests::{
    Client, eventually,
    otlp::{Collector, span::Span},
    shop::ALL_SCOPES,
    shop_helpers::create_product,
};
use serde_json::{Value, json};

use super::{FIND, assert_catalogued, complete_with, inject, kinds_names_statuses, put_admin, shop, with_fault_injection};

/// Returns attempt, outcome and code of each retry event.
fn retries(span: &Span) -> Vec<[Value; 3]> {
    let described = |attributes: &palisade_tests::otlp::span::Attributes| {
        assert!(attributes["app.rpc.backoff_ms"].is_i64(), "{attributes:?}");
        ["app.rpc.attempt", "app.rpc.outcome", "rpc.status_code"].map(|key| attributes[key].clone())
    };
    span.events.iter().filter(|(name, _)| name == "retry").map(|(_, attributes)| described(attributes)).collect()
}

fn failed(attempt: i64) -> [Value; 3] {
    [json!(attempt), json!("failed"), json!("UNAVAILABLE")]
}

/// Returns the code of the refusal and the service that refused.
fn refusal(span: &Span) -> [Value; 2] {
    ["app.problem.code", "app.refused_by"].map(|key| span.attribute(key))
}

#[tokio::test]
async fn call_is_one_span_for_all_attempts() {
    let collector = Collector::start();
    let shop = shop(&collector, with_fault_injection);
    let seller = shop.client("seller", ALL_SCOPES);
    let path = format!("/products/{}", create_product(&seller, 1).await);

    // All three attempts fail.
    inject(&shop, Some((FIND, json!({ "error": "not_ready" })))).await;
    let answer = seller.get(&path).await;
    answer.problem(503, "not_ready");
    let trace = collector.trace(answer.header("x-trace-id").unwrap(), complete_with(5)).await;
    assert_eq!((trace.root().status, trace.root().attribute("error.type")), ("Error", json!("503")));
    assert_eq!(refusal(trace.root()), ["not_ready", "products"]);
    let call = trace.single("CLIENT", FIND);
    assert_eq!(refusal(call), [Value::Null, Value::Null], "the target refused");
    assert!(trace.children(call).iter().all(|served| refusal(served) == ["not_ready", "self"]));
    assert_eq!((call.status, call.attribute("error.type")), ("Error", json!("UNAVAILABLE")));
    assert_eq!((call.attribute("app.rpc.attempts"), retries(call)), (json!(3), vec![failed(1), failed(2)]));
    assert_eq!(kinds_names_statuses(trace.children(call)), [("SERVER", FIND, "Error"); 3]);

    // `overloaded` requests a backoff of one second, which leaves time to remove the fault.
    inject(&shop, Some((FIND, json!({ "error": "overloaded" })))).await;
    let admin = Client::new(shop.admin_url("products"), None);
    let recover = async {
        eventually(async || {
            let metrics = admin.get("/metrics").attempt().await.ok()?.text();
            metrics.lines().any(|line| line == r#"palisade_faults_injected_total{kind="error"} 4"#).then_some(())
        })
        .await;
        inject(&shop, None).await;
    };
    let (answer, ()) = futures_util::future::join(async { seller.get(&path).await }, recover).await;
    answer.ok(200);
    let trace = collector.trace(answer.header("x-trace-id").unwrap(), complete_with(4)).await;
    let call = trace.single("CLIENT", FIND);
    assert_eq!(
        (trace.root().status, call.status, call.attribute("rpc.status_code")),
        ("Unset", "Unset", json!("OK")),
        "the call must recover"
    );
    assert_eq!((call.attribute("app.rpc.attempts"), retries(call)), (json!(2), vec![failed(1)]));
    assert_eq!(kinds_names_statuses(trace.children(call)), [("SERVER", FIND, "Error"), ("SERVER", FIND, "Unset")]);

    // A truncated response is a failure.
    inject(&shop, Some((FIND, json!("abort")))).await;
    let answer = seller.get(&path).await;
    answer.any_problem(503);
    let trace = collector.trace(answer.header("x-trace-id").unwrap(), complete_with(3)).await;
    assert_eq!(trace.single("CLIENT", FIND).attribute("rpc.status_code"), json!("UNAVAILABLE"));
    inject(&shop, None).await;

    // An open breaker permits no attempt.
    put_admin(&shop, "gateway", "/breakers/products", &json!({ "mode": "forced_open" })).await;
    let answer = seller.get(&path).await;
    answer.problem(503, "upstream_unavailable");
    let trace = collector.trace(answer.header("x-trace-id").unwrap(), complete_with(2)).await;
    let call = trace.single("CLIENT", FIND);
    assert_eq!((call.status, call.attribute("error.type"), trace.children(call).len()), ("Error", json!("UNAVAILABLE"), 0));
    assert_eq!(call.attribute("app.rpc.attempts"), json!(0));
    assert_eq!([refusal(call), refusal(trace.root())], [["upstream_unavailable", "self"]; 2]);
    assert_catalogued(&collector);
}
