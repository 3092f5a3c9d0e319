//! Tail sampling: at a sample ratio of 0.01 every failed and every slow request has its whole
//! trace.

use palisade_proto::products::v1::{FindOneRequest, products_service_client::ProductsServiceClient};
use palisade_tests::{
    Client, Response, Shop, eventually,
    otlp::{
        Collector,
        span::{Span, Trace},
    },
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{accepted_id, create_product, order_request, wait_until_settled},
};
use serde_json::json;

use super::{CREATE, FIND, RESERVE, assert_catalogued, inject, put_admin, shop, with_fault_injection};

/// Requests of the chaos run. Half of the attempts fail.
const REQUESTS: usize = 60;

fn shop_sampling(ratio: &str, collector: &Collector) -> Shop {
    shop(collector, |service, command| {
        with_fault_injection(service, command);
        command.env("PALISADE_TELEMETRY__SAMPLE_RATIO", ratio);
        if service == "gateway" {
            command.env("PALISADE_SERVER__RATE_LIMIT__PER_SECOND", "1").env("PALISADE_SERVER__RATE_LIMIT__BURST", "100");
        }
    })
}

fn unsampled_all_in_one(collector: &Collector) -> Shop {
    Shop::all_in_one_with(|command| {
        collector.configure(command);
        command.env("PALISADE_TELEMETRY__SAMPLE_RATIO", "0");
    })
}

/// Sends verdicts to products, as a service that called it would.
async fn send_verdicts(shop: &Shop, verdicts: &str) {
    let products = Client::new(shop.grpc_url("products"), None).with_http2();
    let check = products.request(reqwest::Method::POST, "/grpc.health.v1.Health/Check").header("content-type", "application/grpc");
    check.header("x-kept-traces", verdicts).body(vec![0; 5]).attempt().await.unwrap();
}

/// Returns whether the trace has its root, and each attempt of each call the span of the service
/// that served it.
fn is_whole(trace: &Trace) -> bool {
    let is_served = |call: &&Span| call.attribute("app.rpc.attempts") == json!(trace.children(call).len());
    let has_root = trace.0.iter().any(|span| span.parent.is_none());
    has_root && trace.is_complete() && trace.0.iter().filter(|span| span.kind == "CLIENT").all(|call| is_served(&call))
}

/// Waits for the whole trace of a response and returns its tree without the names of services.
async fn tree(collector: &Collector, answer: &Response) -> Vec<(&'static str, String)> {
    let trace = collector.trace(answer.header("x-trace-id").unwrap(), is_whole).await;
    let root = trace.root();
    assert_eq!((root.service.as_str(), root.attribute("http.response.status_code")), ("gateway", json!(answer.status.as_u16())));
    let mut spans: Vec<_> = trace.0.iter().map(|span| (span.kind, span.name.clone())).collect();
    spans.sort();
    spans
}

