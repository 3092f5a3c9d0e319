//! Several replicas of everything, under load: restarted in turn, killed in turn, and compared with each other.

mod spread;

use std::{pin::Pin, process::Command};

use palisade_tests::{
    process::Program,
    shop::{REPLICAS, SERVICES},
    traffic::{Outcome, Traffic},
};
use tokio::task::spawn_blocking;

use crate::{Environment, assertions::Assertions};

/// How many people there are.
const CLIENTS: usize = 12;
/// How many requests are made before, between and after what is done to the replicas.
const REQUESTS_PER_PHASE: usize = 200;
/// A process that is told to stop takes requests for so long, while those in front of it learn of it: they ask every 50 ms.
const LAME_DUCK_MS: &str = "500";

/// One thing that is done to replicas, and what has to be true of it.
pub struct Scenario {
    /// What it is called.
    pub name: &'static str,
    /// The question it answers.
    pub question: &'static str,
    run: fn(usize) -> Pin<Box<dyn Future<Output = Assertions>>>,
}

/// All of them.
pub static TRIALS: [Scenario; 3] = [
    Scenario {
        name: "rolling",
        question: "every process is restarted in turn, again and again: does any request fail?",
        run: |restarts| Box::pin(rolling(restarts)),
    },
    Scenario {
        name: "kills",
        question: "every process is killed in turn, again and again: is anything lost, or does any request fail that may be repeated?",
        run: |times| Box::pin(kills(times)),
    },
    Scenario {
        name: "spread",
        question: "does load spread evenly over equal replicas, and away from a slow one?",
        run: |_| Box::pin(spread::spread()),
    },
];

impl Scenario {
    /// Makes it, with so many processes restarted or killed.
    pub async fn run(&self, restarts: usize) -> Assertions {
        (self.run)(restarts).await
    }
}

/// So many graceful restarts, one process after another.
pub async fn rolling(restarts: usize) -> Assertions {
    let (stage, outcome) = one_after_another(restarts, Program::replace, |_| {}).await;
    drop(stage);
    let mut claims = told(&outcome, restarts, "restarts");
    claims.add("nothing had to be asked twice", outcome.passed_on + outcome.told_to_wait == 0, duplicates(&outcome));
    claims
}

/// So many times `kill -9`, one process after another; each stays away for a while.
pub async fn kills(times: usize) -> Assertions {
    let (stage, outcome) = one_after_another(times, Program::kill, Program::restart).await;
    drop(stage);
    let mut claims = told(&outcome, times, "kills");
    claims.add("some had to be asked twice", true, duplicates(&outcome));
    claims
}

/// Does something to one process after another, and something else when there were requests since then; goes on when all are ready.
async fn one_after_another(processes: usize, first: fn(&mut Program), then: fn(&mut Program)) -> (Environment, Outcome) {
    let mut stage = start();
    stage.shop.ready().await;
    let traffic = Traffic::start(&stage.shop, CLIENTS).await;
    traffic.more(REQUESTS_PER_PHASE).await;
    for (service, replica) in in_turn().into_iter().cycle().take(processes) {
        stage = to_one(stage, service, replica, first).await;
        traffic.more(REQUESTS_PER_PHASE).await;
        stage = to_one(stage, service, replica, then).await;
        stage.shop.ready().await;
        traffic.more(REQUESTS_PER_PHASE).await;
        let load = traffic.so_far();
        let (requests, failed, gap) = (load.requests, load.failures.len(), load.longest_gap.as_millis());
        eprintln!("{service} {replica}: {requests} requests, {failed} failed, longest gap {gap} ms{}", failures(&stage).await);
    }
    let outcome = traffic.end(&stage.shop).await;
    (stage, outcome)
}

/// Why gateways and orders made no other attempt at calls that had failed.
async fn failures(stage: &Environment) -> String {
    let mut told = Vec::new();
    for service in ["gateway", "orders"] {
        for reason in ["attempts", "caller_retries", "concurrency", "deadline", "not_idempotent", "not_ready", "pushback", "tokens"] {
            let reason = format!("reason=\"{reason}\"");
            let count = stage.shop.counted(service, "palisade_retry_rejected_total", &[&reason]).await;
            if count > 0.0 {
                told.push(format!("; {service}: {count} {reason}"));
            }
        }
    }
    told.concat()
}

/// On a thread of its own: whoever waits for a process must not keep requests from being made.
async fn to_one(mut stage: Environment, service: &'static str, replica: usize, deed: fn(&mut Program)) -> Environment {
    let done = spawn_blocking(move || {
        deed(&mut stage.shop.replicas_mut(service)[replica]);
        stage
    });
    done.await.expect("a deed does not panic")
}

/// Every process once.
fn in_turn() -> Vec<(&'static str, usize)> {
    let of = |(service, replicas)| (0..replicas).map(move |replica| (service, replica));
    SERVICES.into_iter().zip(REPLICAS).flat_map(of).collect()
}

fn start() -> Environment {
    Environment::start_replicated(|_, command: &mut Command| {
        command.env("PALISADE_SERVER__LAME_DUCK_MS", LAME_DUCK_MS).env("PALISADE_SERVER__FAULTS__ENABLED", "true");
        command.env("PALISADE_SERVER__RATE_LIMIT__PER_SECOND", "0").env("PALISADE_SERVER__ADDRESS_LIMIT__PER_SECOND", "0");
    })
}

fn told(outcome: &Outcome, times: usize, deed: &str) -> Assertions {
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
    // The audit panics if one is lost; it is not made when a request failed.
    let found = load.failures.is_empty() && outcome.orders > 0;
    claims.add("every acknowledged order is there, once, and finished", found, format!("0 of {} lost", outcome.orders));
    let gap = format!("{} ms; the slowest request took {} ms", load.longest_gap.as_millis(), load.slowest.as_millis());
    claims.add("the longest time without an answer to anybody", true, gap);
    claims
}

fn duplicates(outcome: &Outcome) -> String {
    let Outcome { passed_on, told_to_wait, .. } = outcome;
    format!("{passed_on} at the other gateway, {told_to_wait} after `Retry-After`, as the first call with the key was still at work")
}
