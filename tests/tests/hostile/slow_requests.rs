//! Requests whose body never arrives: a permit covers the work of the service, never the pace of
//! its peer.

use http::Request;
use palisade_tests::{
    Shop,
    shop::{ALL_SCOPES, CUSTOMER},
};

use crate::{
    attack::{Attack, send_http2, send_raw},
    victim::Victim,
};

const CONNECTIONS: usize = 256;

/// Returns the head of a request with a body for every operation of the API.
async fn heads_of_all_operations(shop: &Shop) -> Vec<String> {
    let token = shop.token("slow", ALL_SCOPES);
    let document = shop.anonymous().get("/openapi.json").await.ok(200);
    let mut heads = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let path = path.replace("{id}", "0199b0a0-0000-7000-8000-000000000000").replace("{asset}", "page.js");
        for verb in operations.as_object().unwrap().keys().map(|verb| verb.to_uppercase()) {
            heads.push(format!(
                "{verb} {path} HTTP/1.1\r\nhost: shop\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
                 content-length: 100\r\nx-request-timeout: 30000\r\n\r\n"
            ));
        }
    }
    heads
}

#[tokio::test(flavor = "multi_thread")]
async fn http1_heads_without_body_take_no_permit() {
    let shop = Shop::all_in_one();
    let victim = Victim::enter(&shop).await;
    let heads = heads_of_all_operations(&shop).await;
    let orders = heads.iter().filter(|head| head.starts_with("POST /orders ")).cycle().take(CONNECTIONS);
    let start = async || {
        let mut attack = Attack::default();
        for head in heads.iter().cycle().take(CONNECTIONS).chain(orders) {
            let connection = send_raw(&shop.url(), head.as_bytes()).await;
            attack.spawn(async move {
                let _open = connection;
                std::future::pending::<()>().await;
            });
        }
        attack
    };
    victim.assert_served_during("HTTP/1.1 heads without a body", start).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_heads_without_body_take_no_permit() {
    let shop = Shop::all_in_one();
    let victim = Victim::enter(&shop).await;
    let head = Request::post(format!("{}/orders", shop.url()))
        .header("authorization", format!("Bearer {}", shop.token("slow", CUSTOMER)))
        .header("content-type", "application/json")
        .header("x-request-timeout", "30000")
        .body(())
        .unwrap();
    let start = async || {
        let mut attack = Attack::default();
        for _ in 0..4 {
            send_http2(&mut attack, &shop.url(), 65_535, (head.clone(), false), 200).await;
        }
        attack
    };
    victim.assert_served_during("HTTP/2 heads without a body", start).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_heads_without_message_take_no_permit() {
    let shop = Shop::all_in_one();
    let victim = Victim::enter(&shop).await;
    let heads = [
        ("products", "palisade.products.v1.ProductsService/FindOne", "products:read"),
        ("orders", "palisade.orders.v1.OrdersService/FindAll", "orders:read"),
    ];
    let start = async || {
        let mut attack = Attack::default();
        for (service, method, scope) in heads {
            let head = Request::post(format!("{}/{method}", shop.grpc_url(service)))
                .header("authorization", format!("Bearer {}", shop.service_token(service, "slow", scope)))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("grpc-timeout", "30S")
                .body(())
                .unwrap();
            for _ in 0..2 {
                send_http2(&mut attack, &shop.grpc_url(service), 65_535, (head.clone(), false), 200).await;
            }
        }
        attack
    };
    victim.assert_served_during("gRPC heads without a message", start).await;
}
