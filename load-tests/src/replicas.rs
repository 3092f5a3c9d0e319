//! Replica tests under load: rolling restarts, kills, rolling upgrades, soaks, and load
//! distribution.

mod soak;
mod spread;

use std::{env, path::PathBuf, pin::Pin, process::Command};

use palisade_tests::{
    process::{self, Program},
    shop::{REPLICAS, SERVICES},
    traffic::{Outcome, Traffic},
};
use tokio::task::spawn_blocking;

use crate::{Environment, TimeLimits, reports::Assertions};

/// Number of clients.
const CLIENTS: usize = 12;
/// Number of requests before, between and after the actions on replicas.
const REQUESTS_PER_PHASE: usize = 200;
/// Drain delay of services after SIGTERM, milliseconds. Their clients are notified.
const LAME_DUCK_MS: &str = "500";
/// Drain delay of gateways. Much longer than the interval of the clients' readiness probes, 50 ms,
/// because the probes are late on a busy machine.
const GATEWAY_LAME_DUCK_MS: &str = "5000";

/// Scenario: an action on replicas and its assertions.
pub struct Scenario {
    /// Name on the command line.
    pub name: &'static str,
    /// Question that the scenario answers.
    pub question: &'static str,
    /// Variable that the scenario needs.
    pub needs: Option<&'static str>,
    run: fn(usize) -> Pin<Box<dyn Future<Output = Assertions>>>,
}

/// Directory with the programs of the previous release.
const PREVIOUS: &str = "PALISADE_PREVIOUS_PROGRAMS";

/// All scenarios.
pub static SCENARIOS: [Scenario; 5] = [
    Scenario {
        name: "rolling",
        question: "rolling restarts of all processes: does any request fail?",
        needs: None,
        run: |restarts| Box::pin(rolling(restarts, TimeLimits::Default)),
    },
    Scenario {
        name: "kills",
        question: "all processes are killed in turn: is anything lost, or does any repeatable request fail?",
        needs: None,
        run: |times| Box::pin(kills(times, TimeLimits::Default)),
    },
    Scenario {
        name: "spread",
        question: "is load spread evenly over equal replicas, and away from a slow one?",
        needs: None,
        run: |_| Box::pin(spread::spread()),
    },
    Scenario {
        name: "upgrade",
        question: "rolling upgrade from the previous release, its replicas beside the new ones: does any request fail, is anything lost?",
        needs: Some(PREVIOUS),
        run: |_| Box::pin(upgrade(PathBuf::from(env::var_os(PREVIOUS).expect("the runner checks it")))),
    },
    Scenario {
        name: "soak",
        question: "mixed load with a fault every minute: does memory, or anything else, grow with time?",
        needs: Some(soak::MINUTES),
        run: |_| Box::pin(soak::soak()),
    },
];

impl Scenario {
    /// Runs the scenario with this number of restarts or kills.
    pub async fn run(&self, restarts: usize) -> Assertions {
        (self.run)(restarts).await
    }
}

/// Restarts this number of processes gracefully, one after another.
pub async fn rolling(restarts: usize, limits: TimeLimits) -> Assertions {
    let outcome = act_on_each_in_turn(restarts, limits, Program::restart_gracefully, |_| {}).await;
    let mut assertions = assertions(&outcome, restarts, "restarts");
    assertions.add("no request was retried by the client", outcome.failed_over + outcome.in_progress_retries == 0, duplicates(&outcome));
    assertions
}

/// Kills (`kill -9`) this number of processes, one after another, each with an outage before its
/// restart.
pub async fn kills(times: usize, limits: TimeLimits) -> Assertions {
    let outcome = act_on_each_in_turn(times, limits, Program::kill, Program::restart).await;
    let mut assertions = assertions(&outcome, times, "kills");
    assertions.add("some requests were retried by the client", true, duplicates(&outcome));
    assertions
}

/// Starts the previous release with data, and upgrades one process after another, in the order of
/// deploy/README.md. The first one migrates the schema.
async fn upgrade(previous: PathBuf) -> Assertions {
    let of_previous = |command: &mut Command| *command = process::of_build(&previous, command);
    let mut environment = start(TimeLimits::Raised, of_previous);
    let traffic = Traffic::start(&environment.shop, CLIENTS).await;
    traffic.wait_for_more_requests(REQUESTS_PER_PHASE).await;
    for service in ["products", "orders", "gateway"] {
        for replica in 0..environment.shop.replicas(service).len() {
            environment = act_on_one(environment, service, replica, Program::upgrade).await;
            environment.shop.ready().await;
            traffic.wait_for_more_requests(REQUESTS_PER_PHASE).await;
            let load = traffic.snapshot();
            eprintln!("{service} {replica}: {} requests, {} failed", load.requests, load.failures.len());
        }
    }
    let outcome = traffic.stop(&environment.shop).await;
    assertions(&outcome, all_replicas().len(), "upgrades")
}

