//! Two game day scenarios. `make gameday` runs all of them.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

use palisade_load_tests::{
    gameday::{DAYS, run},
    reports,
};

async fn assert_passes(name: &str) {
    let day = DAYS.iter().find(|day| day.name == name).expect("known scenario");
    let story = run(day, None).await;
    reports::keep(&format!("gameday-{name}"), &story.report(day)).unwrap();
    assert!(story.passed(), "{story}");
}

#[tokio::test]
async fn gameday_products_down_passes() {
    assert_passes("products-down").await;
}

#[tokio::test]
async fn gameday_orders_killed_passes() {
    assert_passes("orders-killed").await;
}
