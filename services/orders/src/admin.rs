//! Admin endpoints of the saga: invariant audit, stuck orders, manual retry, repair of
//! reservations, and dead-lettered events.

mod reservations;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use http::StatusCode;
use palisade_middleware::clock::{self, Clock};
use serde::Deserialize;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use crate::{
    audit::Audit,
    order::OrderId,
    repair::Repair,
    store::{DeadEvent, Error, QuarantinedOrder, Store, redrive_all},
    watch::OrderWatchers,
};

/// Maximum time for which an unfinished order may remain unchanged. It is listed as stuck
/// afterwards.
const STUCK_AFTER: Duration = Duration::from_secs(30);
/// Number of attempts from which an order is listed as stuck.
const STUCK_ATTEMPTS: u32 = 5;
const MAX_STUCK_LISTED: u32 = 100;
const MAX_DEAD_LISTED: u32 = 100;

/// State of the admin endpoints.
#[derive(Clone)]
pub struct AdminState {
    /// Order store.
    pub store: Arc<dyn Store>,
    /// Watchers, to wake the relay after a redrive.
    pub watchers: OrderWatchers,
    /// Audit of the invariants.
    pub audit: Audit,
    /// Repair of reservations.
    pub repair: Repair,
    /// Source of the current time.
    pub clock: Arc<dyn Clock>,
}

/// Routes `GET /invariants`, `POST /reservations/{id}/repair`, `GET /saga/stuck`,
/// `GET /saga/quarantine`, `POST /saga/retry/{id}`, `GET /events/dead`, `POST /events/redrive` and
/// `DELETE /events/relay`.
pub fn router(state: AdminState) -> Router {
    Router::new()
        .route("/invariants", get(invariants))
        .route("/reservations/{id}/repair", post(reservations::repair))
        .route("/saga/stuck", get(stuck))
        .route("/saga/quarantine", get(quarantine))
        .route("/saga/retry/{id}", post(retry))
        .route("/events/dead", get(list_dead_events))
        .route("/events/redrive", post(redrive))
        .route("/events/relay", delete(reset_relay))
        .with_state(state)
}

/// Query of `GET /invariants`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scope {
    /// How far back the audit goes, hours. 0 audits all orders.
    #[serde(default)]
    hours: u32,
}

async fn invariants(State(state): State<AdminState>, Query(Scope { hours }): Query<Scope>) -> Response {
    match state.audit.check(hours).await {
        Ok(report) => {
            // Not checked is not in order.
            let status = if report.is_complete() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            (status, Json(report.body())).into_response()
        }
        Err(error) => unavailable(&error),
    }
}

async fn stuck(State(state): State<AdminState>) -> Response {
    match state.store.stuck(clock::before(state.clock.now(), STUCK_AFTER), STUCK_ATTEMPTS, MAX_STUCK_LISTED).await {
        Err(error) => unavailable(&error),
        Ok(stuck) => {
            let items: Vec<Value> = stuck
                .into_iter()
                .map(|order| {
                    json!({
                        "orderId": order.order_id.to_string(), "status": order.status.as_str(), "releasePending": order.release_pending,
                        "attempts": order.attempts, "lastError": order.last_error,
                        "updatedAt": order.updated_at.format(&Rfc3339).ok(), "dueAt": order.due_at.format(&Rfc3339).ok(),
                    })
                })
                .collect();
            Json(json!({ "items": items })).into_response()
        }
    }
}

async fn quarantine(State(state): State<AdminState>) -> Response {
    match state.store.quarantined(MAX_STUCK_LISTED).await {
        Err(error) => unavailable(&error),
        Ok(orders) => {
            let item = |order: &QuarantinedOrder| json!({ "orderId": order.order_id.to_string(), "reason": order.reason, "since": order.since.format(&Rfc3339).ok() });
            Json(json!({ "items": orders.iter().map(item).collect::<Vec<Value>>() })).into_response()
        }
    }
}

/// Forgets the destination of the events, after the broker was removed from all replicas.
async fn reset_relay(State(state): State<AdminState>) -> Response {
    match state.store.reset_relay().await {
        Ok(()) => {
            tracing::warn!("operator reset the event relay, the next replica to publish decides the destination");
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => unavailable(&error),
    }
}

async fn retry(State(state): State<AdminState>, Path(id): Path<String>) -> Response {
    let Ok(id) = id.parse::<OrderId>() else { return StatusCode::NOT_FOUND.into_response() };
    match state.store.retry_now(id, state.clock.now()).await {
        Ok(true) => StatusCode::ACCEPTED.into_response(),
        Ok(false) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => unavailable(&error),
    }
}

async fn list_dead_events(State(state): State<AdminState>) -> Response {
    match state.store.dead_events(MAX_DEAD_LISTED).await {
        Err(error) => unavailable(&error),
        Ok(dead) => {
            let item = |dead: &DeadEvent| {
                let event = &dead.event;
                json!({
                    "id": event.id.to_string(), "orderId": event.order_id.to_string(), "type": event.kind, "sequence": event.version,
                    "reason": dead.reason, "diedAt": dead.dead_lettered_at.format(&Rfc3339).ok(),
                })
            };
            Json(json!({ "items": dead.iter().map(item).collect::<Vec<Value>>() })).into_response()
        }
    }
}

async fn redrive(State(state): State<AdminState>) -> Response {
    let redriven = redrive_all(&*state.store).await;
    // Even after an error: the events may be redriven.
    state.watchers.notify_outbox();
    match redriven {
        Ok(redriven) => {
            tracing::info!(events = redriven, "dead-lettered events redriven");
            Json(json!({ "redriven": redriven })).into_response()
        }
        Err(error) => unavailable(&error),
    }
}

fn unavailable(error: &Error) -> Response {
    tracing::warn!(error = error as &dyn std::error::Error, "order store unavailable, admin request failed");
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ok": null, "reason": "the order store is unavailable" }))).into_response()
}
