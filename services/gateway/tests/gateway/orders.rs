//! HTTP behaviour of `/orders`.

use palisade_middleware::rejection::Rejection;
use palisade_proto::orders::v1::{FindAllRequest, OrderStatus};
use palisade_proto::reasons::INSUFFICIENT_STOCK;
use prost_types::Timestamp;
use serde_json::{Value, json};

use crate::{
    Gateway, TextResponse,
    fake_services::{ID, USED_KEY},
};

fn order_body() -> String {
    json!({"items": [{"productId": ID, "quantity": 2}]}).to_string()
}

fn order_path() -> String {
    format!("/orders/{ID}")
}

#[tokio::test]
async fn confirmed_order_returns_201() {
    let gateway = Gateway::new();
    let response = gateway.send_json("POST", "/orders", &[("idempotency-key", "\"k-1\"")], &order_body()).await;
    assert_eq!(
        (response.status.as_u16(), response.header("location"), response.header("retry-after")),
        (201, Some(order_path().as_str()), None)
    );
    assert_eq!((response.header("cache-control"), response.header("idempotency-replayed")), (Some("no-store"), None));
    let order = response.json();
    assert_eq!((order["status"].as_str(), order["total"].to_string()), (Some("CONFIRMED"), "49.8".to_owned()));
    assert_eq!(order.get("failureReason"), None);
    assert_eq!(gateway.orders.create_request.lock().unwrap().take().unwrap().idempotency_key, "k-1");
}

#[tokio::test]
async fn unfinished_order_returns_202() {
    let gateway = Gateway::new();
    for status in [OrderStatus::Pending, OrderStatus::ProductReserved] {
        *gateway.orders.create_result.lock().unwrap() = Some(Ok(status));
        let response = gateway.send_json("POST", "/orders", &[("idempotency-key", USED_KEY)], &order_body()).await;
        assert_eq!(
            (response.status.as_u16(), response.header("location"), response.header("retry-after")),
            (202, Some(order_path().as_str()), Some("1"))
        );
        assert_eq!(response.header("idempotency-replayed"), Some("true"));
    }
    let pending = gateway.send_empty("GET", &order_path(), &[]).await.json();
    assert_eq!(pending["items"][0], json!({"productId": ID, "name": null, "unitPrice": null, "quantity": 2, "subtotal": null}));
    assert_eq!(pending["total"], Value::Null);
}

#[tokio::test]
async fn failed_order_is_a_problem_with_order_id() {
    let gateway = Gateway::new();
    let rejection = Rejection::new(&INSUFFICIENT_STOCK, "not enough stock").with_metadata("orderId", ID);
    *gateway.orders.create_result.lock().unwrap() = Some(Err(rejection.into()));
    let problem = gateway.send_json("POST", "/orders", &[], &order_body()).await.problem(409, "insufficient_stock");
    assert_eq!((problem["orderId"].as_str(), problem["detail"].as_str()), (Some(ID), Some("not enough stock")));
}

#[tokio::test]
async fn all_violations_are_reported_at_once() {
    let gateway = Gateway::new();
    assert_eq!(gateway.send_json("POST", "/orders", &[], "{}").await.errors(), ["items: required"]);
    let invalid = r#"{"items": [{"quantity": 0}, {"productId": "x"}]}"#;
    let errors = ["items[0].productId: required", "items[1].quantity: required", "items[0].quantity: out_of_range"];
    assert_eq!(gateway.send_json("POST", "/orders", &[], invalid).await.errors(), errors);
}

