//! Deadlines shorter than the work: they say nothing about the health of a service.

use palisade_tests::{Shop, shop::CUSTOMER};
use serde_json::json;

use crate::{attack::Attack, victim::Victim};

#[tokio::test(flavor = "multi_thread")]
async fn short_deadlines_of_one_user_harm_no_other() {
    let shop = Shop::all_in_one();
    let victim = Victim::enter(&shop).await;
    let (hasty, product) = (shop.client("hasty", CUSTOMER), victim.product().to_owned());
    let start = async || {
        let mut attack = Attack::default();
        let (path, lister) = (format!("/products/{product}"), hasty.clone());
        attack.repeat(16, move || hasty.get(&path).header("x-request-timeout", "3"));
        attack.repeat(16, move || lister.get("/orders").header("x-request-timeout", "5"));
        attack.wait_for_answers(200).await;
        attack
    };
    victim.assert_served_during("short deadlines", start).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn short_deadlines_are_no_evidence_against_a_service() {
    let shop = Shop::separate_with(None, None, |service, command| {
        if service == "products" {
            command.env("PALISADE_SERVER__FAULT_INJECTION__ENABLED", "true");
        }
    });
    let victim = Victim::enter(&shop).await;
    let path = format!("/products/{}", victim.product());
    // Healthy, but slower than the attacker waits.
    let latency = json!({ "latency": { "ms": 120, "jitter_ms": 0 } });
    shop.program("products").set_faults("products", "palisade.products.v1.ProductsService/FindOne", 1.0, Some(latency)).await;
    let target = [r#"target="products""#];
    let tokens = shop.counted("gateway", "palisade_retry_budget_tokens", &target).await;

    let hasty = shop.client("hasty", CUSTOMER);
    let mut attack = Attack::default();
    let attacked = path.clone();
    attack.repeat(8, move || hasty.get(&attacked).header("x-request-timeout", "60"));
    attack.wait_for_answers(100).await;
    for _ in 0..5 {
        let read = shop.client("patient", CUSTOMER).get(&path).attempt().await.unwrap();
        assert_eq!(read.status, 200, "{}", read.text());
    }
    attack.stop().await;

    let opened = shop.counted("gateway", "palisade_breaker_transitions_total", &[target[0], r#"to="open""#]).await;
    assert!(opened.abs() < f64::EPSILON, "the breaker opened");
    let left = shop.counted("gateway", "palisade_retry_budget_tokens", &target).await;
    assert!(left >= tokens, "{tokens} retry tokens before, {left} after");
    for (service, metric) in
        [("gateway", "http_server_request_duration_seconds_count"), ("products", "rpc_server_call_duration_seconds_count")]
    {
        let timeouts = async |error: &str| shop.counted(service, metric, &[&format!("error_type=\"{error}\"")]).await;
        assert!(timeouts("504").await + timeouts("DEADLINE_EXCEEDED").await < 1.0, "{service} takes the blame");
    }
    assert!(shop.counted("gateway", "http_server_request_duration_seconds_count", &[r#"error_type="caller_deadline""#]).await >= 100.0);
    // Each timeout is counted once, by the server that its caller asked.
    let timeouts = async |service: &str, labels: &[&str]| shop.counted(service, "palisade_request_timeouts_total", labels).await;
    assert!(timeouts("gateway", &[r#"target="server""#, r#"kind="caller""#]).await >= 100.0);
    assert!(timeouts("gateway", &[r#"target="products""#]).await < 1.0, "counted again by the client");
    assert!(timeouts("products", &[r#"target="server""#]).await < 1.0, "counted again by products");
}

#[tokio::test(flavor = "multi_thread")]
async fn deadline_of_zero_is_a_client_error() {
    let shop = Shop::all_in_one();
    let client = shop.anonymous();
    for value in ["0", "00", "-1", "1.5", "abc", "", "+5", "18446744073709551616"] {
        client.get("/products").header("x-request-timeout", value).await.problem(400, "invalid_parameter");
    }
    let twice = client.get("/products").header("x-request-timeout", "100").header("x-request-timeout", "100").await;
    twice.problem(400, "invalid_parameter");
    let errors = shop.counted("gateway", "http_server_request_duration_seconds_count", &[r#"http_response_status_code="504""#]).await;
    assert!(errors.abs() < f64::EPSILON, "{errors}");
}
