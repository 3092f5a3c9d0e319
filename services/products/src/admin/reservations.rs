//! Open reservations for operators: list, quarantine, and release of a reservation whose order no
//! longer exists, e.g. after a backup of orders was restored.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use http::StatusCode;
use palisade_middleware::clock::Clock;
use serde::Deserialize;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::{AdminState, unavailable};
use crate::{
    metrics,
    reservation::{Reservation, State as ReservationState},
    store::{Quarantined, Store},
};

/// Maximum number of reservations per answer.
const MAX_LISTED: u32 = 100;
/// Maximum length of a reason or an operator's name, bytes.
const MAX_TEXT_BYTES: usize = 500;

pub(super) fn router(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Router {
    Router::new()
        .route("/reservations", get(list))
        .route("/reservations/{id}/release", post(release))
        .route("/reservations/quarantine", get(quarantine))
        .route("/reservations/quarantine/{id}", delete(end_quarantine))
        .with_state((store, clock))
}

/// Query of `GET /reservations`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    /// Id after which the page starts.
    #[serde(default)]
    after: Option<Uuid>,
}

/// Body of `POST /reservations/{id}/release`, for the log.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    /// Name of the operator.
    operator: String,
    /// Reason of the release.
    reason: String,
}

/// Lists the reservations that own units, by id, which is the id of the order.
async fn list(State((store, _)): State<AdminState>, Query(Page { after }): Query<Page>) -> Response {
    match store.list_reservations(after, MAX_LISTED).await {
        Err(error) => unavailable(&error),
        Ok(open) => {
            let next = open.last().filter(|_| open.len() == MAX_LISTED as usize).map(|last| last.id.to_string());
            Json(json!({ "items": open.iter().map(item).collect::<Vec<Value>>(), "next": next })).into_response()
        }
    }
}

fn item(reservation: &Reservation) -> Value {
    let line = |line: &crate::reservation::HeldLine| json!({ "productId": line.product_id.to_string(), "quantity": line.quantity });
    json!({
        "id": reservation.id.to_string(), "state": reservation.state.as_str(), "expiresAt": reservation.expires_at.format(&Rfc3339).ok(),
        "lines": reservation.lines.iter().map(line).collect::<Vec<Value>>(),
    })
}

/// Releases an open reservation and logs who did it and why. The order of the reservation, if it
/// exists, loses its stock: the audit of orders reports it.
async fn release(State((store, clock)): State<AdminState>, Path(id): Path<Uuid>, Json(request): Json<Release>) -> Response {
    let Release { operator, reason } = request;
    if [&operator, &reason].iter().any(|text| text.trim().is_empty() || text.len() > MAX_TEXT_BYTES) {
        let body = json!({ "reason": format!("operator and reason are required, at most {MAX_TEXT_BYTES} bytes each") });
        return (StatusCode::BAD_REQUEST, Json(body)).into_response();
    }
    // Only an open reservation: for an unknown id, a release would leave a tombstone that rejects a
    // later order.
    let previous = Uuid::from_u128(id.as_u128().saturating_sub(1));
    let found = match store.list_reservations(Some(previous), 1).await {
        Ok(open) => open.into_iter().find(|open| open.id == id),
        Err(error) => return unavailable(&error),
    };
    let Some(before) = found else { return StatusCode::NOT_FOUND.into_response() };
    match store.release(id, clock.now()).await {
        Ok(released) if released.state == ReservationState::Released => {
            metrics::record_release();
            let units: i64 = released.lines.iter().map(|line| line.quantity).sum();
            tracing::warn!(reservation_id = %id, state = before.state.as_str(), units, operator, reason, "operator released a reservation");
            Json(json!({ "released": item(&released), "previousState": before.state.as_str() })).into_response()
        }
        Ok(other) => {
            (StatusCode::CONFLICT, Json(json!({ "reason": "the reservation has ended", "state": other.state.as_str() }))).into_response()
        }
        Err(error) => unavailable(&error),
    }
}

async fn quarantine(State((store, _)): State<AdminState>) -> Response {
    match store.quarantined(MAX_LISTED).await {
        Err(error) => unavailable(&error),
        Ok(entries) => {
            let item = |entry: &Quarantined| json!({ "id": entry.reservation_id.to_string(), "reason": entry.reason, "since": entry.since.format(&Rfc3339).ok() });
            Json(json!({ "items": entries.iter().map(item).collect::<Vec<Value>>() })).into_response()
        }
    }
}

async fn end_quarantine(State((store, _)): State<AdminState>, Path(id): Path<Uuid>) -> Response {
    match store.end_quarantine(id).await {
        Ok(true) => StatusCode::NO_CONTENT.into_response(),
        Ok(false) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => unavailable(&error),
    }
}
