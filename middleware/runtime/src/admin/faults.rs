//! Admin API of fault injection: `/faults`.

use axum::{
    Json, Router,
    extract::State,
    routing::{MethodRouter, get},
};
use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use palisade_resilience::{
    fault_injection::{Faults, Rule},
    rejection::{Rejection, reasons},
};

/// Body of `PUT` and of every response, so that a listing can be sent back.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    rules: Vec<Rule>,
}

/// `GET`, `PUT` and `DELETE /faults`.
pub fn routes(faults: Faults) -> Router {
    if !faults.is_enabled() {
        return Router::new();
    }
    let methods: MethodRouter<Faults> = get(list).put(replace).delete(clear);
    Router::new().route("/faults", methods).with_state(faults)
}

async fn list(State(faults): State<Faults>) -> Json<Rules> {
    Json(Rules { rules: faults.rules() })
}

/// Ignores the content type, because `curl -d` sends that of a form.
async fn replace(State(faults): State<Faults>, body: Bytes) -> Result<Json<Rules>, Rejection> {
    // The client operates this process: the parser's message names the fields of our own API and
    // helps.
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
