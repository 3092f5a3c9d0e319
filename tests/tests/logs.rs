//! Log records: one per rejected or failed request, none for a successful one, and no secrets.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

use palisade_tests::{
    Client, Response, Shop, eventually, jwt,
    otlp::Collector,
    servers,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{create_product, order_request, place_confirmed_order, product_body, with_changes},
    unique,
};
use reqwest::Method;
use serde_json::{Value, json};

const SERVICES: [&str; 3] = ["gateway", "products", "orders"];
const PASSWORD: &str = "hunter2-of-the-store";

/// Returns the log records of a service, without the lines about listeners.
fn lines(shop: &Shop, service: &str) -> Vec<Value> {
    let log = shop.program(service).log();
    let lines = log.lines().filter(|line| !line.starts_with("listening "));
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Returns the records of one request with these levels.
fn request_records(shop: &Shop, service: &str, answer: &Response, levels: &[&str]) -> Vec<Value> {
    let id = answer.header("x-trace-id");
    let all = lines(shop, service).into_iter();
    all.filter(|line| line["trace_id"].as_str() == id && levels.contains(&line["level"].as_str().unwrap())).collect()
}

const ABOVE_DEBUG: [&str; 3] = ["INFO", "WARN", "ERROR"];
const REQUEST_FAILED: &str = "request failed";
const ALL: [&str; 4] = ["DEBUG", "INFO", "WARN", "ERROR"];

/// Returns the only record about the rejection of a request. It is written shortly after the
/// response.
async fn rejection_record(shop: &Shop, service: &str, answer: &Response) -> Value {
    let rejections = || request_records(shop, service, answer, &ALL).into_iter().filter(|line| line["message"] == "request rejected");
    eventually(async || rejections().next()).await;
    let rejections: Vec<_> = rejections().collect();
    assert_eq!(rejections.len(), 1, "{service}: {rejections:#?}");
    let line = rejections.into_iter().next().unwrap();
    let is_text = |key: &str| line[key].as_str().is_some_and(|text| !text.is_empty());
    assert!(["timestamp", "level", "service", "target", "reason", "detail", "cause", "span_id"].into_iter().all(is_text), "{line}");
    assert_eq!(line["service"], service);
    // A warning must be the only record above DEBUG, beside the record of the request.
    let aloud = request_records(shop, service, answer, &ABOVE_DEBUG).into_iter().filter(|line| line["message"] != REQUEST_FAILED);
    assert_eq!(aloud.count(), usize::from(line["level"] == "WARN"), "{service}");
    line
}

/// Returns the only record of a failed request, which the gateway writes.
async fn request_record(shop: &Shop, answer: &Response) -> Value {
    let records = || request_records(shop, "gateway", answer, &["INFO"]).into_iter().filter(|line| line["message"] == REQUEST_FAILED);
    let record = eventually(async || records().next()).await;
    assert_eq!(records().count(), 1, "{record}");
    assert_eq!(record["request_id"].as_str(), answer.header("x-request-id"));
    assert_eq!(record["status"], answer.status.as_u16());
    assert!(record["duration_ms"].is_u64(), "{record}");
    record
}

/// Starts a shop that logs everything, with a password in a store URL.
fn start_with_debug_logs(collector: &Collector) -> (Shop, servers::Postgres) {
    let postgres = servers::postgres();
    let url = postgres.url("orders").replace("app@", &format!("app:{PASSWORD}@"));
    let shop = Shop::separate_with(None, Some(&url), |_, command| {
        collector.configure(command);
        // The transport has to be named.
        let filter = "debug,h2=debug,hyper=debug,tower=debug,tonic=debug,rustls=debug,reqwest=debug";
        command.env("PALISADE_TELEMETRY__LOG_FILTER", filter);
    });
    (shop, postgres)
}

#[tokio::test]
async fn failed_requests_are_logged_exactly_once() {
    let collector = Collector::start();
    let (mut shop, _postgres) = start_with_debug_logs(&collector);
    let (seller, buyer, nobody) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER), shop.anonymous());
    let item = create_product(&seller, 3).await;
    let path = format!("/products/{item}");

    let mut well = Vec::new();
    for _ in 0..5 {
        well.push(seller.get(&path).await);
        well.push(order_request(&buyer, &[]).await);
        place_confirmed_order(&buyer, &[(&item, 1)]).await;
        well.push(seller.put(&path, &with_changes(product_body(3), &json!({}))).await);
    }
    let (refused, well): (Vec<_>, Vec<_>) = well.into_iter().partition(|answer| answer.status == 400);
    for (answer, service) in well.iter().flat_map(|answer| SERVICES.map(|service| (answer, service))) {
        assert_eq!(answer.status, 200);
        assert_eq!(request_records(&shop, service, answer, &ABOVE_DEBUG), Vec::<Value>::new(), "{service}");
    }

    // Client errors are logged at DEBUG.
    for (answer, reason) in [
        (refused[0].clone(), "validation_failed"),
        (nobody.get(&path).await, "unauthenticated"),
        (buyer.post("/products", &product_body(1)).await, "insufficient_scope"),
        (nobody.get("/nowhere").await, "not_found"),
        (nobody.request(Method::PATCH, "/products").await, "method_not_allowed"),
        (seller.get(format!("/products/{}", uuid::Uuid::new_v4())).await, "not_found"),
        (order_request(&buyer, &[(&item, 1_000)]).await, "insufficient_stock"),
    ] {
        let line = rejection_record(&shop, "gateway", &answer).await;
        assert_eq!((&line["level"], &line["reason"]), (&json!("DEBUG"), &json!(reason)), "{line}");
    }
    // Refused orders have a record, with the service that refused them and the caller.
    let answer = order_request(&buyer, &[(&item, 1_000)]).await;
    for service in SERVICES {
        let line = rejection_record(&shop, service, &answer).await;
        assert_eq!(line["request_id"].as_str(), answer.header("x-request-id"), "{service}: {line}");
    }
    let line = request_record(&shop, &answer).await;
    assert_eq!((&line["route"], &line["code"]), (&json!("/orders"), &json!("insufficient_stock")), "{line}");
    assert_eq!((&line["refused_by"], &line["upstream"], &line["subject"]), (&json!("orders"), &json!("orders"), &json!("buyer")), "{line}");
    let line = request_record(&shop, &nobody.post("/orders", &json!({})).await).await;
    assert_eq!((&line["code"], &line["refused_by"], &line["subject"]), (&json!("unauthenticated"), &json!("self"), &Value::Null), "{line}");

    // Server errors have a record with the cause, and the request's span.
    shop.program_mut("products").kill();
    let answer = seller.get(&path).await;
    answer.problem(503, "upstream_unavailable");
    rejection_record(&shop, "gateway", &answer).await;
    let line = request_record(&shop, &answer).await;
    assert_eq!(
        (&line["code"], &line["refused_by"], &line["upstream"]),
        (&json!("upstream_unavailable"), &json!("self"), &json!("products")),
        "{line}"
    );
    assert_eq!((&line["route"], &line["subject"]), (&json!("/products/{id}"), &json!("seller")), "{line}");
    assert!(line["cause"].as_str().unwrap().contains("connect"), "{line}");
    let trace = collector.trace(answer.header("x-trace-id").unwrap(), |trace| trace.0.len() == 2).await;
    assert_eq!(line["span_id"], json!(trace.root().id));
    // A deferred order is logged once, by orders.
    let answer = order_request(&buyer, &[(&item, 1)]).await;
    answer.ok(202);
    let records = || Some(request_records(&shop, "orders", &answer, &ABOVE_DEBUG)).filter(|records| !records.is_empty());
    let logged = eventually(async || records()).await;
    assert_eq!((logged.len(), &logged[0]["call"]), (1, &json!("ReserveStock")), "{logged:#?}");
    assert!(logged[0]["cause"].as_str().unwrap().contains("connect"), "{logged:#?}");
    assert_eq!(request_records(&shop, "gateway", &answer, &ABOVE_DEBUG), Vec::<Value>::new());
}

