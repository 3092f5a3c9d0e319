//! Dashboard definitions, one file per dashboard.

mod data;
mod exporters;
mod gateway;
mod grpc;
mod limits;
mod load;
mod orders;
mod overview;
mod resilience;
mod runtime;
mod security;
mod slo;
mod stock;
mod telemetry;

use crate::{
    dashboard::Dashboard,
    panel::{Panel, stat, timeseries, unit},
    query::{Query, Series, external_metric, metric},
};

/// Returns all dashboards in display order.
pub fn all() -> Vec<Dashboard> {
    let mut all = vec![
        overview::dashboard(),
        slo::dashboard(),
        gateway::dashboard(),
        grpc::dashboard(),
        resilience::dashboard(),
        limits::dashboard(),
        data::dashboard(),
        orders::dashboard(),
        stock::dashboard(),
        security::dashboard(),
        runtime::dashboard(),
        telemetry::dashboard(),
        load::dashboard(),
    ];
    all.extend(exporters::dashboards());
    all
}

/// Jobs of the Palisade processes in Prometheus. The alert rules use the same names.
pub(crate) const JOBS: &str = "gateway|products|orders";

/// gRPC status codes that count as server errors.
const SERVER_ERRORS: &str = "UNKNOWN|DEADLINE_EXCEEDED|UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS";

/// Selects every scraped process.
fn every_process() -> Series {
    external_metric("up")
}

/// Selects the durations of served HTTP requests.
fn http_requests() -> Series {
    metric("http.server.request.duration")
}

/// Selects the durations of served gRPC calls.
fn grpc_server_calls() -> Series {
    metric("rpc.server.call.duration")
}

/// Selects the durations of client-side gRPC calls.
fn grpc_client_calls() -> Series {
    metric("rpc.client.call.duration")
}

/// Selects the durations of store operations.
fn store_operations() -> Series {
    metric("db.client.operation.duration")
}

/// Ratio of HTTP requests with a server error (5xx).
fn http_errors<const N: usize>(by: [&'static str; N]) -> Query {
    http_requests().count().is_not("error.type", "").rate().sum_by(by).share_of(&http_requests().count().rate().sum_by(by))
}

/// Ratio of gRPC calls, served or client-side, with a server error.
fn call_errors<const N: usize>(calls: impl Fn() -> Series, by: [&'static str; N]) -> Query {
    calls().count().matches("rpc.status_code", SERVER_ERRORS).rate().sum_by(by).share_of(&calls().count().rate().sum_by(by))
}

/// Call time outside the server's handler: network, both middleware stacks, retries.
fn hop_overhead() -> Query {
    (grpc_client_calls().quantile(0.95, ["rpc.method"]) - grpc_server_calls().quantile(0.95, ["rpc.method"])).at_least_zero()
}

/// Time from the acceptance of an order until its outcome.
fn time_to_settle() -> Panel {
    let duration = |quantile| metric("palisade.saga.duration").quantile(quantile, []);
    timeseries("Time to settle")
        .description("Time from the acceptance of an order until it is confirmed, failed or cancelled. 10 s is the end of the scale.")
        .remediation("Seconds: a step is retried, see the steps by outcome on \"Orders and sagas\".")
        .unit(unit::SECONDS)
        .limits(5.0, 10.0)
        .runbook("SagaStuck")
        .query(duration(0.5).legend_prefix("p50"))
        .query(duration(0.95).legend_prefix("p95"))
        .query(duration(0.99).legend_prefix("p99"))
}

/// Labels that identify a circuit breaker, in legend order.
const BREAKER_LABELS: [&str; 4] = ["job", "target", "scope", "endpoint"];

/// Violations found by the audits, for the boards of orders and of stock.
fn invariant_violations() -> Panel {
    stat("Invariant violations")
        .description("Invariant violations found by the last audit, by check: `orders`, `reservations` or `stock`. Must be 0.")
        .remediation("A bug, or a manual change in a database. `GET /invariants` on the admin ports lists the violations.")
        .unit(unit::COUNT)
        .limit(1.0)
        .runbook("StockInvariantViolated")
        .query(metric("palisade.invariant.violations").now().max_by(["check"]))
}
