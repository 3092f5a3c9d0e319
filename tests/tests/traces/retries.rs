//! Calls that were tried again, and calls that were not even tried.

use palisade_tests::{
    Client, eventually,
    otlp::{Collector, span::Span},
    shop::ALL_SCOPES,
    shop_helpers::create_product,
};
use serde_json::{Value, json};

use super::{FIND, catalogued, inject, injecting, shop, shown, tell, whole};

/// The attempt, its outcome and its code, of each retry.
fn retries(span: &Span) -> Vec<[Value; 3]> {
    let told = |attributes: &palisade_tests::otlp::span::Attributes| {
        assert!(attributes["app.rpc.pause_ms"].is_i64(), "{attributes:?}");
        ["app.rpc.attempt", "app.rpc.outcome", "rpc.status_code"].map(|key| attributes[key].clone())
    };
    span.events.iter().filter(|(name, _)| name == "retry").map(|(_, attributes)| told(attributes)).collect()
}

fn failed(attempt: i64) -> [Value; 3] {
    [json!(attempt), json!("failed"), json!("UNAVAILABLE")]
}

#[tokio::test]
async fn a_call_is_one_span_whatever_the_number_of_its_attempts() {
    let collector = Collector::start();
    let shop = shop(&collector, injecting).await;
    let seller = shop.client("seller", ALL_SCOPES);
    let path = format!("/products/{}", create_product(&seller, 1).await);

    // In vain, three times.
    inject(&shop, Some((FIND, json!({ "error": "not_ready" })))).await;
    let answer = seller.get(&path).await;
    answer.problem(503, "not_ready");
    let trace = collector.trace(answer.header("x-trace-id").unwrap(), whole(5)).await;
    assert_eq!((trace.root().status, trace.root().attribute("error.type")), ("Error", json!("503")));
    let call = trace.one("CLIENT", FIND);
    assert_eq!((call.status, call.attribute("error.type")), ("Error", json!("UNAVAILABLE")));
    assert_eq!((call.attribute("app.rpc.attempts"), retries(call)), (json!(3), vec![failed(1), failed(2)]));
    assert_eq!(shown(trace.below(call)), [("SERVER", FIND, "Error"); 3]);

    // Whoever is overloaded asks for a second's pause: time enough to take the fault away.
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
    let trace = collector.trace(answer.header("x-trace-id").unwrap(), whole(4)).await;
    let call = trace.one("CLIENT", FIND);
    assert_eq!((trace.root().status, call.status, call.attribute("rpc.status_code")), ("Unset", "Unset", json!("OK")), "it recovered");
    assert_eq!((call.attribute("app.rpc.attempts"), retries(call)), (json!(2), vec![failed(1)]));
    assert_eq!(shown(trace.below(call)), [("SERVER", FIND, "Error"), ("SERVER", FIND, "Unset")]);

    // An answer that breaks off is as good as none.
    inject(&shop, Some((FIND, json!("abort")))).await;
    let answer = seller.get(&path).await;
    answer.any_problem(503);
    let trace = collector.trace(answer.header("x-trace-id").unwrap(), whole(3)).await;
    assert_eq!(trace.one("CLIENT", FIND).attribute("rpc.status_code"), json!("UNAVAILABLE"));
    inject(&shop, None).await;

    // An open breaker lets nothing through.
    tell(&shop, "gateway", "/breakers/products", &json!({ "mode": "forced_open" })).await;
    let answer = seller.get(&path).await;
    answer.problem(503, "upstream_unavailable");
    let trace = collector.trace(answer.header("x-trace-id").unwrap(), whole(2)).await;
    let call = trace.one("CLIENT", FIND);
    assert_eq!((call.status, call.attribute("error.type"), trace.below(call).len()), ("Error", json!("UNAVAILABLE"), 0));
    catalogued(&collector);
}