#[tokio::test]
async fn logs_and_spans_contain_no_secrets() {
    let collector = Collector::start();
    let (shop, _postgres) = start_with_debug_logs(&collector);
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let [key, words, header, query, broken] = ["key", "words", "header", "query", "broken"].map(|name| unique(&format!("secret-{name}")));
    let item = create_product(&seller, 3).await;

    let rejections = with_changes(product_body(1), &json!({ "description": words }));
    for _ in 0..2 {
        seller.post("/products", &rejections).header("idempotency-key", &key).await.ok(201);
        order_request(&buyer, &[(&item, 1)])
            .header("idempotency-key", &key)
            .header("x-api-key", &header)
            .header("cookie", &header)
            .await
            .ok(201);
    }
    order_request(&buyer, &[(&item, 2)]).header("idempotency-key", &key).await.any_problem(422);
    buyer.get(format!("/orders?cursor={query}")).await.any_problem(400);
    buyer.post("/orders", &json!({ "items": broken.clone() })).await.any_problem(400);
    buyer.request(Method::POST, "/orders").json(format!("{{\"{broken}")).await.any_problem(400);
    let forged = jwt::sign(&json!({ "alg": "HS256" }), &jwt::claims("mallory", ALL_SCOPES), broken.as_bytes());
    for authorization in [format!("Bearer {forged}"), format!("Bearer {broken}"), format!("Basic {broken}")] {
        shop.anonymous().get("/orders").header("authorization", &authorization).await.any_problem(401);
        let orders = Client::new(shop.grpc_url("orders"), None).with_http2();
        let call = orders.request(Method::POST, "/palisade.orders.v1.OrdersService/FindOne").header("authorization", &authorization);
        call.header("content-type", "application/grpc").attempt().await.unwrap();
    }
    let last = seller.get(format!("/products/{item}")).await;
    collector.trace(last.header("x-trace-id").unwrap(), |trace| trace.0.len() == 3).await;

    let secrets = [&*key, &*words, &*header, &*query, &*broken, PASSWORD, jwt::SECRET, "PRIVATE KEY", "eyJ", seller.token().unwrap()];
    let spans = format!("{:?}", collector.spans());
    for secret in secrets {
        for service in SERVICES {
            let found: Vec<_> = lines(&shop, service).into_iter().filter(|line| line.to_string().contains(secret)).collect();
            assert!(found.is_empty(), "{secret} is in the log of {service}: {found:#?}");
        }
        assert!(!spans.contains(secret), "{secret} is in a span: {:#?}", {
            collector.spans().into_iter().find(|span| format!("{span:?}").contains(secret))
        });
    }
    assert!(
        lines(&shop, "gateway").iter().any(|line| line["target"].as_str().unwrap().starts_with("h2")),
        "debug logs of dependencies must be enabled"
    );
}

