//! Replica tests under load: rolling restarts, kills, and load distribution.

mod spread;

use std::{pin::Pin, process::Command};

use palisade_tests::{
    process::Program,
    shop::{REPLICAS, SERVICES},
    traffic::{Outcome, Traffic},
};
use tokio::task::spawn_blocking;

use crate::{Environment, assertions::Assertions};

/// Number of clients.
const CLIENTS: usize = 12;
/// Number of requests before, between and after the actions on replicas.
const REQUESTS_PER_PHASE: usize = 200;
/// Drain delay after SIGTERM, milliseconds. Longer than the readiness probes' interval of 50 ms.
const LAME_DUCK_MS: &str = "500";

/// Scenario: an action on replicas and its assertions.
pub struct Scenario {
    /// Name on the command line.
    pub name: &'static str,
    /// Question that the scenario answers.
    pub question: &'static str,
    run: fn(usize) -> Pin<Box<dyn Future<Output = Assertions>>>,
}

/// All scenarios.
pub static TRIALS: [Scenario; 3] = [
    Scenario {
        name: "rolling",
        question: "rolling restarts of all processes: does any request fail?",
        run: |restarts| Box::pin(rolling(restarts)),
    },
    Scenario {
        name: "kills",
        question: "all processes are killed in turn: is anything lost, or does any repeatable request fail?",
        run: |times| Box::pin(kills(times)),
    },
    Scenario {
        name: "spread",
        question: "is load spread evenly over equal replicas, and away from a slow one?",
        run: |_| Box::pin(spread::spread()),
    },
];

impl Scenario {
    /// Runs the scenario with this number of restarts or kills.
    pub async fn run(&self, restarts: usize) -> Assertions {
        (self.run)(restarts).await
    }
}

/// Restarts this number of processes gracefully, one after another.
pub async fn rolling(restarts: usize) -> Assertions {
    let (stage, outcome) = act_on_each_in_turn(restarts, Program::restart_gracefully, |_| {}).await;
    drop(stage);
    let mut claims = assertions(&outcome, restarts, "restarts");
    claims.add("no request was retried by the client", outcome.failed_over + outcome.in_progress_retries == 0, duplicates(&outcome));
    claims
}

/// Kills (`kill -9`) this number of processes, one after another, each with an outage before its
/// restart.
pub async fn kills(times: usize) -> Assertions {
    let (stage, outcome) = act_on_each_in_turn(times, Program::kill, Program::restart).await;
    drop(stage);
    let mut claims = assertions(&outcome, times, "kills");
    claims.add("some requests were retried by the client", true, duplicates(&outcome));
    claims
}

/// Applies `first` to one process after another, `then` after some requests, and continues once all
/// processes are ready.
async fn act_on_each_in_turn(processes: usize, first: fn(&mut Program), then: fn(&mut Program)) -> (Environment, Outcome) {
    let mut stage = start();
    stage.shop.ready().await;
    let traffic = Traffic::start(&stage.shop, CLIENTS).await;
    traffic.wait_for_more_requests(REQUESTS_PER_PHASE).await;
    for (service, replica) in all_replicas().into_iter().cycle().take(processes) {
        stage = act_on_one(stage, service, replica, first).await;
        traffic.wait_for_more_requests(REQUESTS_PER_PHASE).await;
        stage = act_on_one(stage, service, replica, then).await;
        stage.shop.ready().await;
        traffic.wait_for_more_requests(REQUESTS_PER_PHASE).await;
        let load = traffic.snapshot();
        let (requests, failed, gap) = (load.requests, load.failures.len(), load.longest_gap.as_millis());
        eprintln!("{service} {replica}: {requests} requests, {failed} failed, longest gap {gap} ms{}", failures(&stage).await);
    }
    let outcome = traffic.stop(&stage.shop).await;
    (stage, outcome)
}

/// Summarizes why gateways and orders did not retry failed attempts.
async fn failures(stage: &Environment) -> String {
    let mut told = Vec::new();
    for service in ["gateway", "orders"] {
        for reason in ["attempts", "caller_retries", "concurrency", "deadline", "not_idempotent", "not_ready", "pushback", "tokens"] {
            let reason = format!("reason=\"{reason}\"");
            let count = stage.shop.counted(service, "palisade_retries_denied_total", &[&reason]).await;
            if count > 0.0 {
                told.push(format!("; {service}: {count} {reason}"));
            }
        }
    }
    told.concat()
}

/// Runs an action on a separate thread, because waiting for a process must not block the load.
async fn act_on_one(mut stage: Environment, service: &'static str, replica: usize, action: fn(&mut Program)) -> Environment {
    let done = spawn_blocking(move || {
        action(&mut stage.shop.replicas_mut(service)[replica]);
        stage
    });
    done.await.expect("action does not panic")
}

/// Returns every process once.
fn all_replicas() -> Vec<(&'static str, usize)> {
    let of = |(service, replicas)| (0..replicas).map(move |replica| (service, replica));
    SERVICES.into_iter().zip(REPLICAS).flat_map(of).collect()
}

fn start() -> Environment {
    Environment::start_replicated(|_, command: &mut Command| {
        command.env("PALISADE_SERVER__LAME_DUCK_MS", LAME_DUCK_MS).env("PALISADE_SERVER__FAULT_INJECTION__ENABLED", "true");
        command.env("PALISADE_SERVER__RATE_LIMIT__PER_SECOND", "0").env("PALISADE_SERVER__ADDRESS_LIMIT__PER_SECOND", "0");
    })
}

fn assertions(outcome: &Outcome, times: usize, deed: &str) -> Assertions {
    let load = &outcome.load;
    let mut claims = Assertions::default();
    claims.add(
        "no request fails",
        load.failures.is_empty(),
        format!("{} of {} failed, {times} {deed}", load.failures.len(), load.requests),
    );
    for failure in load.failures.iter().take(10) {
        claims.add("", false, failure.replace(['\n', '|'], " "));
    }
    // The audit panics on a lost order. It is skipped if a request failed.
    let found = load.failures.is_empty() && outcome.orders > 0;
    claims.add("every acknowledged order exists once and is finished", found, format!("0 of {} lost", outcome.orders));
    let gap = format!("{} ms; slowest request {} ms", load.longest_gap.as_millis(), load.slowest.as_millis());
    claims.add("longest time without a successful response", true, gap);
    claims
}

fn duplicates(outcome: &Outcome) -> String {
    let Outcome { failed_over: passed_on, in_progress_retries: told_to_wait, .. } = outcome;
    format!("{passed_on} failed over to the other gateway, {told_to_wait} after `Retry-After` (request in progress)")
}
