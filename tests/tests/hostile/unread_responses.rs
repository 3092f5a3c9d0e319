//! Responses that are not read: a permit returns when the response exists.

use http::Request;
use palisade_tests::{Shop, shop::ALL_SCOPES, shop::CUSTOMER, shop_helpers::create_product};

use crate::{
    attack::{Attack, send_http2, send_raw},
    victim::Victim,
};

#[tokio::test(flavor = "multi_thread")]
async fn unread_pages_hold_no_permit() {
    let shop = Shop::all_in_one();
    let victim = Victim::enter(&shop).await;
    let seller = shop.client("seller", ALL_SCOPES);
    for _ in 0..20 {
        create_product(&seller, 1).await;
    }
    let get = Request::get(format!("{}/products?limit=100", shop.url()))
        .header("authorization", format!("Bearer {}", shop.token("reader", CUSTOMER)))
        .body(())
        .unwrap();
    let start = async || {
        let mut attack = Attack::default();
        for _ in 0..4 {
            send_http2(&mut attack, &shop.url(), 0, (get.clone(), true), 100).await;
        }
        attack
    };
    victim.assert_served_during("pages without a window", start).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_public_documents_hold_no_permit() {
    let shop = Shop::all_in_one();
    let victim = Victim::enter(&shop).await;
    let start = async || {
        let mut attack = Attack::default();
        for _ in 0..4 {
            let get = Request::get(format!("{}/openapi.json", shop.url())).body(()).unwrap();
            send_http2(&mut attack, &shop.url(), 0, (get, true), 250).await;
        }
        for _ in 0..300 {
            let connection = send_raw(&shop.url(), b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: shop\r\n\r\n").await;
            attack.spawn(async move {
                let _unread = connection;
                std::future::pending::<()>().await;
            });
        }
        attack
    };
    victim.assert_served_during("unread public documents", start).await;
}
