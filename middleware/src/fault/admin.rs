//! `/faults` on the admin port.

use axum::{
    Json, Router,
    extract::State,
    routing::{MethodRouter, get},
};
use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{Faults, Rule};
use crate::rejection::{Rejection, reasons};

/// The body of `PUT`, and of every answer: what was shown can be put back.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    rules: Vec<Rule>,
}

/// `GET`, `PUT` and `DELETE /faults`.
pub(super) fn routes(faults: Faults) -> Router {
    let methods: MethodRouter<Faults> = get(list).put(replace).delete(clear);
    Router::new().route("/faults", methods).with_state(faults)
}

async fn list(State(faults): State<Faults>) -> Json<Rules> {
    Json(Rules { rules: faults.rules() })
}

/// Whatever its content type: what `curl -d` sends says form.
async fn replace(State(faults): State<Faults>, body: Bytes) -> Result<Json<Rules>, Rejection> {
    // Who asks runs the process: the parser's words name our own fields, and are what helps.
    let Rules { rules } = serde_json::from_slice(&body).map_err(|error| Rejection::new(&reasons::INVALID_BODY, error.to_string()))?;
    faults.replace(rules)?;
    Ok(list(State(faults)).await)
}

async fn clear(State(faults): State<Faults>) -> Result<StatusCode, Rejection> {
    faults.replace(Vec::new())?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests;
