//! k6 scenarios pass on a healthy shop and fail on a broken one.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

use palisade_load_tests::{EXIT_THRESHOLDS_FAILED, Environment, SCENARIOS, TimeLimits, run, run_with_reports, settings, trust_scripts};
use palisade_tests::{Client, Shop};
use serde_json::json;

/// Settings of short runs: little load, and no verdict on latency, because other tests run at the
/// same time.
const SHORT: [(&str, &str); 9] = [
    ("JUDGE_LATENCY", "false"),
    ("RATE", "20"),
    ("DURATION", "3s"),
    ("ITERATIONS", "60"),
    ("MIN_ITERATIONS", "30"),
    ("VUS", "5"),
    ("STEPS", "2"),
    ("STEP_SECONDS", "2"),
    ("PRODUCTS", "5"),
];

fn short(settings: Vec<(String, String)>) -> Vec<(String, String)> {
    settings.into_iter().chain(SHORT.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
}

fn assert_passes(scenario: &str) {
    let environment = Environment::start_with(|service, command| TimeLimits::Raised.configure(service, command));
    let outcome = run_with_reports(scenario, &short(environment.settings())).unwrap();
    assert_eq!(outcome.code, Some(0), "{}", outcome.last_lines());
    assert_eq!(outcome.reports.len(), 3, "{:?}\n{}", outcome.reports, outcome.last_lines());
}

/// Asserts that a scenario fails when gateway and services return only errors.
async fn assert_fails(scenario: &str) {
    let shop = Shop::separate_with(None, None, |_, command| {
        trust_scripts(command);
        command.env("PALISADE_SERVER__FAULT_INJECTION__ENABLED", "true");
    });
    for service in ["gateway", "products", "orders"] {
        let rule = json!({ "name": "broken", "method": "*", "rate": 1.0, "kind": { "error": "internal" } });
        Client::new(shop.admin_url(service), None).put("/faults", &json!({ "rules": [rule] })).attempt().await.unwrap().ok(200);
    }
    let outcome = run(scenario, &short(settings(&shop)));
    assert_eq!(outcome.code, Some(EXIT_THRESHOLDS_FAILED), "{}", outcome.last_lines());
    assert!(outcome.output.contains(&format!("# {scenario}: FAILED")), "{}", outcome.last_lines());
}

#[tokio::test]
async fn smoke_passes() {
    assert_passes("smoke");
}

#[tokio::test]
async fn contention_passes() {
    assert_passes("contention");
}

#[tokio::test]
async fn flash_sale_passes() {
    assert_passes("flash-sale");
}

#[tokio::test]
async fn shop_day_passes() {
    assert_passes("shop-day");
}

#[tokio::test]
async fn grpc_passes() {
    assert_passes("grpc");
}

#[test]
fn scenario_list_is_complete() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    // Scripts used by other programs.
    names.retain(|name| !["gameday.ts", "performance.ts"].contains(&name.as_str()));
    names.sort();
    assert_eq!(names, SCENARIOS.map(|name| format!("{name}.ts")));
}

macro_rules! failure_tests {
    ($($test:ident: $scenario:literal),* $(,)?) => {
        $(#[tokio::test]
        async fn $test() {
            assert_fails($scenario).await;
        })*
        #[test]
        fn failure_tests_cover_every_scenario() {
            assert_eq!([$($scenario),*], SCENARIOS);
        }
    };
}

failure_tests! {
    auth_fails_on_broken_gateway: "auth",
    breakpoint_fails_on_broken_gateway: "breakpoint",
    contention_fails_on_broken_gateway: "contention",
    flash_sale_fails_on_broken_gateway: "flash-sale",
    grpc_fails_on_broken_gateway: "grpc",
    load_fails_on_broken_gateway: "load",
    shop_day_fails_on_broken_gateway: "shop-day",
    smoke_fails_on_broken_gateway: "smoke",
    soak_fails_on_broken_gateway: "soak",
    spike_fails_on_broken_gateway: "spike",
    stress_fails_on_broken_gateway: "stress",
}
