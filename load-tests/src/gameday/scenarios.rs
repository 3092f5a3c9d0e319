//! Game day scenarios: fault, recovery and assertions.

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

/// Fault and its assertions.
pub struct Scenario {
    /// Name on the command line.
    pub name: &'static str,
    /// Question that the scenario answers.
    pub question: &'static str,
    /// User actions per second.
    pub(super) rate: u32,
    /// Duration of the fault.
    pub(super) fault_duration: Duration,
    pub(super) settings: &'static [Setting],
    /// Connections of products to its store, if they are the bottleneck.
    pub(super) connections: Option<u32>,
    pub(super) inject: Action,
    pub(super) recover: Action,
    pub(super) verify: Verification,
}

/// Route prefix of product reads.
const READ_ROUTES: &str = "GET /products";
/// Retries permitted before the budget denies them: half of its tokens.
const RETRY_BURST: f64 = 50.0;
const PRODUCTS_METHODS: &str = "palisade.products.v1.ProductsService/*";
const READ_METHODS: &str = "palisade.products.v1.ProductsService/Find*";

/// All scenarios.
pub static DAYS: [Scenario; 7] = [
    Scenario {
        name: "products-down",
        question: "products is killed: are orders still accepted, and are rejections fast?",
        rate: 40,
        fault_duration: Duration::from_secs(15),
        settings: &[],
        connections: None,
        inject: |stage| Box::pin(async { stage.shop.program_mut("products").kill() }),
        recover: |stage| Box::pin(async { stage.shop.program_mut("products").restart() }),
        verify: |story| {
            Box::pin(async {
                // Half of the calls in the 10 s window must be failures, and the state is sampled
                // once per second.
                assert_breaker_opens(story, "gateway", "products", 8.0).await;
                assert_reads_rejected_fast(story);
                assert_orders_accepted(story);
                assert_route_unaffected(story, "GET /orders");
                assert_retries_bounded(story, "gateway", "products").await;
                assert_recovery(story, 12.0);
                assert_alert(story, "BreakerOpen").await;
            })
        },
    },
    Scenario {
        name: "products-slow",
        question: "products takes six seconds per call: which requests wait, and for how long?",
        rate: 20,
        fault_duration: Duration::from_secs(20),
        settings: &[],
        connections: None,
        inject: |stage| {
            Box::pin(async { faults(stage, "products", PRODUCTS_METHODS, 1.0, Some(json!({ "latency": { "ms": 6_000 } }))).await })
        },
        recover: |stage| Box::pin(async { faults(stage, "products", PRODUCTS_METHODS, 0.0, None).await }),
        verify: |story| {
            Box::pin(async {
                assert_breaker_opens(story, "gateway", "products", 12.0).await;
                assert_orders_accepted(story);
                assert_route_unaffected(story, "GET /orders");
                assert_retries_bounded(story, "gateway", "products").await;
                assert_recovery(story, 20.0);
                assert_alert(story, "BreakerOpen").await;
            })
        },
    },
    Scenario {
        name: "products-half",
        question: "half of the responses of products fail: do retries help without amplifying the load?",
        rate: 40,
        fault_duration: Duration::from_secs(15),
        settings: &[],
        connections: None,
        inject: |stage| Box::pin(async { faults(stage, "products", READ_METHODS, 0.5, Some(json!({ "error": "overloaded" }))).await }),
        recover: |stage| Box::pin(async { faults(stage, "products", READ_METHODS, 0.0, None).await }),
        verify: |story| {
            Box::pin(async {
                assert_retries_bounded(story, "gateway", "products").await;
                assert_orders_accepted(story);
                assert_route_unaffected(story, "GET /orders");
                assert_recovery(story, 12.0);
            })
        },
    },
    Scenario {
        name: "orders-killed",
        question: "orders is killed during sagas: is any order lost?",
        rate: 40,
        fault_duration: Duration::from_secs(8),
        settings: &[],
        connections: None,
        inject: |stage| Box::pin(async { stage.shop.program_mut("orders").kill() }),
        recover: |stage| Box::pin(async { stage.shop.program_mut("orders").restart() }),
        verify: |story| {
            Box::pin(async {
                assert_orders_rejected_fast(story);
                assert_route_unaffected(story, READ_ROUTES);
                assert_retries_bounded(story, "gateway", "orders").await;
                assert_recovery(story, 12.0);
            })
        },
    },
    Scenario {
        name: "postgres-down",
        question: "PostgreSQL is killed: are product reads affected?",
        rate: 40,
        fault_duration: Duration::from_secs(15),
        settings: &[],
        connections: None,
        inject: |stage| Box::pin(async { stage.postgres.kill() }),
        recover: |stage| Box::pin(async { stage.postgres.restart() }),
        verify: |story| {
            Box::pin(async {
                assert_orders_rejected_fast(story);
                assert_route_unaffected(story, READ_ROUTES);
                assert_recovery(story, 20.0);
            })
        },
    },
    Scenario {
        name: "mongo-down",
        question: "MongoDB is killed: are orders still accepted?",
        rate: 40,
        fault_duration: Duration::from_secs(15),
        settings: &[],
        connections: None,
        inject: |stage| Box::pin(async { stage.mongo.kill() }),
        recover: |stage| Box::pin(async { stage.mongo.restart() }),
        verify: |story| {
            Box::pin(async {
                assert_orders_accepted(story);
                assert_route_unaffected(story, "GET /orders");
                assert_recovery(story, 25.0);
            })
        },
    },
    Scenario {
        name: "gateway-overloaded",
        question: "five times the capacity: are requests shed fast, and is the rest served?",
        rate: 150,
        fault_duration: Duration::from_secs(20),
        settings: &[
            ("gateway", "SERVER__ADAPTIVE_LIMIT__INITIAL_LIMIT", "8"),
            ("gateway", "SERVER__ADAPTIVE_LIMIT__MIN_LIMIT", "8"),
            ("gateway", "SERVER__ADAPTIVE_LIMIT__MAX_LIMIT", "8"),
        ],
        connections: Some(8),
        // Eight concurrent store operations of 120 ms: 66 per second, where about 300 are
        // requested. Requests without a connection wait, so more admitted requests mean higher
        // latency.
        inject: |stage| Box::pin(async { way(stage).set(Mode::Latency(Duration::from_millis(60))) }),
        recover: |stage| Box::pin(async { way(stage).set(Mode::Pass) }),
        verify: |story| {
            Box::pin(async {
                assert_excess_is_shed(story);
                assert_rest_is_served(story);
                assert_recovery(story, 12.0);
                assert_alert(story, "LoadShedding").await;
            })
        },
    },
];