#[tokio::test]
async fn maximum_total_is_exact() {
    let gateway = Gateway::new();
    let body = |max_total: &str| format!(r#"{{"items": [{{"productId": "{ID}", "quantity": 2}}], "maxTotal": {max_total}}}"#);
    for (text, minor) in [("49.8", 4_980), ("0", 0), ("49.80", 4_980), ("9999999999.99", 999_999_999_999), ("-0.01", -1), ("1e20", -1)] {
        gateway.send_json("POST", "/orders", &[], &body(text)).await;
        assert_eq!(gateway.orders.create_request.lock().unwrap().take().unwrap().max_total_minor, Some(minor), "{text}");
    }
    gateway.send_json("POST", "/orders", &[], &order_body()).await;
    assert_eq!(gateway.orders.create_request.lock().unwrap().take().unwrap().max_total_minor, None);
    for (text, code) in [("0.001", "too_many_decimals"), ("1e1", "not_a_decimal"), ("99999999999999999999", "out_of_range")] {
        let invalid = format!(r#"{{"items": [], "maxTotal": {text}}}"#);
        let errors = gateway.send_json("POST", "/orders", &[], &invalid).await.errors();
        assert_eq!(errors, [format!("maxTotal: {code}"), "items: required".to_owned()], "{text}");
    }
    for text in ["\"1\"", "null", "true"] {
        gateway.send_json("POST", "/orders", &[], &body(text)).await.problem(400, "invalid_body");
    }
}

#[tokio::test]
async fn list_forwards_its_filters() {
    let gateway = Gateway::new();
    let filters = "status=PRODUCT_RESERVED&userId=alice&limit=100&cursor=abc";
    let created = "createdFrom=1970-01-01T01:00:00.5%2B01:00&createdTo=2026-01-01T00:00:00Z";
    let response = gateway.send_empty("GET", &format!("/orders?{filters}&productId={ID}&{created}"), &[]).await;
    assert_eq!((response.status.as_u16(), &response.json()["nextCursor"]), (200, &Value::Null));
    assert_eq!(response.json()["items"][0]["failureReason"], "insufficient_stock");
    let status = OrderStatus::ProductReserved.into();
    let expected = FindAllRequest {
        status,
        user_id: "alice".to_owned(),
        limit: 100,
        cursor: "abc".to_owned(),
        product_id: ID.to_owned(),
        created_from: Some(Timestamp { seconds: 0, nanos: 500_000_000 }),
        created_to: Some(Timestamp { seconds: 1_767_225_600, nanos: 0 }),
        all_users: false,
    };
    assert_eq!(gateway.orders.list_request.lock().unwrap().take(), Some(expected));
    for invalid in ["status=pending", "productId=1", "createdFrom=2026-01-01", "createdTo=now", "createdTo=2026-01-01T00:00:00+01:00"] {
        gateway.send_empty("GET", &format!("/orders?{invalid}"), &[]).await.problem(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn list_of_all_users_has_no_user_filter() {
    let gateway = Gateway::new();
    gateway.send_empty("GET", "/orders?userId=*", &[]).await;
    let expected = FindAllRequest { all_users: true, ..FindAllRequest::default() };
    assert_eq!(gateway.orders.list_request.lock().unwrap().take(), Some(expected));
}

#[tokio::test]
async fn listing_other_users_orders_requires_admin() {
    Gateway::new().send_empty("GET", "/orders?userId=bob", &[]).await.problem(403, "insufficient_scope");
}

#[tokio::test]
async fn set_status_succeeds_or_lists_allowed_statuses() {
    let gateway = Gateway::new();
    let path = format!("{}/status", order_path());
    let response = gateway.send_json("PUT", &path, &[], r#"{"status": "CANCELLED"}"#).await;
    assert_eq!((response.status.as_u16(), response.json()["status"].as_str()), (200, Some("CANCELLED")));
    let problem = gateway.send_json("PUT", &path, &[], r#"{"status": "COMPLETED"}"#).await.problem(409, "illegal_transition");
    assert_eq!(problem["allowed"], json!(["CANCELLED"]));
    assert_eq!(gateway.send_json("PUT", &path, &[], "{}").await.errors(), ["status: required"]);
    for unknown in ["cancelled", "UNSPECIFIED", ""] {
        assert_eq!(
            gateway.send_json("PUT", &path, &[], &json!({"status": unknown}).to_string()).await.errors(),
            ["status: unknown_status"]
        );
    }
}

#[tokio::test]
async fn history_has_actors_and_nulls_for_unknown() {
    let gateway = Gateway::new();
    let response = gateway.send_empty("GET", &format!("{}/history", order_path()), &[]).await;
    assert_eq!((response.status.as_u16(), response.header("cache-control")), (200, Some("no-store")));
    let at = "2026-01-01T00:00:00.005Z";
    let expected = json!({ "items": [
        { "version": 1, "from": null, "to": "PENDING", "reason": null, "time": at,
          "actor": { "role": "owner", "subject": "alice", "service": "gateway" } },
        { "version": 2, "from": "PENDING", "to": "CANCELLED", "reason": null, "time": at,
          "actor": { "role": "owner", "subject": "alice", "service": null } },
        { "version": 2, "from": "CANCELLED", "to": "CANCELLED", "reason": "removed", "time": at,
          "actor": { "role": null, "subject": null, "service": null } },
    ] });
    assert_eq!(response.json(), expected);
    gateway.send_empty("GET", "/orders/01890a5d-ac96-774b-bcce-b302099a8058/history", &[]).await.problem(404, "not_found");
    gateway.send_empty("GET", "/orders/nonsense/history", &[]).await.problem(400, "invalid_parameter");
}

#[tokio::test]
async fn delete_order_returns_204() {
    let gateway = Gateway::new();
    let response = gateway.send_empty("DELETE", &order_path(), &[]).await;
    assert_eq!((response.status.as_u16(), response.text.as_str()), (204, ""));
    gateway.send_empty("DELETE", "/orders/01890a5d-ac96-774b-bcce-b302099a8058", &[]).await.problem(404, "not_found");
}

mod events {
    use super::*;

    const EVENTS: &str = "/orders/01890a5d-ac96-774b-bcce-b302099a8057/events";

    /// Returns the ids and statuses of the events in a stream.
    fn ids_and_statuses(response: &TextResponse) -> Vec<(u32, String)> {
        let events = response.text.split("\n\n").filter(|event| event.contains("data: "));
        let ids_and_statuses = events.map(|event| {
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
            assert_eq!(field("event: "), "status");
            let order: Value = serde_json::from_str(&field("data: ")).unwrap();
            (field("id: ").parse().unwrap(), order["status"].as_str().unwrap().to_owned())
        });
        ids_and_statuses.collect()
    }

    #[tokio::test(start_paused = true)]
    async fn stream_resumes_until_the_terminal_status() {
        let response = Gateway::new().send_empty("GET", EVENTS, &[]).await;
        assert_eq!((response.status.as_u16(), response.header("content-type")), (200, Some("text/event-stream")));
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert!(response.text.starts_with("retry: "), "{}", response.text);
        let expected = [(1, "PENDING"), (2, "PRODUCT_RESERVED"), (3, "CONFIRMED"), (4, "CANCELLED")];
        assert_eq!(ids_and_statuses(&response), expected.map(|(id, status)| (id, status.to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn last_event_id_resumes_or_returns_204() {
        let gateway = Gateway::new();
        let response = gateway.send_empty("GET", EVENTS, &[("last-event-id", "2")]).await;
        assert_eq!(ids_and_statuses(&response), [(3, "CONFIRMED".to_owned()), (4, "CANCELLED".to_owned())]);
        let response = gateway.send_empty("GET", EVENTS, &[("last-event-id", "4")]).await;
        assert_eq!((response.status.as_u16(), response.text.as_str()), (204, ""));
    }

    #[tokio::test]
    async fn invalid_stream_request_is_a_problem() {
        let gateway = Gateway::new();
        for id in ["x", "-1", "1.5", "99999999999999999999"] {
            gateway.send_empty("GET", EVENTS, &[("last-event-id", id)]).await.problem(400, "invalid_parameter");
        }
        gateway.send_empty("GET", "/orders/00000000-0000-7000-8000-000000000000/events", &[]).await.problem(404, "not_found");
        gateway.send_empty("GET", "/orders/nonsense/events", &[]).await.problem(400, "invalid_parameter");
    }

    #[tokio::test]
    async fn head_returns_stream_headers_only() {
        let response = Gateway::new().send_empty("HEAD", EVENTS, &[]).await;
        assert_eq!(
            (response.status.as_u16(), response.header("content-type"), response.text.as_str()),
            (200, Some("text/event-stream"), "")
        );
    }
}

#[tokio::test]
async fn revised_order_returns_200_and_a_pending_revision_202() {
    let gateway = Gateway::new();
    let body = |quantity: u32| json!({"items": [{"productId": ID, "quantity": quantity}]}).to_string();
    let revised = gateway.send_json("PUT", &order_path(), &[("if-match", "*")], &body(3)).await;
    assert_eq!((revised.status.as_u16(), revised.header("location"), revised.header("cache-control")), (200, None, Some("no-store")));
    assert_eq!((revised.json()["items"][0]["quantity"].as_i64(), revised.json().get("revision")), (Some(3), None));
    let pending = gateway.send_json("PUT", &order_path(), &[], &body(9)).await;
    assert_eq!(
        (pending.status.as_u16(), pending.header("location"), pending.header("retry-after")),
        (202, Some(order_path().as_str()), Some("1"))
    );
    let order = pending.json();
    assert_eq!(
        (order["items"][0]["quantity"].as_i64(), &order["revision"]["items"]),
        (Some(2), &json!([{"productId": ID, "quantity": 9}]))
    );
    assert!(order["revision"]["requestedAt"].is_string());
    gateway.send_json("PUT", &order_path(), &[("if-match", "\"99\"")], &body(3)).await.problem(412, "version_mismatch");
    assert_eq!(gateway.send_json("PUT", &order_path(), &[], "{}").await.errors(), ["items: required"]);
    let with_owner = json!({"items": [{"productId": ID, "quantity": 1}], "userId": "bob"}).to_string();
    gateway.send_json("PUT", &order_path(), &[], &with_owner).await.problem(400, "invalid_body");
}
