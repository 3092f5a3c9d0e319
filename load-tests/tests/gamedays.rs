//! Short game days without verdicts on latency. `make gameday` runs all of them with all verdicts.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

use palisade_load_tests::{
    gameday::{SCENARIOS, run_short, start_with_all_settings},
    reports,
};

async fn assert_passes(name: &str) {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name).expect("known scenario");
    let result = run_short(scenario).await;
    reports::write(&format!("gameday-{name}-short"), &scenario.report(&result)).unwrap();
    assert!(result.passed(), "{result}");
}

#[tokio::test]
async fn short_gameday_products_down_passes() {
    assert_passes("products-down").await;
}

#[tokio::test]
async fn short_gameday_orders_killed_passes() {
    assert_passes("orders-killed").await;
}

#[tokio::test]
async fn gameday_settings_are_valid() {
    start_with_all_settings().await;
}