/// Applies `first` to one process after another, `then` after some requests, and continues once all
/// processes are ready.
async fn act_on_each_in_turn(processes: usize, limits: TimeLimits, first: fn(&mut Program), then: fn(&mut Program)) -> Outcome {
    let mut environment = start(limits, |_| {});
    let traffic = Traffic::start(&environment.shop, CLIENTS).await;
    traffic.wait_for_more_requests(REQUESTS_PER_PHASE).await;
    for (service, replica) in all_replicas().into_iter().cycle().take(processes) {
        environment = act_on_one(environment, service, replica, first).await;
        traffic.wait_for_more_requests(REQUESTS_PER_PHASE).await;
        environment = act_on_one(environment, service, replica, then).await;
        environment.shop.ready().await;
        traffic.wait_for_more_requests(REQUESTS_PER_PHASE).await;
        let load = traffic.snapshot();
        let (requests, failed, gap) = (load.requests, load.failures.len(), load.longest_gap.as_millis());
        eprintln!("{service} {replica}: {requests} requests, {failed} failed, longest gap {gap} ms{}", denied_retries(&environment).await);
    }
    traffic.stop(&environment.shop).await
}

/// Summarizes why gateways and orders did not retry failed attempts.
async fn denied_retries(environment: &Environment) -> String {
    let mut denied = Vec::new();
    for service in ["gateway", "orders"] {
        for reason in ["attempts", "caller_retries", "concurrency", "deadline", "not_idempotent", "not_ready", "pushback", "tokens"] {
            let reason = format!("reason=\"{reason}\"");
            let count = environment.shop.counted(service, "palisade_retries_denied_total", &[&reason]).await;
            if count > 0.0 {
                denied.push(format!("; {service}: {count} {reason}"));
            }
        }
    }
    denied.concat()
}

/// Runs an action on a separate thread, because waiting for a process must not block the load.
async fn act_on_one(mut environment: Environment, service: &'static str, replica: usize, action: fn(&mut Program)) -> Environment {
    let done = spawn_blocking(move || {
        action(&mut environment.shop.replicas_mut(service)[replica]);
        environment
    });
    done.await.expect("action does not panic")
}

/// Returns every process once.
fn all_replicas() -> Vec<(&'static str, usize)> {
    let of = |(service, replicas)| (0..replicas).map(move |replica| (service, replica));
    SERVICES.into_iter().zip(REPLICAS).flat_map(of).collect()
}

fn start(limits: TimeLimits, build: impl Fn(&mut Command)) -> Environment {
    Environment::start_replicated(|service, command: &mut Command| {
        build(command);
        limits.configure(service, command);
        let lame_duck = if service == "gateway" { GATEWAY_LAME_DUCK_MS } else { LAME_DUCK_MS };
        command.env("PALISADE_SERVER__LAME_DUCK_MS", lame_duck).env("PALISADE_SERVER__FAULT_INJECTION__ENABLED", "true");
        command.env("PALISADE_SERVER__RATE_LIMIT__PER_SECOND", "0").env("PALISADE_SERVER__ADDRESS_LIMIT__PER_SECOND", "0");
    })
}

fn assertions(outcome: &Outcome, times: usize, action: &str) -> Assertions {
    let load = &outcome.load;
    let mut assertions = Assertions::default();
    assertions.add(
        "no request fails",
        load.failures.is_empty(),
        format!("{} of {} failed, {times} {action}", load.failures.len(), load.requests),
    );
    for failure in load.failures.iter().take(10) {
        assertions.add("", false, failure.replace(['\n', '|'], " "));
    }
    // The audit panics on a lost order. It is skipped if a request failed.
    let passed = load.failures.is_empty() && outcome.orders > 0;
    assertions.add("every acknowledged order exists once and is finished", passed, format!("0 of {} lost", outcome.orders));
    let gap = format!("{} ms; slowest request {} ms", load.longest_gap.as_millis(), load.slowest.as_millis());
    assertions.add("longest time without a successful response", true, gap);
    assertions
}

fn duplicates(outcome: &Outcome) -> String {
    let Outcome { failed_over, in_progress_retries, .. } = outcome;
    format!("{failed_over} failed over to the other gateway, {in_progress_retries} after `Retry-After` (request in progress)")
}
