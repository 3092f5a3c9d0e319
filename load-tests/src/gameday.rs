//! Game days: fault injection under load, and assertions about detection, degradation and recovery.

mod run_result;
mod sample;
mod scenarios;
mod verdicts;

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use palisade_tests::{eventually, rules, servers::Prometheus, shop::ALL_SCOPES};
use tempfile::TempDir;
use tokio::time::sleep;

pub use run_result::RunResult;
pub use scenarios::{SCENARIOS, Scenario};

use self::{run_result::Fault, scenarios::Setting};
use crate::{Environment, TimeLimits, k6};

/// Prefix of the output line of an accepted order (`lib/user_journeys.ts`).
const ACCEPTED_PREFIX: &str = "accepted order ";

/// Load of a run: phases and rate.
#[derive(Debug)]
struct LoadProfile {
    before: Duration,
    fault: Duration,
    after: Duration,
    /// User actions per second.
    rate: u32,
    /// Virtual users started before the load.
    users: u32,
}

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
    const ALL: [(&str, Self); 3] = [("breaker", Self::Breaker), ("retry-budget", Self::RetryBudget), ("shedding", Self::Shedding)];

    /// Parses the command line name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find_map(|(own_name, protection)| (own_name == name).then_some(protection))
    }

    fn settings(self) -> &'static [Setting] {
        match self {
            Self::Breaker => &[
                ("gateway", "UPSTREAMS__PRODUCTS__CIRCUIT_BREAKER__MODE", "disabled"),
                ("gateway", "UPSTREAMS__PRODUCTS__OUTLIER_DETECTION__MODE", "disabled"),
                ("gateway", "UPSTREAMS__ORDERS__CIRCUIT_BREAKER__MODE", "disabled"),
                ("gateway", "UPSTREAMS__ORDERS__OUTLIER_DETECTION__MODE", "disabled"),
                ("orders", "UPSTREAMS__PRODUCTS__CIRCUIT_BREAKER__MODE", "disabled"),
                ("orders", "UPSTREAMS__PRODUCTS__OUTLIER_DETECTION__MODE", "disabled"),
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

/// Runs a scenario to its end, with all its assertions. They judge latency and recovery time, so
/// the run needs the machine for itself.
pub async fn run(scenario: &Scenario, disabled: Option<DisabledProtection>) -> RunResult {
    let load = LoadProfile {
        before: Duration::from_secs(10),
        fault: scenario.fault_duration,
        after: Duration::from_secs(20),
        rate: scenario.rate,
        users: 100,
    };
    let disabled = disabled.map_or(&[][..], DisabledProtection::settings);
    let mut environment = start(scenario, disabled, TimeLimits::Default).await;
    let mut result = inject_under_load(&mut environment, scenario, &load).await;
    (scenario.verify)(&mut result).await;
    result
}

/// Runs a scenario with a short fault and little load. The assertions are about outcomes only:
/// stock is conserved, every accepted order is finished, and the shop recovers.
pub async fn run_short(scenario: &Scenario) -> RunResult {
    let second = Duration::from_secs(1);
    let load = LoadProfile { before: 2 * second, fault: 5 * second, after: 3 * second, rate: 10, users: 20 };
    let mut environment = start(scenario, &[], TimeLimits::Raised).await;
    let mut result = inject_under_load(&mut environment, scenario, &load).await;
    environment.shop.ready().await;
    result.assert_fault_was_visible();
    result
}

/// Starts a shop with the settings of every scenario and of every disabled protection, and waits
/// until it is ready. An unknown setting fails the start.
pub async fn start_with_all_settings() {
    let scenarios = SCENARIOS.iter().flat_map(|scenario| scenario.settings);
    let disabled = DisabledProtection::ALL.iter().flat_map(|(_, protection)| protection.settings());
    let settings: Vec<_> = scenarios.chain(disabled).copied().collect();
    Environment::start_with(|service, command| configure(service, command, &settings)).shop.ready().await;
}

fn configure(service: &str, command: &mut Command, settings: &[Setting]) {
    command.env("PALISADE_SERVER__FAULT_INJECTION__ENABLED", "true");
    for (_, name, value) in settings.iter().filter(|(of, ..)| *of == service) {
        command.env(format!("PALISADE_{name}"), value);
    }
}

async fn start(scenario: &Scenario, more: &[Setting], limits: TimeLimits) -> Environment {
    let settings = [scenario.settings, more].concat();
    let configure = |service: &str, command: &mut Command| {
        limits.configure(service, command);
        configure(service, command, &settings);
    };
    match scenario.connections {
        Some(connections) => Environment::start_with_connection_limit(connections, configure).await,
        None => Environment::start_with(configure),
    }
}

/// Loads the shop, injects the fault and recovers from it.
async fn inject_under_load(environment: &mut Environment, scenario: &Scenario, load: &LoadProfile) -> RunResult {
    let prometheus = Prometheus::scraping(&environment.shop, &rules::files());
    prometheus.ready().await;

    let scratch = TempDir::with_prefix("palisade-gameday-").expect("a temporary directory can be made");
    let (samples, output) = (scratch.path().join("samples.json"), scratch.path().join("output"));
    let seconds = (load.before + load.fault + load.after).as_secs();
    let settings = [("DURATION", format!("{seconds}s")), ("RATE", load.rate.to_string()), ("VUS", load.users.to_string())];
    let settings = settings.map(|(name, value)| (name.to_owned(), value));
    let mut command = k6::command("gameday", &[&environment.settings(), &settings[..]].concat());
    command.arg("--out").arg(format!("json={}", samples.display()));
    let log = fs::File::create(&output).expect("a temporary directory takes files");
    command.stdin(Stdio::null()).stderr(log.try_clone().expect("file handle can be cloned")).stdout(log);
    let k6 = tokio::task::spawn_blocking(move || command.status().expect("k6 can be started"));

    sleep(load.before).await;
    // On a busy machine k6 itself starts late: the fault begins under load.
    eventually(async || fs::read_to_string(&output).ok()?.contains(ACCEPTED_PREFIX).then_some(())).await;
    let started = sample::now();
    (scenario.inject)(environment).await;
    sleep(load.fault).await;
    let ended = sample::now();
    (scenario.recover)(environment).await;
    let status = k6.await.expect("k6 task does not panic");
    let output = fs::read_to_string(&output).unwrap_or_default();
    let mut result = RunResult::new(sample::read(&samples), Fault { started, ended }, prometheus, &output);
    result.add_assertion(
        "stock is conserved, nothing is oversold, no order is stuck",
        status.success(),
        format!("k6 exits {:?}", status.code()),
    );
    assert_accepted_orders_finished(environment, &output, &mut result).await;
    result
}

/// Asserts that no accepted order is lost or unfinished.
async fn assert_accepted_orders_finished(environment: &Environment, output: &str, result: &mut RunResult) {
    let admin = environment.shop.client("load-admin", ALL_SCOPES);
    let ids: BTreeSet<_> = output.split(ACCEPTED_PREFIX).skip(1).filter_map(|rest| rest.get(..36)).collect();
    let mut unfinished = Vec::new();
    for id in &ids {
        let order = admin.get(format!("/orders/{id}")).await;
        let status = order.json()["status"].as_str().unwrap_or("lost").to_owned();
        if !["CONFIRMED", "CANCELLED", "FAILED"].contains(&status.as_str()) {
            unfinished.push(format!("{id} is {status}"));
        }
    }
    let measured = format!("{} accepted, {} not finished {unfinished:?}", ids.len(), unfinished.len());
    result.add_assertion("every accepted order exists and is finished", !ids.is_empty() && unfinished.is_empty(), measured);
}
