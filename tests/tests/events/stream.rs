//! `GET /orders/{id}/events` and `WatchOrder`.

use std::time::Duration;

use palisade_proto::orders::v1::{OrderStatus, WatchOrderRequest, orders_service_client::OrdersServiceClient};
use palisade_tests::{
    Client, Shop,
    sse::Events,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{accepted, confirmed, id_of, order, set_status, create_product},
    unique,
};
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tonic::{Code, Request, transport::Endpoint};
use tonic_types::StatusExt;

fn follow(client: &Client, order: &str) -> palisade_tests::client::Request {
    client.get(format!("/orders/{order}/events"))
}

fn told(events: &[(i64, &str)]) -> Vec<(i64, String)> {
    events.iter().map(|(id, status)| (*id, (*status).to_owned())).collect()
}

#[tokio::test]
async fn an_order_is_told_as_it_stands_then_as_it_changes_and_a_stream_goes_on_where_another_ended() {
    let shop = Shop::shared();
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client(&unique("buyer"), CUSTOMER));
    let product = create_product(&seller, 5).await;
    let bought = confirmed(&buyer, &[(&product, 2)]).await;
    let id = id_of(&bought);
    let mut events = Events::open(follow(&buyer, &id)).await;
    let first = events.next().await.unwrap();
    assert_eq!((first.id_and_status(), &first.order), ((3, "CONFIRMED"), &bought), "an event's data is the order as GET answers it");
    set_status(&buyer, &id, "CANCELLED").await.ok(200);
    assert_eq!(events.rest().await, told(&[(4, "CANCELLED")]));

    let after = |last: &'static str| follow(&buyer, &id).header("last-event-id", last);
    assert_eq!(Events::open(after("1")).await.rest().await, told(&[(2, "PRODUCT_RESERVED"), (3, "CONFIRMED"), (4, "CANCELLED")]));
    // Not one of this order's: it begins with how things stand.
    assert_eq!(Events::open(after("77")).await.rest().await, told(&[(4, "CANCELLED")]));
    after("4").await.empty(204);
    // What was, is told as it was.
    let pending = Events::open(after("0")).await.next().await.unwrap();
    assert_eq!(pending.id_and_status(), (4, "CANCELLED"));
    let reserved = Events::open(after("1")).await.next().await.unwrap();
    assert_eq!((&reserved.order["total"], &reserved.order["items"]), (&bought["total"], &bought["items"]));
}

#[tokio::test]
async fn what_is_wrong_is_a_problem_and_another_users_order_is_none() {
    let shop = Shop::shared();
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client(&unique("buyer"), CUSTOMER));
    let product = create_product(&seller, 5).await;
    let id = id_of(&confirmed(&buyer, &[(&product, 1)]).await);
    for wrong in ["x", "-1", "1 2", "99999999999999999999"] {
        follow(&buyer, &id).header("last-event-id", wrong).await.problem(400, "invalid_parameter");
    }
    follow(&shop.client(&unique("mallory"), CUSTOMER), &id).await.problem(404, "not_found");
    follow(&shop.client("buyer", "products:read"), &id).await.problem(403, "insufficient_scope");
    follow(&shop.anonymous(), &id).await.problem(401, "unauthenticated");
    buyer.post(format!("/orders/{id}/events"), &serde_json::json!({})).await.problem(405, "method_not_allowed");
    let head = buyer.request(reqwest::Method::HEAD, format!("/orders/{id}/events")).await;
    assert_eq!((head.status.as_u16(), head.header("content-type")), (200, Some("text/event-stream")));
    // An admin may watch anybody's.
    assert_eq!(Events::open(follow(&seller, &id)).await.next().await.unwrap().id_and_status(), (3, "CONFIRMED"));
}

