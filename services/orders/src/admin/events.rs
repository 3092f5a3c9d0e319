//! Admin endpoints for dead-lettered events: list and redrive.

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::{AdminState, unavailable};

const MAX_LISTED: u32 = 100;

pub(super) fn router() -> Router<AdminState> {
    Router::new().route("/events/dead", get(list_dead_events)).route("/events/redrive", post(redrive))
}

async fn list_dead_events(State(state): State<AdminState>) -> Response {
    match state.store.dead_events(MAX_LISTED).await {
        Err(error) => unavailable(&error),
        Ok(dead) => {
            let items = dead.iter().map(|dead| {
                json!({
                    "id": dead.event.id.to_string(), "orderId": dead.event.order_id.to_string(), "type": dead.event.kind, "sequence": dead.event.version,
                    "reason": dead.reason, "diedAt": dead.dead_lettered_at.format(&Rfc3339).ok(),
                })
            });
            Json(json!({ "items": items.collect::<Vec<Value>>() })).into_response()
        }
    }
}

async fn redrive(State(state): State<AdminState>) -> Response {
    match state.store.redrive().await {
        Ok(redriven) => {
            tracing::info!(events = redriven, "dead-lettered events redriven");
            Json(json!({ "redriven": redriven })).into_response()
        }
        Err(error) => unavailable(&error),
    }
}
