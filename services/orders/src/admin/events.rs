//! Events that the broker refused so often that they were put aside: which, why, and try them again.

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::{Tools, unavailable};

const LISTED: u32 = 100;

pub(super) fn router() -> Router<Tools> {
    Router::new().route("/events/dead", get(dead)).route("/events/redrive", post(redrive))
}

async fn dead(State(tools): State<Tools>) -> Response {
    match tools.store.dead_events(LISTED).await {
        Err(error) => unavailable(&error),
        Ok(dead) => {
            let items = dead.iter().map(|dead| {
                json!({
                    "id": dead.event.id.to_string(), "orderId": dead.event.order_id.to_string(), "type": dead.event.kind, "sequence": dead.event.version,
                    "reason": dead.reason, "diedAt": dead.died_at.format(&Rfc3339).ok(),
                })
            });
            Json(json!({ "items": items.collect::<Vec<Value>>() })).into_response()
        }
    }
}

async fn redrive(State(tools): State<Tools>) -> Response {
    match tools.store.redrive().await {
        Ok(redriven) => {
            tracing::info!(events = redriven, "dead events are tried again");
            Json(json!({ "redriven": redriven })).into_response()
        }
        Err(error) => unavailable(&error),
    }
}
