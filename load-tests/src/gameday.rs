//! Game days: fault injection under load, and assertions about detection, degradation and recovery.

mod run_result;
mod sample;
mod scenarios;

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use palisade_tests::{rules, servers::Prometheus, shop::ALL_SCOPES};
use serde_json::Value;
use tempfile::TempDir;

pub use run_result::RunResult;
pub use scenarios::{DAYS, Scenario};

use crate::{Environment, k6, unix_time};

/// Load before the fault.
const BEFORE: Duration = Duration::from_secs(10);
/// Load after the fault.
const AFTER: Duration = Duration::from_secs(20);

/// Service, setting, value.
type Setting = (&'static str, &'static str, &'static str);

/// Protection to disable, as a proof that the assertions depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisabledProtection {
    /// Circuit breakers and outlier detection are disabled.
    Breaker,
    /// Retries have no budget and no in-flight limit.
    RetryBudget,
    /// Load shedding by the adaptive limit is disabled.
    Shedding,
}

impl DisabledProtection {
    /// Parses the command line name.
    pub fn named(name: &str) -> Option<Self> {
        [("breaker", Self::Breaker), ("retry-budget", Self::RetryBudget), ("shedding", Self::Shedding)]
            .into_iter()
            .find_map(|(word, without)| (word == name).then_some(without))
    }

    fn settings(self) -> &'static [Setting] {
        match self {
            Self::Breaker => &[
                ("gateway", "UPSTREAMS__PRODUCTS__CIRCUIT_BREAKER__MODE", "disabled"),
                ("gateway", "UPSTREAMS__PRODUCTS__ENDPOINT_BREAKER__MODE", "disabled"),
                ("gateway", "UPSTREAMS__ORDERS__CIRCUIT_BREAKER__MODE", "disabled"),
                ("gateway", "UPSTREAMS__ORDERS__ENDPOINT_BREAKER__MODE", "disabled"),
                ("orders", "UPSTREAMS__PRODUCTS__CIRCUIT_BREAKER__MODE", "disabled"),
                ("orders", "UPSTREAMS__PRODUCTS__ENDPOINT_BREAKER__MODE", "disabled"),
            ],
            Self::RetryBudget => &[
                ("gateway", "UPSTREAMS__PRODUCTS__RETRY__TOKENS", "1000000"),
                ("gateway", "UPSTREAMS__PRODUCTS__RETRY__IN_FLIGHT_MIN", "1000000"),
                ("gateway", "UPSTREAMS__PRODUCTS__CIRCUIT_BREAKER__MODE", "disabled"),
                ("orders", "UPSTREAMS__PRODUCTS__RETRY__TOKENS", "1000000"),
                ("orders", "UPSTREAMS__PRODUCTS__RETRY__IN_FLIGHT_MIN", "1000000"),
                ("orders", "UPSTREAMS__PRODUCTS__CIRCUIT_BREAKER__MODE", "disabled"),
            ],
            Self::Shedding => &[
                ("gateway", "SERVER__ADAPTIVE_LIMIT__ENABLED", "false"),
                ("products", "SERVER__ADAPTIVE_LIMIT__ENABLED", "false"),
                ("orders", "SERVER__ADAPTIVE_LIMIT__ENABLED", "false"),
            ],
        }
    }
}

/// Runs a scenario to its end.
pub async fn run(day: &Scenario, without: Option<DisabledProtection>) -> RunResult {
    let configure = |service: &str, command: &mut Command| {
        command.env("PALISADE_SERVER__FAULT_INJECTION__ENABLED", "true");
        let settings = day.settings.iter().chain(without.map_or(&[][..], DisabledProtection::settings));
        for (_, name, value) in settings.filter(|(of, ..)| *of == service) {
            command.env(format!("PALISADE_{name}"), value);
        }
    };
    let mut stage = match day.connections {
        Some(connections) => Environment::start_with_connection_limit(connections, configure).await,
        None => Environment::start_with(configure),
    };
    stage.shop.ready().await;
    let prometheus = Prometheus::scraping(&stage.shop, &rules::files());
    prometheus.ready().await;

    let scratch = TempDir::with_prefix("palisade-gameday-").expect("a temporary directory can be made");
    let (samples, output) = (scratch.path().join("samples.json"), scratch.path().join("output"));
    let seconds = (BEFORE + day.fault_duration + AFTER).as_secs();
    let mut settings = stage.settings();
    settings.extend([("DURATION", format!("{seconds}s")), ("RATE", day.rate.to_string())].map(|(name, value)| (name.to_owned(), value)));
    let mut command = k6::command("gameday", &settings);
    command.arg("--out").arg(format!("json={}", samples.display()));
    let log = fs::File::create(&output).expect("a temporary directory takes files");
    command.stdin(Stdio::null()).stderr(log.try_clone().expect("file handle can be cloned")).stdout(log);
    let load = tokio::task::spawn_blocking(move || command.status().expect("k6 can be started"));

    tokio::time::sleep(BEFORE).await;
    let broken = unix_time::now();
    (day.inject)(&mut stage).await;
    tokio::time::sleep(day.fault_duration).await;
    let healed = unix_time::now();
    (day.recover)(&mut stage).await;
    let status = load.await.expect("k6 task does not panic");
    let output = fs::read_to_string(&output).unwrap_or_default();
    let samples = sample::read(&samples);
    let mut story = RunResult::new(samples, broken, healed, prometheus);
    story.add_assertion(
        "stock is conserved, nothing is oversold, no order is stuck",
        status.success(),
        format!("k6 exits {:?}", status.code()),
    );
    assert_accepted_orders_finished(&stage, &output, &mut story).await;
    (day.verify)(&mut story).await;
    if !story.passed() {
        story.add_output(&output);
    }
    story
}

/// Asserts that no accepted order is lost or unfinished.
async fn assert_accepted_orders_finished(stage: &Environment, output: &str, story: &mut RunResult) {
    let admin = stage.shop.client("load-admin", ALL_SCOPES);
    let ids = output.split("accepted order ").skip(1).filter_map(|rest| rest.get(..36));
    let ids: std::collections::BTreeSet<_> = ids.collect();
    let mut unfinished = Vec::new();
    for id in &ids {
        let order = admin.get(format!("/orders/{id}")).await;
        let status = order.json()["status"].as_str().unwrap_or("lost").to_owned();
        if !["CONFIRMED", "CANCELLED", "FAILED"].contains(&status.as_str()) {
            unfinished.push(format!("{id} is {status}"));
        }
    }
    let measured = format!("{} accepted, {} not finished {unfinished:?}", ids.len(), unfinished.len());
    story.add_assertion("every accepted order exists and is finished", !ids.is_empty() && unfinished.is_empty(), measured);
}

/// Sets or removes the fault injection rule of a service.
pub(crate) async fn faults(stage: &Environment, service: &str, method: &str, rate: f64, kind: Option<Value>) {
    stage.shop.program(service).set_faults(service, method, rate, kind).await;
}
