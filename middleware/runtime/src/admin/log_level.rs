//! Admin API of the log level of a process.

use axum::{Json, Router, body::Bytes, extract::State, routing::get};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::telemetry::Telemetry;
use palisade_resilience::rejection::{Rejection, reasons};

/// Longest filter, bytes.
const MAX_FILTER: usize = 1_024;

/// Body of a `PUT`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Command {
    /// At most [`MAX_FILTER`] bytes.
    filter: String,
}

/// `GET /log-level` and `PUT /log-level`: the log filter, as in `telemetry.log_filter`. Changes
/// apply to all services of the process and end with it.
pub(super) fn routes(telemetry: Telemetry) -> Router {
    Router::new().route("/log-level", get(show).put(update)).with_state(telemetry)
}

async fn show(State(telemetry): State<Telemetry>) -> Json<Value> {
    Json(json!({ "filter": telemetry.log_filter() }))
}

async fn update(State(telemetry): State<Telemetry>, body: Bytes) -> Result<Json<Value>, Rejection> {
    let invalid = || Rejection::new(&reasons::INVALID_BODY, "expected {\"filter\": \"info,palisade_orders=debug\"}");
    let Command { filter } = serde_json::from_slice(&body).map_err(|_| invalid())?;
    if filter.len() > MAX_FILTER {
        return Err(invalid());
    }
    telemetry.set_log_filter(&filter).map_err(|_| invalid())?;
    tracing::warn!(filter, "log filter set by operator");
    Ok(show(State(telemetry)).await)
}
