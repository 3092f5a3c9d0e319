//! Order watch streams: `GET /orders/{id}/events` (SSE) and `WatchOrder` (gRPC).

use std::time::Duration;

use palisade_proto::orders::v1::{OrderStatus, WatchOrderRequest, orders_service_client::OrdersServiceClient};
use palisade_tests::{
    Client, Shop,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{accepted_id, create_product, id_of, order_request, place_confirmed_order, set_status},
    sse::EventStream,
    unique,
};
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tonic::{Code, Request};
use tonic_types::StatusExt;

fn watch_request(client: &Client, order: &str) -> palisade_tests::client::Request {
    client.get(format!("/orders/{order}/events"))
}

fn statuses(events: &[(i64, &str)]) -> Vec<(i64, String)> {
    events.iter().map(|(id, status)| (*id, (*status).to_owned())).collect()
}

#[tokio::test]
async fn stream_sends_state_then_changes_and_resumes() {
    let shop = Shop::shared();
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client(&unique("buyer"), CUSTOMER));
    let product = create_product(&seller, 5).await;
    let bought = place_confirmed_order(&buyer, &[(&product, 2)]).await;
    let id = id_of(&bought);
    let mut events = EventStream::open(watch_request(&buyer, &id)).await;
    let first = events.next().await.unwrap();
    assert_eq!((first.id_and_status(), &first.order), ((3, "CONFIRMED"), &bought), "event data must equal the GET response");
    set_status(&buyer, &id, "CANCELLED").await.ok(200);
    assert_eq!(events.collect_statuses().await, statuses(&[(4, "CANCELLED")]));

    let after = |last: &'static str| watch_request(&buyer, &id).header("last-event-id", last);
    assert_eq!(
        EventStream::open(after("1")).await.collect_statuses().await,
        statuses(&[(2, "PRODUCT_RESERVED"), (3, "CONFIRMED"), (4, "CANCELLED")])
    );
    // An unknown event ID starts the stream with the current state.
    assert_eq!(EventStream::open(after("77")).await.collect_statuses().await, statuses(&[(4, "CANCELLED")]));
    after("4").await.empty(204);
    // Past events have the status of their time.
    let pending = EventStream::open(after("0")).await.next().await.unwrap();
    assert_eq!(pending.id_and_status(), (4, "CANCELLED"));
    let reserved = EventStream::open(after("1")).await.next().await.unwrap();
    assert_eq!((&reserved.order["total"], &reserved.order["items"]), (&bought["total"], &bought["items"]));
}

#[tokio::test]
async fn stream_errors_are_problems() {
    let shop = Shop::shared();
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client(&unique("buyer"), CUSTOMER));
    let product = create_product(&seller, 5).await;
    let id = id_of(&place_confirmed_order(&buyer, &[(&product, 1)]).await);
    for wrong in ["x", "-1", "1 2", "99999999999999999999"] {
        watch_request(&buyer, &id).header("last-event-id", wrong).await.problem(400, "invalid_parameter");
    }
    watch_request(&shop.client(&unique("mallory"), CUSTOMER), &id).await.problem(404, "not_found");
    watch_request(&shop.client("buyer", "products:read"), &id).await.problem(403, "insufficient_scope");
    watch_request(&shop.anonymous(), &id).await.problem(401, "unauthenticated");
    buyer.post(format!("/orders/{id}/events"), &serde_json::json!({})).await.problem(405, "method_not_allowed");
    let head = buyer.request(reqwest::Method::HEAD, format!("/orders/{id}/events")).await;
    assert_eq!((head.status.as_u16(), head.header("content-type")), (200, Some("text/event-stream")));
    // An admin may watch any order.
    assert_eq!(EventStream::open(watch_request(&seller, &id)).await.next().await.unwrap().id_and_status(), (3, "CONFIRMED"));
}

#[tokio::test]
async fn grpc_stream_equals_sse_stream() {
    let shop = Shop::shared();
    let (seller, user) = (shop.client("seller", ALL_SCOPES), unique("buyer"));
    let buyer = shop.client(&user, CUSTOMER);
    let product = create_product(&seller, 5).await;
    let id = id_of(&place_confirmed_order(&buyer, &[(&product, 1)]).await);
    let mut client = OrdersServiceClient::new(shop.grpc_channel("orders"));
    let token = shop.service_token("orders", &user, "orders:read");
    let mut watch = async |after_sequence| {
        let mut request = Request::new(WatchOrderRequest { id: id.clone(), after_sequence });
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        client.watch_order(request).await
    };
    let mut events = watch(1).await.unwrap().into_inner();
    for (sequence, status) in [(2, OrderStatus::ProductReserved), (3, OrderStatus::Confirmed)] {
        let event = events.next().await.unwrap().unwrap();
        assert_eq!((event.sequence, event.order.unwrap().status()), (sequence, status));
    }
    set_status(&seller, &id, "COMPLETED").await.ok(200);
    assert_eq!(events.next().await.unwrap().unwrap().order.unwrap().status(), OrderStatus::Completed);
    assert!(events.next().await.is_none());
    let ended = watch(4).await.unwrap();
    assert_eq!(ended.metadata().get("order-ended").unwrap(), "true");
    assert!(ended.into_inner().next().await.is_none());
    let refused = watch(-1).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.get_error_details().error_info().unwrap().reason.as_str()),
        (Code::InvalidArgument, "INVALID_PARAMETER")
    );
}