fn spans<const COUNT: usize>(expected: [(&'static str, &str); COUNT]) -> Vec<(&'static str, String)> {
    let mut spans = expected.map(|(kind, name)| (kind, name.to_owned())).to_vec();
    spans.sort();
    spans
}

#[tokio::test]
async fn failed_and_slow_requests_have_whole_traces() {
    let collector = Collector::start();
    let shop = shop_sampling("0.01", &collector);
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 1).await;
    let path = format!("/products/{product}");
    let read = [("SERVER", "GET /products/{id}"), ("CLIENT", FIND), ("SERVER", FIND)];
    let order = [
        ("SERVER", "POST /orders"),
        ("CLIENT", CREATE),
        ("SERVER", CREATE),
        ("INTERNAL", "saga create_order"),
        ("INTERNAL", "step reserve_stock"),
        ("CLIENT", RESERVE),
        ("SERVER", RESERVE),
    ];

    let answer = shop.anonymous().get("/products").await;
    answer.problem(401, "unauthenticated");
    assert_eq!(tree(&collector, &answer).await, spans([("SERVER", "GET /products")]));
    let answer = seller.get(format!("/products/{}", uuid::Uuid::new_v4())).await;
    answer.problem(404, "not_found");
    assert_eq!(tree(&collector, &answer).await, spans(read));
    let answer = order_request(&buyer, &[(&product, 2)]).await;
    answer.problem(409, "insufficient_stock");
    assert_eq!(tree(&collector, &answer).await, spans(order));

    // Slow, and nothing failed.
    inject(&shop, Some((FIND, json!({ "latency": { "ms": 300 } })))).await;
    let answer = seller.get(&path).await;
    answer.ok(200);
    assert_eq!(tree(&collector, &answer).await, spans(read));
    inject(&shop, Some((FIND, json!("hang")))).await;
    let answer = seller.get(&path).header("x-request-timeout", "300").await;
    answer.problem(504, "deadline_exceeded");
    assert_eq!(tree(&collector, &answer).await, spans(read));

    // The saga has no result when the order is accepted, and a worker finishes it in a trace of its
    // own.
    inject(&shop, Some((RESERVE, json!({ "error": "not_ready" })))).await;
    let answer = order_request(&buyer, &[(&product, 1)]).await;
    let id = accepted_id(&answer);
    let tree_of_order = tree(&collector, &answer).await;
    assert!(spans(order).iter().all(|span| tree_of_order.contains(span)), "{tree_of_order:#?}");
    let resumed = |span: &Span| span.name == "step reserve_stock" && span.attribute("app.saga.attempt").as_i64() > Some(1);
    let failed_step = collector.span(resumed).await;
    assert_eq!((failed_step.status, failed_step.service.as_str()), ("Error", "orders"));
    collector.trace(&failed_step.trace_id, is_whole).await;
    inject(&shop, None).await;
    wait_until_settled(&buyer, &id).await;

    // Refused before a call, and before anything else.
    put_admin(&shop, "gateway", "/breakers/products", &json!({ "mode": "forced_open" })).await;
    let answer = seller.get(&path).await;
    answer.problem(503, "upstream_unavailable");
    let trace = collector.trace(answer.header("x-trace-id").unwrap(), |trace| trace.0.len() == 2 && trace.is_complete()).await;
    assert_eq!(trace.root().service, "gateway");
    put_admin(&shop, "gateway", "/breakers/products", &json!({ "mode": "active" })).await;
    let greedy = shop.client("greedy", ALL_SCOPES);
    let answer = eventually(async || Some(greedy.get("/orders").await).filter(|answer| answer.status == 429)).await;
    assert_eq!(tree(&collector, &answer).await, spans([("SERVER", "GET /orders")]));
    assert_catalogued(&collector);
}

#[tokio::test]
async fn every_failure_of_a_chaos_run_is_found_by_its_trace_id() {
    let collector = Collector::start();
    let shop = shop_sampling("0.01", &collector);
    let seller = shop.client("seller", ALL_SCOPES);
    let path = format!("/products/{}", create_product(&seller, 1).await);
    let rule = json!({ "name": "chaos", "method": FIND, "rate": 0.5, "kind": { "error": "internal" } });
    put_admin(&shop, "products", "/faults", &json!({ "rules": [rule] })).await;
    let mut failed = Vec::new();
    for _ in 0..REQUESTS {
        let answer = seller.get(&path).await;
        if answer.status != 200 {
            failed.push(answer);
        }
    }
    assert!(!failed.is_empty());
    for answer in &failed {
        tree(&collector, answer).await;
        let id = format!("\"trace_id\":\"{}\"", answer.header("x-trace-id").unwrap());
        let is_record = |line: &str| line.contains(&id) && line.contains("\"message\":\"request failed\"");
        eventually(async || shop.program("gateway").log().lines().any(is_record).then_some(())).await;
    }
    assert_catalogued(&collector);
}

#[tokio::test]
async fn other_requests_have_no_trace_whoever_asks() {
    let collector = Collector::start();
    let shop = shop_sampling("0", &collector);
    let seller = shop.client("seller", ALL_SCOPES);
    let path = format!("/products/{}", create_product(&seller, 1).await);
    let good = seller.get(&path).await;
    good.ok(200);
    let forced = seller.get(&path).header("traceparent", "00-0000000000000000000000000000000a-000000000000000b-01").await;
    forced.ok(200);
    let ids = [&good, &forced].map(|answer| answer.header("x-trace-id").unwrap().to_owned());

    // A verdict from outside: over HTTP, and over gRPC without the id of the calling span.
    let verdicts = ids.iter().map(|id| format!("{id}-000000000000000b")).collect::<Vec<_>>().join(",");
    seller.get("/livez").header("x-kept-traces", &verdicts).attempt().await.unwrap();
    send_verdicts(&shop, &verdicts).await;
    let admin = Client::new(shop.admin_url("products"), None);
    let expired = async || {
        let metrics = admin.get("/metrics").attempt().await.ok()?.text();
        metrics.lines().any(|line| line == r#"palisade_tail_sampling_traces_total{outcome="expired"} 2"#).then_some(())
    };
    eventually(expired).await;

    let last = seller.get("/orders/nonsense").await;
    last.any_problem(400);
    collector.trace(last.header("x-trace-id").unwrap(), is_whole).await;
    let leaked: Vec<_> = collector.spans().into_iter().filter(|span| ids.contains(&span.trace_id)).collect();
    assert!(leaked.is_empty(), "{leaked:#?}");
}

/// A user who calls a service directly knows the ids of the calling span.
#[tokio::test]
async fn direct_grpc_callers_do_not_choose_sampling() {
    let collector = Collector::start();
    let shop = unsampled_all_in_one(&collector);
    let product = create_product(&shop.client("seller", ALL_SCOPES), 1).await;
    let mut products = ProductsServiceClient::new(shop.grpc_channel("products"));
    let token = shop.service_token("products", "direct", "products:read");
    let ids = ["0000000000000000000000000000000c", "0000000000000000000000000000000d"];
    let call = |id: String, traceparent: String| {
        let mut call = tonic::Request::new(FindOneRequest { id });
        call.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        call.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
        call
    };
    for (id, flags) in ids.iter().zip(["01", "00"]) {
        products.find_one(call(product.clone(), format!("00-{id}-000000000000000b-{flags}"))).await.unwrap();
    }
    send_verdicts(&shop, &ids.map(|id| format!("{id}-000000000000000b")).join(",")).await;

    // The trace of a failure is kept, as for every caller.
    let failed = "0000000000000000000000000000000e";
    products.find_one(call("nonsense".to_owned(), format!("00-{failed}-000000000000000b-00"))).await.unwrap_err();
    collector.trace(failed, |trace| !trace.0.is_empty()).await;
    let leaked: Vec<_> = collector.spans().into_iter().filter(|span| ids.contains(&span.trace_id.as_str())).collect();
    assert!(leaked.is_empty(), "{leaked:#?}");
}

#[tokio::test]
async fn tail_sampling_can_be_switched_off() {
    let collector = Collector::start();
    let shop = shop(&collector, |_, command| {
        command.env("PALISADE_TELEMETRY__SAMPLE_RATIO", "0").env("PALISADE_TELEMETRY__KEEP_FAILED_TRACES", "false");
    });
    shop.anonymous().get("/products").await.any_problem(401);
    let admin = Client::new(shop.admin_url("gateway"), None);
    let metrics = admin.get("/metrics").attempt().await.unwrap().text();
    assert!(!metrics.contains("tail_sampling_traces_total{"), "{metrics}");
    assert_eq!(collector.spans().len(), 0, "{:#?}", collector.spans());
}

#[tokio::test]
async fn services_of_the_all_in_one_have_their_own_names() {
    let collector = Collector::start();
    let shop = unsampled_all_in_one(&collector);
    let seller = shop.client("seller", ALL_SCOPES);
    let product = create_product(&seller, 1).await;
    let answer = order_request(&seller, &[(&product, 2)]).await;
    answer.problem(409, "insufficient_stock");
    let trace = collector.trace(answer.header("x-trace-id").unwrap(), |trace| trace.0.len() >= 7 && is_whole(trace)).await;
    let served = [("gateway", "POST /orders"), ("orders", CREATE), ("products", RESERVE)];
    assert_eq!(served.map(|(_, name)| trace.single("SERVER", name).service.as_str()), served.map(|(service, _)| service));
    assert_eq!(trace.single("CLIENT", RESERVE).service, "orders");
    assert_catalogued(&collector);
}