#[tokio::test]
async fn over_grpc_it_is_the_same() {
    let shop = Shop::shared();
    let (seller, user) = (shop.client("seller", ALL_SCOPES), unique("buyer"));
    let buyer = shop.client(&user, CUSTOMER);
    let product = create_product(&seller, 5).await;
    let id = id_of(&confirmed(&buyer, &[(&product, 1)]).await);
    let mut client = OrdersServiceClient::new(Endpoint::from_shared(shop.grpc_url("orders")).unwrap().connect_lazy());
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
async fn a_stream_outlives_orders_and_every_change_reaches_it_once() {
    let mut shop = Shop::separate_with(None, None, |service, command| {
        if service == "orders" {
            command.env("PALISADE_SAGA__LEASE_MS", "1000");
        }
    });
    shop.ready().await;
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 5).await;
    shop.program_mut("products").kill();
    let id = accepted(&order(&buyer, &[(&product, 1)]).await);
    let mut events = Events::open(follow(&buyer, &id)).await;
    assert_eq!(events.next().await.unwrap().id_and_status(), (1, "PENDING"));
    shop.program_mut("products").restart();
    assert_eq!(events.next().await.unwrap().id_and_status(), (2, "PRODUCT_RESERVED"));
    assert_eq!(events.next().await.unwrap().id_and_status(), (3, "CONFIRMED"));
    shop.program_mut("orders").kill();
    shop.program_mut("orders").restart();
    shop.ready().await;
    set_status(&seller, &id, "COMPLETED").await.ok(200);
    assert_eq!(events.rest().await, told(&[(4, "COMPLETED")]));
}

#[tokio::test]
async fn a_gateway_that_stops_ends_its_streams_at_once_and_they_are_whole() {
    let mut shop = Shop::separate(None, None);
    shop.ready().await;
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 5).await;
    let id = id_of(&confirmed(&buyer, &[(&product, 1)]).await);
    let mut open = vec![Events::open(follow(&buyer, &id)).await, Events::open(follow(&buyer.clone().over_http2(), &id)).await];
    for events in &mut open {
        events.next().await.unwrap();
    }
    let asked = Instant::now();
    shop.program("gateway").ask_to_stop();
    for events in open {
        assert_eq!(events.rest().await, []);
    }
    assert_eq!(shop.program_mut("gateway").exit_code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_caller_has_so_many_streams_and_a_place_that_is_given_back_is_free() {
    let shop = Shop::separate_with(None, None, |service, command| {
        if service == "gateway" {
            command.env("PALISADE_SERVER__MAX_STREAMS_PER_CALLER", "2").env("PALISADE_SERVER__MAX_STREAMS", "3");
        }
    });
    shop.ready().await;
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 5).await;
    let id = id_of(&confirmed(&buyer, &[(&product, 1)]).await);
    let (first, _second) = (Events::open(follow(&buyer, &id)).await, Events::open(follow(&buyer, &id)).await);
    follow(&buyer, &id).await.problem(429, "rate_limited");
    let _third = Events::open(follow(&seller, &id)).await;
    follow(&seller, &id).await.problem(503, "overloaded");
    drop(first);
    palisade_tests::eventually(async || (follow(&buyer, &id).send().await.unwrap().status() == 200).then_some(())).await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_costs_no_memory() {
    let shop = Shop::separate_with(None, None, |service, command| {
        command.env("PALISADE_SERVER__MAX_STREAMS_PER_CALLER", "100");
        if service == "gateway" {
            command.env("PALISADE_ORDER_EVENTS__HEARTBEAT_MS", "1");
        }
    });
    shop.ready().await;
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 5).await;
    let id = id_of(&confirmed(&buyer, &[(&product, 1)]).await);
    let mut unread = Vec::new();
    for _ in 0..50 {
        unread.push(follow(&buyer, &id).send().await.unwrap());
    }
    let memory = async || {
        let metrics = Client::new(shop.admin_url("gateway"), None).get("/metrics").attempt().await.unwrap().text();
        let line = metrics.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes ").map(str::to_owned));
        line.unwrap().parse::<f64>().unwrap()
    };
    let mut reader = Events::open(follow(&buyer, &id)).await;
    let mut beats = async |count: u32| {
        for _ in 0..count {
            reader.block().await.unwrap();
        }
    };
    beats(200).await;
    let before = memory().await;
    beats(3_000).await;
    let grown = memory().await - before;
    assert!(grown < 8.0e6, "{grown} bytes");
}
