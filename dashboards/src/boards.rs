//! The dashboards, one file each, with just their panels.

mod data;
mod gateway;
mod grpc;
mod load;
mod orders;
mod overview;
mod resilience;
mod runtime;

use crate::{
    dashboard::Dashboard,
    query::{Query, Series, external_metric, metric},
};

/// All dashboards, in the order in which they are listed.
pub fn all() -> Vec<Dashboard> {
    vec![
        overview::dashboard(),
        gateway::dashboard(),
        grpc::dashboard(),
        resilience::dashboard(),
        data::dashboard(),
        orders::dashboard(),
        runtime::dashboard(),
        load::dashboard(),
    ]
}

/// The codes that are a server's own fault; the others are answers.
const FAULTS: &str = "UNKNOWN|DEADLINE_EXCEEDED|UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS";

/// Every process that is scraped.
fn every_process() -> Series {
    external_metric("up")
}

/// HTTP requests answered.
fn http() -> Series {
    metric("http.server.request.duration")
}

/// gRPC calls answered.
fn answered() -> Series {
    metric("rpc.server.call.duration")
}

/// gRPC calls made.
fn made() -> Series {
    metric("rpc.client.call.duration")
}

/// Operations on stores.
fn db() -> Series {
    metric("db.client.operation.duration")
}

/// The share of requests that failed by our own fault.
fn http_errors<const N: usize>(by: [&'static str; N]) -> Query {
    http().count().is_not("error.type", "").rate().sum_by(by).share_of(&http().count().rate().sum_by(by))
}

/// The share of calls, made or answered, that failed by the server's fault.
fn call_errors<const N: usize>(calls: impl Fn() -> Series, by: [&'static str; N]) -> Query {
    calls().count().matches("rpc.status_code", FAULTS).rate().sum_by(by).share_of(&calls().count().rate().sum_by(by))
}

/// What calls cost beside the work of who answers: the network, both stacks, retries.
fn hop_tax() -> Query {
    made().quantile(0.95, ["rpc.method"]) - answered().quantile(0.95, ["rpc.method"])
}

/// A breaker's or limiter's owner, in the order in which a legend reads best.
const BREAKER: [&str; 4] = ["job", "target", "breaker", "endpoint"];