#[tokio::test]
async fn stream_survives_restart_of_orders() {
    let mut shop = Shop::separate_with(None, None, |service, command| {
        if service == "orders" {
            command.env("PALISADE_SAGA__LEASE_MS", "1000");
        }
    });
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 5).await;
    shop.program_mut("products").kill();
    let id = accepted_id(&order_request(&buyer, &[(&product, 1)]).await);
    let mut events = EventStream::open(watch_request(&buyer, &id)).await;
    assert_eq!(events.next().await.unwrap().id_and_status(), (1, "PENDING"));
    shop.program_mut("products").restart();
    assert_eq!(events.next().await.unwrap().id_and_status(), (2, "PRODUCT_RESERVED"));
    assert_eq!(events.next().await.unwrap().id_and_status(), (3, "CONFIRMED"));
    shop.program_mut("orders").kill();
    shop.program_mut("orders").restart();
    shop.ready().await;
    set_status(&seller, &id, "COMPLETED").await.ok(200);
    assert_eq!(events.collect_statuses().await, statuses(&[(4, "COMPLETED")]));
}

#[tokio::test]
async fn shutdown_ends_streams_immediately_and_cleanly() {
    let mut shop = Shop::separate(None, None);
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 5).await;
    let id = id_of(&place_confirmed_order(&buyer, &[(&product, 1)]).await);
    let mut open =
        vec![EventStream::open(watch_request(&buyer, &id)).await, EventStream::open(watch_request(&buyer.clone().with_http2(), &id)).await];
    for events in &mut open {
        events.next().await.unwrap();
    }
    let asked = Instant::now();
    shop.program("gateway").terminate();
    for events in open {
        assert_eq!(events.collect_statuses().await, []);
    }
    assert_eq!(shop.program_mut("gateway").exit_code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn streams_are_limited_and_permits_released() {
    let shop = Shop::separate_with(None, None, |service, command| {
        if service == "gateway" {
            command.env("PALISADE_SERVER__MAX_STREAMS_PER_CALLER", "2").env("PALISADE_SERVER__MAX_STREAMS", "3");
        }
    });
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 5).await;
    let id = id_of(&place_confirmed_order(&buyer, &[(&product, 1)]).await);
    let (first, _second) = (EventStream::open(watch_request(&buyer, &id)).await, EventStream::open(watch_request(&buyer, &id)).await);
    watch_request(&buyer, &id).await.problem(429, "rate_limited");
    let _third = EventStream::open(watch_request(&seller, &id)).await;
    watch_request(&seller, &id).await.problem(503, "overloaded");
    drop(first);
    palisade_tests::eventually(async || (watch_request(&buyer, &id).send().await.unwrap().status() == 200).then_some(())).await;
}

#[tokio::test]
async fn slow_readers_use_bounded_memory() {
    let shop = Shop::separate_with(None, None, |service, command| {
        command.env("PALISADE_SERVER__MAX_STREAMS_PER_CALLER", "100");
        if service == "gateway" {
            command.env("PALISADE_ORDER_EVENTS__HEARTBEAT_MS", "1");
        }
    });
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 5).await;
    let id = id_of(&place_confirmed_order(&buyer, &[(&product, 1)]).await);
    let mut unread = Vec::new();
    for _ in 0..50 {
        unread.push(watch_request(&buyer, &id).send().await.unwrap());
    }
    let memory = async || {
        let metrics = Client::new(shop.admin_url("gateway"), None).get("/metrics").attempt().await.unwrap().text();
        let line = metrics.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes ").map(str::to_owned));
        line.unwrap().parse::<f64>().unwrap()
    };
    let mut reader = EventStream::open(watch_request(&buyer, &id)).await;
    let mut beats = async |count: u32| {
        for _ in 0..count {
            reader.next_block().await.unwrap();
        }
    };
    beats(200).await;
    let before = memory().await;
    beats(3_000).await;
    let grown = memory().await - before;
    assert!(grown < 8.0e6, "{grown} bytes");
}
