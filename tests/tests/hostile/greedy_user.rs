//! One user with more requests than the service can handle: the others keep their share.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use palisade_tests::{
    Client, Shop,
    client::Request,
    eventually,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{id_of, order_body, place_confirmed_order, product_body, with_changes},
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{attack::Attack, victim::Victim};

/// Requests of the greedy user at once.
const AT_ONCE: usize = 400;
/// Answers to the greedy user before the others are judged: the limits adapt to the overload.
const ADAPTED_AFTER: usize = 10 * AT_ONCE;

/// Keeps the shop busy with a request of one user.
async fn assert_others_served(name: &str, request: impl Fn(&Client, &str) -> Request + Clone + Send + 'static) {
    let shop = Shop::all_in_one();
    assert_others_served_by(&shop, name, request).await;
}

async fn assert_others_served_by(shop: &Shop, name: &str, request: impl Fn(&Client, &str) -> Request + Clone + Send + 'static) {
    let victim = Victim::enter(shop).await;
    let (greedy, product) = (shop.client("greedy", CUSTOMER), victim.product().to_owned());
    let start = async || {
        let mut attack = Attack::default();
        attack.repeat(AT_ONCE, move || request(&greedy, &product));
        attack.wait_for_answers(ADAPTED_AFTER).await;
        attack
    };
    victim.assert_served_during(name, start).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn greedy_buyer_leaves_others_their_share() {
    assert_others_served("greedy buyer", |client, product| client.post("/orders", &order_body(&[(product, 1)]))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn greedy_lister_leaves_others_their_share() {
    assert_others_served("greedy lister", |client, _| client.get("/products?limit=100")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn greedy_reader_leaves_others_their_share() {
    assert_others_served("greedy reader", |client, product| client.get(format!("/products/{product}"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn greedy_searcher_leaves_others_their_share() {
    // A search without result reads the descriptions of all of them, were it not for an index.
    const PRODUCTS: usize = 960;
    let shop = Shop::all_in_one();
    let seller = shop.client("seller", ALL_SCOPES);
    let mut sellers = JoinSet::new();
    for seller in vec![seller; 16] {
        sellers.spawn(async move {
            for number in 0..PRODUCTS / 16 {
                let description = format!("{number} {}", "lorem ipsum ".repeat(80));
                let body = with_changes(product_body(1), &json!({ "description": description }));
                seller.post("/products", &body).await.ok(201);
            }
        });
    }
    while let Some(seller) = sellers.join_next().await {
        seller.unwrap();
    }
    assert_others_served_by(&shop, "greedy searcher", |client, _| client.get("/products?q=zzzz")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn greedy_reader_of_streams_leaves_others_their_share() {
    let shop = Shop::all_in_one();
    let victim = Victim::enter(&shop).await;
    let greedy = shop.client("greedy", CUSTOMER);
    let order = id_of(&place_confirmed_order(&greedy, &[(victim.product(), 1)]).await);
    let start = async || {
        let mut attack = Attack::default();
        let refused = Arc::new(AtomicUsize::new(0));
        for _ in 0..AT_ONCE {
            let (greedy, path, refused) = (greedy.clone(), format!("/orders/{order}/events"), refused.clone());
            attack.spawn(async move {
                loop {
                    let stream = greedy.get(&path).header("accept", "text/event-stream").send().await;
                    if stream.as_ref().is_ok_and(|stream| stream.status() == 200) {
                        let _open = stream;
                        pending::<()>().await;
                    }
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        eventually(async || (refused.load(Ordering::Relaxed) > 2 * AT_ONCE).then_some(())).await;
        attack
    };
    victim.assert_served_during("greedy reader of streams", start).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_searches_are_no_evidence_against_products() {
    let shop = Shop::separate_with(None, None, |service, command| {
        if service == "products" {
            command.envs([("PALISADE_SEARCH__MAX_CONCURRENT", "1"), ("PALISADE_SEARCH__MAX_WAIT_MS", "1")]);
        }
    });
    let victim = Victim::enter(&shop).await;
    let start = async || {
        let mut attack = Attack::default();
        // More searches than one caller may have, and more than there are permits.
        for user in 0..8 {
            let greedy = shop.client(&format!("greedy-{user}"), CUSTOMER);
            attack.repeat(8, move || greedy.get("/products?q=lamp"));
        }
        attack.wait_for_refusals(501).await;
        attack
    };
    victim.assert_served_during("refused searches", start).await;
    let opened = shop.counted("gateway", "palisade_breaker_transitions_total", &[r#"to="open""#]).await;
    assert!(opened.abs() < f64::EPSILON, "the breaker opened");
    let tokens = shop.counted("gateway", "palisade_retry_budget_tokens", &[r#"target="products""#]).await;
    assert!(tokens > 90.0, "{tokens} of 100 retry tokens are left");
}
