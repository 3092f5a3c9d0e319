//! Deadlines shorter than the work: they say nothing about the health of a service.

use palisade_tests::{Shop, shop::CUSTOMER};

use crate::{attack::Attack, victim::Victim};

#[tokio::test(flavor = "multi_thread")]
async fn short_deadlines_of_one_user_harm_no_other() {
    let shop = Shop::all_in_one();
    shop.ready().await;
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
