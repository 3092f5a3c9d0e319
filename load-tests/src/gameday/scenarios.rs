//! Game day scenarios: fault, recovery and expectations.

use std::{pin::Pin, time::Duration};

use palisade_tests::fault_proxy::{FaultProxy, Mode};
use serde_json::{Value, json};

use super::{
    run_result::RunResult,
    verdicts::{
        READ_ROUTES, assert_alert, assert_breaker_opens, assert_excess_is_shed, assert_orders_accepted, assert_orders_rejected_fast,
        assert_reads_rejected_fast, assert_recovery, assert_rest_is_served, assert_retries_bounded, assert_route_unaffected,
    },
};
use crate::Environment;

/// Service, setting, value.
pub(super) type Setting = (&'static str, &'static str, &'static str);

type Action = for<'a> fn(&'a mut Environment) -> Pin<Box<dyn Future<Output = ()> + 'a>>;
type Verification = for<'a> fn(&'a mut RunResult) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Fault and its assertions.
pub struct Scenario {
    /// Name on the command line.
    pub name: &'static str,
    /// Question that the scenario samples.
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

const PRODUCTS_METHODS: &str = "palisade.products.v1.ProductsService/*";
const READ_METHODS: &str = "palisade.products.v1.ProductsService/Find*";

/// All scenarios.
pub static SCENARIOS: [Scenario; 7] = [
    Scenario {
        name: "products-down",
        question: "products is killed: are orders still accepted, and are rejections fast?",
        rate: 40,
        fault_duration: Duration::from_secs(15),
        settings: &[],
        connections: None,
        inject: |environment| Box::pin(async { environment.shop.program_mut("products").kill() }),
        recover: |environment| Box::pin(async { environment.shop.program_mut("products").restart() }),
        verify: |result| {
            Box::pin(async {
                // Half of the calls in the 10 s window must be failures, and the state is sampled
                // once per second.
                assert_breaker_opens(result, "gateway", "products", 8.0).await;
                assert_reads_rejected_fast(result);
                assert_orders_accepted(result);
                assert_route_unaffected(result, "GET /orders");
                assert_retries_bounded(result, "gateway", "products").await;
                assert_recovery(result, 12.0);
                assert_alert(result, "BreakerOpen").await;
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
        inject: |environment| {
            Box::pin(async {
                set_faults(environment, "products", PRODUCTS_METHODS, 1.0, Some(json!({ "latency": { "ms": 6_000 } }))).await;
            })
        },
        recover: |environment| Box::pin(async { set_faults(environment, "products", PRODUCTS_METHODS, 0.0, None).await }),
        verify: |result| {
            Box::pin(async {
                assert_breaker_opens(result, "gateway", "products", 12.0).await;
                assert_orders_accepted(result);
                assert_route_unaffected(result, "GET /orders");
                assert_retries_bounded(result, "gateway", "products").await;
                assert_recovery(result, 20.0);
                assert_alert(result, "BreakerOpen").await;
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
        inject: |environment| {
            Box::pin(async { set_faults(environment, "products", READ_METHODS, 0.5, Some(json!({ "error": "overloaded" }))).await })
        },
        recover: |environment| Box::pin(async { set_faults(environment, "products", READ_METHODS, 0.0, None).await }),
        verify: |result| {
            Box::pin(async {
                assert_retries_bounded(result, "gateway", "products").await;
                assert_orders_accepted(result);
                assert_route_unaffected(result, "GET /orders");
                assert_recovery(result, 12.0);
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
        inject: |environment| Box::pin(async { environment.shop.program_mut("orders").kill() }),
        recover: |environment| Box::pin(async { environment.shop.program_mut("orders").restart() }),
        verify: |result| {
            Box::pin(async {
                assert_orders_rejected_fast(result);
                assert_route_unaffected(result, READ_ROUTES);
                assert_retries_bounded(result, "gateway", "orders").await;
                assert_recovery(result, 12.0);
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
        inject: |environment| Box::pin(async { environment.postgres.kill() }),
        recover: |environment| Box::pin(async { environment.postgres.restart() }),
        verify: |result| {
            Box::pin(async {
                assert_orders_rejected_fast(result);
                assert_route_unaffected(result, READ_ROUTES);
                assert_recovery(result, 20.0);
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
        inject: |environment| Box::pin(async { environment.mongo.kill() }),
        recover: |environment| Box::pin(async { environment.mongo.restart() }),
        verify: |result| {
            Box::pin(async {
                assert_orders_accepted(result);
                assert_route_unaffected(result, "GET /orders");
                assert_recovery(result, 25.0);
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
        inject: |environment| Box::pin(async { proxy(environment).set(Mode::Latency(Duration::from_millis(60))) }),
        recover: |environment| Box::pin(async { proxy(environment).set(Mode::Pass) }),
        verify: |result| {
            Box::pin(async {
                assert_excess_is_shed(result);
                assert_rest_is_served(result);
                assert_recovery(result, 12.0);
                assert_alert(result, "LoadShedding").await;
            })
        },
    },
];

/// Returns the proxy between products and its store.
fn proxy(environment: &Environment) -> &FaultProxy {
    environment.slow_store_proxy.as_ref().expect("scenario with a connection limit")
}

/// Sets or removes the fault injection rule of a service.
async fn set_faults(environment: &Environment, service: &str, method: &str, rate: f64, kind: Option<Value>) {
    environment.shop.program(service).set_faults(service, method, rate, kind).await;
}

impl Scenario {
    /// Renders the report of a run in Markdown.
    pub fn report(&self, result: &RunResult) -> String {
        format!("# {}\n\n{}\n\n{result}", self.name, self.question)
    }
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}
