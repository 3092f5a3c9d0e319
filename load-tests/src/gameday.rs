//! Game days: one fault while load runs, and the story that has to come true.

mod scenarios;
mod sample;
mod run_result;

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use palisade_tests::{rules, servers::Prometheus, shop::ALL_SCOPES};
use serde_json::Value;
use tempfile::TempDir;

pub use scenarios::{DAYS, Scenario};
pub use run_result::RunResult;

use crate::{Environment, k6, unix_time};

/// How long all is well before the fault.
const BEFORE: Duration = Duration::from_secs(10);
/// How long the load goes on after it.
const AFTER: Duration = Duration::from_secs(20);

/// Service, setting, value.
type Setting = (&'static str, &'static str, &'static str);

/// A protection that can be left out, to see that the story needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisabledProtection {
    /// Breakers let everything through.
    Breaker,
    /// Retries have no budget and no limit in flight.
    RetryBudget,
    /// Nobody is refused for want of room.
    Shedding,
}

impl DisabledProtection {
    /// By the word of the command line.
    pub fn named(name: &str) -> Option<Self> {
        [("breaker", Self::Breaker), ("retry-budget", Self::RetryBudget), ("shedding", Self::Shedding)]
            .into_iter()
            .find_map(|(word, without)| (word == name).then_some(without))
    }

    fn settings(self) -> &'static [Setting] {
        match self {
            Self::Breaker => &[
                ("gateway", "UPSTREAMS__PRODUCTS__BREAKER__MODE", "disabled"),
                ("gateway", "UPSTREAMS__PRODUCTS__ENDPOINT_BREAKER__MODE", "disabled"),
                ("gateway", "UPSTREAMS__ORDERS__BREAKER__MODE", "disabled"),
                ("gateway", "UPSTREAMS__ORDERS__ENDPOINT_BREAKER__MODE", "disabled"),
                ("orders", "UPSTREAMS__PRODUCTS__BREAKER__MODE", "disabled"),
                ("orders", "UPSTREAMS__PRODUCTS__ENDPOINT_BREAKER__MODE", "disabled"),
            ],
            Self::RetryBudget => &[
                ("gateway", "UPSTREAMS__PRODUCTS__RETRY__TOKENS", "1000000"),
                ("gateway", "UPSTREAMS__PRODUCTS__RETRY__IN_FLIGHT_MIN", "1000000"),
                ("gateway", "UPSTREAMS__PRODUCTS__BREAKER__MODE", "disabled"),
                ("orders", "UPSTREAMS__PRODUCTS__RETRY__TOKENS", "1000000"),
                ("orders", "UPSTREAMS__PRODUCTS__RETRY__IN_FLIGHT_MIN", "1000000"),
                ("orders", "UPSTREAMS__PRODUCTS__BREAKER__MODE", "disabled"),
            ],
            Self::Shedding => &[
                ("gateway", "SERVER__ADAPTIVE_LIMIT__ENABLED", "false"),
                ("products", "SERVER__ADAPTIVE_LIMIT__ENABLED", "false"),
                ("orders", "SERVER__ADAPTIVE_LIMIT__ENABLED", "false"),
            ],
        }
    }
}

/// Plays a day to its end.
pub async fn play(day: &Scenario, without: Option<DisabledProtection>) -> RunResult {
    let configure = |service: &str, command: &mut Command| {
        command.env("PALISADE_SERVER__FAULTS__ENABLED", "true");
        let settings = day.settings.iter().chain(without.map_or(&[][..], DisabledProtection::settings));
        for (_, name, value) in settings.filter(|(of, ..)| *of == service) {
            command.env(format!("PALISADE_{name}"), value);
        }
    };
    let mut stage = match day.connections {
        Some(connections) => Environment::start_narrow(connections, configure).await,
        None => Environment::start_with(configure),
    };
    stage.shop.ready().await;
    let prometheus = Prometheus::watching(&stage.shop, &rules::files());
    prometheus.ready().await;

    let scratch = TempDir::with_prefix("palisade-gameday-").expect("a temporary directory can be made");
    let (samples, output) = (scratch.path().join("samples.json"), scratch.path().join("output"));
    let seconds = (BEFORE + day.lasts + AFTER).as_secs();
    let mut settings = stage.settings();
    settings.extend([("DURATION", format!("{seconds}s")), ("RATE", day.rate.to_string())].map(|(name, value)| (name.to_owned(), value)));
    let mut command = k6::command("gameday", &settings);
    command.arg("--out").arg(format!("json={}", samples.display()));
    let log = fs::File::create(&output).expect("a temporary directory takes files");
    command.stdin(Stdio::null()).stderr(log.try_clone().expect("a file has two handles")).stdout(log);
    let load = tokio::task::spawn_blocking(move || command.status().expect("k6 can be started"));

    tokio::time::sleep(BEFORE).await;
    let broken = unix_time::now();
    (day.inject)(&mut stage).await;
    tokio::time::sleep(day.lasts).await;
    let healed = unix_time::now();
    (day.recover)(&mut stage).await;
    let status = load.await.expect("k6 ran");
    let output = fs::read_to_string(&output).unwrap_or_default();
    let samples = sample::read(&samples);
    let mut story = RunResult::new(samples, broken, healed, prometheus);
    story.claim("stock is conserved, nothing is oversold, no order is stuck", status.success(), format!("k6 exits {:?}", status.code()));
    every_accepted_order_is_finished(&stage, &output, &mut story).await;
    (day.verify)(&mut story).await;
    if !story.passed() {
        story.remark(&output);
    }
    story
}

/// Nothing that was accepted is lost, and nothing that was confirmed is anything else.
async fn every_accepted_order_is_finished(stage: &Environment, output: &str, story: &mut RunResult) {
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
    story.claim("every accepted order is there and finished", !ids.is_empty() && unfinished.is_empty(), measured);
}

/// Tells a service to be faulty; no kind, to stop.
pub(crate) async fn faults(stage: &Environment, service: &str, method: &str, rate: f64, kind: Option<Value>) {
    stage.shop.program(service).faults(service, method, rate, kind).await;
}