#[tokio::test]
async fn request_log_is_filtered_on_its_own() {
    let mut shop = Shop::separate_with(None, None, |_, command| {
        command.env("PALISADE_TELEMETRY__LOG_FILTER", "warn,palisade_resilience::request_log=info");
    });
    let seller = shop.client("seller", ALL_SCOPES);
    shop.program_mut("products").kill();
    let answer = seller.get("/products").await;
    answer.any_problem(503);
    request_record(&shop, &answer).await;
    let others = lines(&shop, "gateway").into_iter().filter(|line| line["message"] != REQUEST_FAILED);
    assert_eq!(others.filter(|line| line["level"] == "INFO").count(), 0, "only the request log is at info");
}

#[tokio::test]
async fn store_failures_are_logged_without_password() {
    let [mongo, postgres] = [(); 2].map(|()| servers::free_port());
    let mongo = format!("mongodb://app:{PASSWORD}@127.0.0.1:{mongo}/products?directConnection=true&serverSelectionTimeoutMS=200");
    let postgres = format!("postgres://app:{PASSWORD}@127.0.0.1:{postgres}/orders");
    let shop = Shop::start_separate_with(Some(&mongo), Some(&postgres), |_, command| {
        // The transport has to be named.
        let filter = "debug,h2=debug,hyper=debug,tower=debug,tonic=debug,rustls=debug,reqwest=debug";
        command.env("PALISADE_TELEMETRY__LOG_FILTER", filter);
    });
    for service in ["products", "orders"] {
        let admin = Client::new(shop.admin_url(service), None);
        let report = eventually(async || {
            let answer = admin.get("/readyz").attempt().await.ok()?;
            let reason = answer.json()["dependencies"][0]["reason"].as_str().is_some_and(|reason| !reason.is_empty());
            (answer.status == 503 && reason).then(|| answer.text())
        })
        .await;
        eventually(async || lines(&shop, service).iter().any(|line| line["level"] == "WARN").then_some(())).await;
        assert!(!report.contains(PASSWORD), "{report}");
        assert!(!shop.program(service).log().contains(PASSWORD), "{}", shop.program(service).last_lines());
    }
}

#[tokio::test]
async fn debug_logs_of_libraries_show_no_password() {
    const SECRET: &str = "s3cret-of-the-broker";
    // Accepts connections and never answers.
    let broker = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://palisade:{SECRET}@{}", broker.local_addr().unwrap());
    let shop = Shop::separate_with(None, None, |_, command| {
        command.env("PALISADE_TELEMETRY__LOG_FILTER", "debug,async_nats=trace").env("PALISADE_EVENTS__NATS_URL", &url);
    });
    for service in ["orders", "products"] {
        eventually(async || shop.program(service).log().contains("async_nats").then_some(())).await;
        let log = shop.program(service).log();
        assert!(!log.contains(SECRET), "{service}: {}", log.lines().find(|line| line.contains(SECRET)).unwrap_or_default());
    }
}
