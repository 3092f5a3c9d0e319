//! The days: what breaks, how it heals, and what has to come true.

use std::{pin::Pin, time::Duration};

use palisade_tests::fault_proxy::{FaultProxy, Mode};
use serde_json::json;

use super::{
    Setting, faults,
    run_result::{Phase, RunResult},
};
use crate::Environment;

type Action = for<'a> fn(&'a mut Environment) -> Pin<Box<dyn Future<Output = ()> + 'a>>;
type Verification = for<'a> fn(&'a mut RunResult) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// One fault and its story.
pub struct Scenario {
    /// What it is called.
    pub name: &'static str,
    /// The question it answers.
    pub question: &'static str,
    /// Things that people do, a second.
    pub(super) rate: u32,
    /// How long the fault is there.
    pub(super) lasts: Duration,
    pub(super) settings: &'static [Setting],
    /// How many connections products has to its store, where they are what breaks.
    pub(super) connections: Option<u32>,
    pub(super) inject: Action,
    pub(super) recover: Action,
    pub(super) verify: Verification,
}

/// What reads of people get when all is well.
const READS: &str = "GET /products";
/// Retries that the budget lets through before it stops them: half its tokens.
const RETRY_BURST: f64 = 50.0;
const PRODUCTS: &str = "palisade.products.v1.ProductsService/*";
const READING: &str = "palisade.products.v1.ProductsService/Find*";

/// All of them.
pub static DAYS: [Scenario; 7] = [
    Scenario {
        name: "products-down",
        question: "products is killed: are orders still taken, and refusals fast?",
        rate: 40,
        lasts: Duration::from_secs(15),
        settings: &[],
        connections: None,
        inject: |stage| Box::pin(async { stage.shop.program_mut("products").kill() }),
        recover: |stage| Box::pin(async { stage.shop.program_mut("products").restart() }),
        verify: |story| {
            Box::pin(async {
                // Half of its window of 10 s has to be failures, and it is looked at once a second.
                breaker_opens(story, "gateway", "products", 8.0).await;
                products_are_refused_fast(story);
                orders_are_taken(story);
                others_keep_their_pace(story, "GET /orders");
                retries_stay_few(story, "gateway", "products").await;
                recovers(story, 12.0);
                alerts(story, "BreakerOpen").await;
            })
        },
    },
    Scenario {
        name: "products-slow",
        question: "products takes six seconds for everything: who waits, and for how long?",
        rate: 20,
        lasts: Duration::from_secs(20),
        settings: &[],
        connections: None,
        inject: |stage| Box::pin(async { faults(stage, "products", PRODUCTS, 1.0, Some(json!({ "latency": { "ms": 6_000 } }))).await }),
        recover: |stage| Box::pin(async { faults(stage, "products", PRODUCTS, 0.0, None).await }),
        verify: |story| {
            Box::pin(async {
                breaker_opens(story, "gateway", "products", 12.0).await;
                orders_are_taken(story);
                others_keep_their_pace(story, "GET /orders");
                retries_stay_few(story, "gateway", "products").await;
                recovers(story, 20.0);
                alerts(story, "BreakerOpen").await;
            })
        },
    },
    Scenario {
        name: "products-half",
        question: "half of products' answers fail: do retries help without making it worse?",
        rate: 40,
        lasts: Duration::from_secs(15),
        settings: &[],
        connections: None,
        inject: |stage| Box::pin(async { faults(stage, "products", READING, 0.5, Some(json!({ "error": "overloaded" }))).await }),
        recover: |stage| Box::pin(async { faults(stage, "products", READING, 0.0, None).await }),
        verify: |story| {
            Box::pin(async {
                retries_stay_few(story, "gateway", "products").await;
                orders_are_taken(story);
                others_keep_their_pace(story, "GET /orders");
                recovers(story, 12.0);
            })
        },
    },
    Scenario {
        name: "orders-killed",
        question: "orders is killed in the middle of sagas: is any order lost?",
        rate: 40,
        lasts: Duration::from_secs(8),
        settings: &[],
        connections: None,
        inject: |stage| Box::pin(async { stage.shop.program_mut("orders").kill() }),
        recover: |stage| Box::pin(async { stage.shop.program_mut("orders").restart() }),
        verify: |story| {
            Box::pin(async {
                orders_are_refused_fast(story);
                others_keep_their_pace(story, READS);
                retries_stay_few(story, "gateway", "orders").await;
                recovers(story, 12.0);
            })
        },
    },
    Scenario {
        name: "postgres-down",
        question: "PostgreSQL is killed: what of that does a reader of products see?",
        rate: 40,
        lasts: Duration::from_secs(15),
        settings: &[],
        connections: None,
        inject: |stage| Box::pin(async { stage.postgres.kill() }),
        recover: |stage| Box::pin(async { stage.postgres.restart() }),
        verify: |story| {
            Box::pin(async {
                orders_are_refused_fast(story);
                others_keep_their_pace(story, READS);
                recovers(story, 20.0);
            })
        },
    },
    Scenario {
        name: "mongo-down",
        question: "MongoDB is killed: are orders still taken?",
        rate: 40,
        lasts: Duration::from_secs(15),
        settings: &[],
        connections: None,
        inject: |stage| Box::pin(async { stage.mongo.kill() }),
        recover: |stage| Box::pin(async { stage.mongo.restart() }),
        verify: |story| {
            Box::pin(async {
                orders_are_taken(story);
                others_keep_their_pace(story, "GET /orders");
                recovers(story, 25.0);
            })
        },
    },
    Scenario {
        name: "gateway-overloaded",
        question: "five times what the shop can serve: who is refused, how fast, and is the rest served?",
        rate: 150,
        lasts: Duration::from_secs(20),
        settings: &[
            ("gateway", "SERVER__ADAPTIVE_LIMIT__INITIAL_LIMIT", "8"),
            ("gateway", "SERVER__ADAPTIVE_LIMIT__MIN_LIMIT", "8"),
            ("gateway", "SERVER__ADAPTIVE_LIMIT__MAX_LIMIT", "8"),
        ],
        connections: Some(8),
        // Eight calls of the store at a time for 120 ms each: 66 a second, of some 300 that would be wanted. Who finds no connection waits for one,
        // so that the more are let in, the longer each of them takes.
        inject: |stage| Box::pin(async { way(stage).set(Mode::Latency(Duration::from_millis(60))) }),
        recover: |stage| Box::pin(async { way(stage).set(Mode::Pass) }),
        verify: |story| {
            Box::pin(async {
                too_much_is_refused(story);
                the_rest_is_served(story);
                recovers(story, 12.0);
                alerts(story, "LoadShedding").await;
            })
        },
    },
];