/// Returns the proxy between products and its store.
fn way(stage: &Environment) -> &FaultProxy {
    stage.slow_store_proxy.as_ref().expect("scenario with a connection limit")
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

async fn assert_breaker_opens(story: &mut RunResult, job: &str, target: &str, within: f64) {
    let after = story.breaker_open_after(job, target).await;
    let measured = after.map_or_else(|| "never".to_owned(), |after| format!("{after:.1} s"));
    story.add_assertion(
        format!("the breaker of {job} for {target} opens within {within} s"),
        after.is_some_and(|after| after <= within),
        measured,
    );
}

fn assert_excess_is_shed(story: &mut RunResult) {
    let answers = story.select(Phase::During, "");
    let refused = answers.with(&[503]);
    let told = format!("{:.0} % of {}: {}", 100.0 * answers.share(&[503]), answers.count(), refused.summary());
    let fast = answers.share(&[503]) > 0.3 && refused.quantile(0.99) < 1.5;
    story.add_assertion("excess requests are shed within 1.5 s", fast, told);
}

fn assert_rest_is_served(story: &mut RunResult) {
    let answers = story.select(Phase::During, READ_ROUTES);
    let served = answers.with(&[200, 304]);
    let (holds, told) = (served.count() >= 14 * 15 && served.quantile(0.95) < 1.0, answers.summary());
    story.add_assertion(
        "at least fifteen reads per second are served, 95 % of them within 1 s",
        holds,
        format!("{}: {}; of all: {told}", served.count(), served.summary()),
    );
}

fn assert_reads_rejected_fast(story: &mut RunResult) {
    let answers = story.select(Phase::During, READ_ROUTES);
    let holds = answers.count() > 20 && answers.share(&[503]) > 0.95 && answers.with(&[503]).quantile(0.95) < 0.25;
    let told = answers.summary();
    story.add_assertion("product reads get 503 with Retry-After, 95 % of them within 250 ms", holds, told);
}

fn assert_orders_accepted(story: &mut RunResult) {
    let answers = story.select(Phase::During, "POST /orders");
    let (holds, told) = (answers.count() > 5 && answers.share(&[201, 202]) > 0.99, answers.summary());
    story.add_assertion("every order is accepted: 201, or 202 and finished later", holds, told);
}

fn assert_orders_rejected_fast(story: &mut RunResult) {
    let answers = story.select(Phase::During, "POST /orders");
    let refused = answers.with(&[503]);
    let holds = answers.share(&[503, 504]) > 0.9 || answers.count() == 0;
    let told = format!("{}; rejections p95 {:.0} ms", answers.summary(), 1e3 * refused.quantile(0.95));
    story.add_assertion("orders are rejected with Retry-After within 5 s", holds && refused.quantile(0.95) < 5.0, told);
}

fn assert_route_unaffected(story: &mut RunResult, route: &str) {
    let (before, during) = (story.select(Phase::Before, route), story.select(Phase::During, route));
    let (usual, now) = (before.quantile(0.99), during.quantile(0.99));
    // Tolerates noise of a busy machine. Requests that wait for a failed service take seconds.
    let holds = during.count() > 3 && during.share(&[200, 304]) > 0.99 && now <= (3.0 * usual).max(0.5);
    let told = format!("p99 {:.0} ms before, then {}", 1e3 * usual, during.summary());
    story.add_assertion(format!("{route} is unaffected and keeps its latency"), holds, told);
}

async fn assert_retries_bounded(story: &mut RunResult, job: &str, target: &str) {
    let (retries, calls) = story.retries_and_calls(job, target).await;
    let holds = retries <= (0.2 * calls).max(RETRY_BURST);
    let text = format!("retries of {job} to {target} add at most 20 % to its calls, or {RETRY_BURST:.0}, the initial budget");
    story.add_assertion(text, holds, format!("{retries:.0} for {calls:.0} calls"));
}

fn assert_recovery(story: &mut RunResult, within: f64) {
    let after = story.recovered_after("");
    let well = story.select(Phase::After, "").share(&[200, 201, 202, 304, 409]);
    let measured = format!("last failure {after:.1} s after recovery");
    story.add_assertion(format!("all requests succeed {within} s after recovery"), after <= within && well > 0.0, measured);
}

async fn assert_alert(story: &mut RunResult, alert: &str) {
    let seen = story.alerted(alert).await;
    story.add_assertion(format!("the condition of the alert {alert} is met"), seen, if seen { "yes" } else { "no" });
}
