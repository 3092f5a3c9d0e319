//! Admin port: liveness, readiness and metrics. Without authentication; never reachable through the
//! public port.

pub mod breakers;
mod exposition;
pub mod faults;
mod hosts;
mod log_level;
mod ports;

use axum::{Json, Router, extract::State, response::IntoResponse, routing::get};
use http::header;
use serde_json::Value;

pub use hosts::AdminHosts;
pub use ports::AdminPorts;

use crate::{health::Readiness, telemetry::Telemetry};
use palisade_resilience::{
    method_table::{Access, Method},
    rejection::{Rejection, reasons},
};

/// Method table entries for the routes of [`probes`].
pub static PROBES: [Method; 2] =
    [Method::http("GET", "/livez", Access::Public).infrastructure(), Method::http("GET", "/readyz", Access::Public).infrastructure()];

/// Probe routes. `GET /livez`: the process runs. `GET /readyz`: whether it accepts requests, and if
/// not, why.
pub fn probes(readiness: Readiness) -> Router {
    Router::new().route("/livez", get(|| async { "ok\n" })).route("/readyz", get(readyz)).with_state(readiness)
}

async fn readyz(State(readiness): State<Readiness>) -> Result<impl IntoResponse, Rejection> {
    let report = readiness.report();
    if report.ready {
        return Ok(([(header::CACHE_CONTROL, "no-store")], Json(report)));
    }
    let detail = if report.draining { "the process is shutting down" } else { "a required dependency is down" };
    Err(Rejection::new(&reasons::NOT_READY, detail)
        .with_metadata("ready", Value::Bool(false))
        .with_metadata("draining", Value::Bool(report.draining))
        .with_metadata("dependencies", serde_json::to_value(&report.dependencies).unwrap_or_default()))
}

/// Builds the admin router of `service`: [`probes`], `GET /metrics`, `/log-level`, and
/// `extra_routes`, for requests to `hosts`.
pub fn router(service: &'static str, hosts: AdminHosts, readiness: Readiness, telemetry: Telemetry, extra_routes: Router) -> Router {
    let routes = probes(readiness)
        .merge(log_level::routes(telemetry.clone()))
        .merge(exposition::route(service, telemetry))
        .merge(extra_routes)
        .fallback(async || Rejection::new(&reasons::NOT_FOUND, "unknown path"))
        .method_not_allowed_fallback(async || Rejection::new(&reasons::METHOD_NOT_ALLOWED, "see the header allow"));
    hosts.guard(routes)
}
