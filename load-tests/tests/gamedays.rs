//! Two game days; `make gameday` plays all of them.
#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

use palisade_load_tests::{
    gameday::{DAYS, play},
    reports,
};

async fn comes_true(name: &str) {
    let day = DAYS.iter().find(|day| day.name == name).expect("it is a day");
    let story = play(day, None).await;
    reports::keep(&format!("gameday-{name}"), &story.report(day)).unwrap();
    assert!(story.passed(), "{story}");
}

#[tokio::test]
async fn products_down_comes_true() {
    comes_true("products-down").await;
}

#[tokio::test]
async fn orders_killed_comes_true() {
    comes_true("orders-killed").await;
}