/// The narrow way of a day that has one.
fn way(stage: &Environment) -> &FaultProxy {
    stage.slow_store_proxy.as_ref().expect("the day says how many connections it has")
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

async fn breaker_opens(story: &mut RunResult, job: &str, target: &str, within: f64) {
    let after = story.breaker_open_after(job, target).await;
    let measured = after.map_or_else(|| "never".to_owned(), |after| format!("{after:.1} s"));
    story.claim(format!("the breaker of {job} for {target} opens within {within} s"), after.is_some_and(|after| after <= within), measured);
}

fn too_much_is_refused(story: &mut RunResult) {
    let answers = story.answers(Phase::During, "");
    let refused = answers.with(&[503]);
    let told = format!("{:.0} % of {}: {}", 100.0 * answers.share(&[503]), answers.count(), refused.summary());
    let fast = answers.share(&[503]) > 0.3 && refused.quantile(0.99) < 1.5;
    story.claim("what is too much is refused within 1.5 s", fast, told);
}

fn the_rest_is_served(story: &mut RunResult) {
    let answers = story.answers(Phase::During, READS);
    let served = answers.with(&[200, 304]);
    let (holds, told) = (served.count() >= 14 * 15 && served.quantile(0.95) < 1.0, answers.summary());
    story.claim(
        "fifteen reads a second and more are served, 95 % of them within 1 s",
        holds,
        format!("{}: {}; of all: {told}", served.count(), served.summary()),
    );
}

fn products_are_refused_fast(story: &mut RunResult) {
    let answers = story.answers(Phase::During, READS);
    let holds = answers.count() > 20 && answers.share(&[503]) > 0.95 && answers.with(&[503]).quantile(0.95) < 0.25;
    let told = answers.summary();
    story.claim("who asks for products gets a 503 with Retry-After, 95 % of them within 250 ms", holds, told);
}

fn orders_are_taken(story: &mut RunResult) {
    let answers = story.answers(Phase::During, "POST /orders");
    let (holds, told) = (answers.count() > 5 && answers.share(&[201, 202]) > 0.99, answers.summary());
    story.claim("every order is taken: 201, or 202 and finished later", holds, told);
}

fn orders_are_refused_fast(story: &mut RunResult) {
    let answers = story.answers(Phase::During, "POST /orders");
    let refused = answers.with(&[503]);
    let holds = answers.share(&[503, 504]) > 0.9 || answers.count() == 0;
    let told = format!("{}; refusals p95 {:.0} ms", answers.summary(), 1e3 * refused.quantile(0.95));
    story.claim("who orders is told to come back, within 5 s", holds && refused.quantile(0.95) < 5.0, told);
}

fn others_keep_their_pace(story: &mut RunResult, route: &str) {
    let (before, during) = (story.answers(Phase::Before, route), story.answers(Phase::During, route));
    let (usual, now) = (before.quantile(0.99), during.quantile(0.99));
    // A busy machine adds its own; what waits for a broken service waits for seconds.
    let holds = during.count() > 3 && during.share(&[200, 304]) > 0.99 && now <= (3.0 * usual).max(0.5);
    let told = format!("p99 {:.0} ms before, then {}", 1e3 * usual, during.summary());
    story.claim(format!("{route} has nothing to do with it, and keeps its pace"), holds, told);
}

async fn retries_stay_few(story: &mut RunResult, job: &str, target: &str) {
    let (retries, calls) = story.retries_and_calls(job, target).await;
    let holds = retries <= (0.2 * calls).max(RETRY_BURST);
    let text = format!("retries of {job} at {target} add at most 20 % to its calls, or {RETRY_BURST:.0}, which the budget lets through at once");
    story.claim(text, holds, format!("{retries:.0} for {calls:.0} calls"));
}

fn recovers(story: &mut RunResult, within: f64) {
    let after = story.recovered_after("");
    let well = story.answers(Phase::After, "").share(&[200, 201, 202, 304, 409]);
    let measured = format!("the last failure {after:.1} s after it");
    story.claim(format!("all is well {within} s after the end"), after <= within && well > 0.0, measured);
}

async fn alerts(story: &mut RunResult, alert: &str) {
    let seen = story.alerted(alert).await;
    story.claim(format!("the condition of the alert {alert} is seen"), seen, if seen { "it is" } else { "it is not" });
}
