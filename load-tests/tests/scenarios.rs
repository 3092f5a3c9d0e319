//! The scripts are green where all is well, and red where it is not.
#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

use palisade_load_tests::{EXIT_THRESHOLDS_FAILED, SCENARIOS, Environment, reports, run, settings, trust_scripts};
use palisade_tests::{Client, Shop};
use serde_json::json;

/// Short runs.
const SHORT: [(&str, &str); 8] = [
    ("RATE", "20"),
    ("DURATION", "3s"),
    ("ITERATIONS", "60"),
    ("MIN_ITERATIONS", "30"),
    ("VUS", "20"),
    ("STEPS", "2"),
    ("STEP_SECONDS", "2"),
    ("PRODUCTS", "5"),
];

fn short(settings: Vec<(String, String)>) -> Vec<(String, String)> {
    settings.into_iter().chain(SHORT.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
}

async fn passes(scenario: &str) {
    let stage = Environment::start();
    stage.shop.ready().await;
    let mut settings = short(stage.settings());
    settings.push(("REPORTS".to_owned(), reports::folder().unwrap().display().to_string()));
    let outcome = run(scenario, &settings);
    assert!(reports::complete(scenario).unwrap(), "{}", outcome.output);
    assert_eq!(outcome.code, Some(0), "{}", outcome.output);
}

/// A gateway, and services, that answer nothing but errors.
async fn is_red(scenario: &str) {
    let shop = Shop::separate_with(None, None, |_, command| {
        trust_scripts(command);
        command.env("PALISADE_SERVER__FAULTS__ENABLED", "true");
    });
    shop.ready().await;
    for service in ["gateway", "products", "orders"] {
        let rule = json!({ "name": "broken", "method": "*", "rate": 1.0, "kind": { "error": "internal" } });
        Client::new(shop.admin_url(service), None).put("/faults", &json!({ "rules": [rule] })).attempt().await.unwrap().ok(200);
    }
    let outcome = run(scenario, &short(settings(&shop)));
    assert_eq!(outcome.code, Some(EXIT_THRESHOLDS_FAILED), "{}", outcome.output);
    assert!(outcome.output.contains(&format!("# {scenario}: FAILED")), "{}", outcome.output);
}

#[tokio::test]
async fn smoke_passes() {
    passes("smoke").await;
}

#[tokio::test]
async fn contention_passes() {
    passes("contention").await;
}

#[tokio::test]
async fn grpc_passes() {
    passes("grpc").await;
}

#[test]
fn every_script_is_known() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    // Those are the tools of other programs.
    names.retain(|name| !["capacity.ts", "gameday.ts"].contains(&name.as_str()));
    names.sort();
    assert_eq!(names, SCENARIOS.map(|name| format!("{name}.ts")));
}

macro_rules! red {
    ($($test:ident: $scenario:literal),* $(,)?) => {
        $(#[tokio::test]
        async fn $test() {
            is_red($scenario).await;
        })*
        #[test]
        fn every_script_is_tried_on_a_broken_gateway() {
            assert_eq!([$($scenario),*], SCENARIOS);
        }
    };
}

red! {
    auth_is_red_on_a_broken_gateway: "auth",
    breakpoint_is_red_on_a_broken_gateway: "breakpoint",
    contention_is_red_on_a_broken_gateway: "contention",
    grpc_is_red_on_a_broken_gateway: "grpc",
    load_is_red_on_a_broken_gateway: "load",
    smoke_is_red_on_a_broken_gateway: "smoke",
    soak_is_red_on_a_broken_gateway: "soak",
    spike_is_red_on_a_broken_gateway: "spike",
    stress_is_red_on_a_broken_gateway: "stress",
}
