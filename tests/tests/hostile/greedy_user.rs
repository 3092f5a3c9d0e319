//! One user with more requests than the service can handle: the others keep their share.

use palisade_tests::{Client, Shop, shop::CUSTOMER, shop_helpers::order_body};

use crate::{attack::Attack, victim::Victim};

/// Requests of the greedy user at once.
const AT_ONCE: usize = 400;
/// Answers to the greedy user before the others are judged: the limits adapt to the overload.
const ADAPTED_AFTER: usize = 20 * AT_ONCE;

/// Keeps the shop busy with a request of one user.
async fn assert_others_served(name: &str, request: impl Fn(&Client, &str) -> palisade_tests::client::Request + Clone + Send + 'static) {
    let shop = Shop::all_in_one();
    let victim = Victim::enter(&shop).await;
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
