//! Repair of one reservation, by an operator.

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::{AdminState, unavailable};
use crate::{order::OrderId, repair::RepairOutcome};

/// Maximum length of a reason or an operator's name, bytes.
const MAX_TEXT_BYTES: usize = 500;

/// Body of `POST /reservations/{id}/repair`, for the log.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    /// Name of the operator.
    operator: String,
    /// Reason of the repair.
    reason: String,
}

/// Makes a reservation agree with its order, and logs the operator and the reason.
pub(super) async fn repair(State(state): State<AdminState>, Path(id): Path<String>, Json(request): Json<Request>) -> Response {
    let Ok(id) = id.parse::<OrderId>() else { return StatusCode::NOT_FOUND.into_response() };
    let Request { operator, reason } = request;
    if [&operator, &reason].iter().any(|text| text.trim().is_empty() || text.len() > MAX_TEXT_BYTES) {
        let body = json!({ "reason": format!("operator and reason are required, at most {MAX_TEXT_BYTES} bytes each") });
        return (StatusCode::BAD_REQUEST, Json(body)).into_response();
    }
    let (status, outcome) = match state.repair.repair(id).await {
        Ok(Some(repaired)) => repaired,
        Ok(None) => return StatusCode::NOT_FOUND.into_response(),
        Err(error) => return unavailable(&error),
    };
    let order_status = status.map(crate::order::Status::as_str);
    let refusal = if let RepairOutcome::Refused(reason) = outcome { Some(reason) } else { None };
    tracing::warn!(
        order_id = %id, status = order_status, outcome = outcome.as_str(), refusal, operator, reason,
        "operator repaired a reservation"
    );
    let code = match outcome {
        RepairOutcome::Refused(_) => StatusCode::CONFLICT,
        RepairOutcome::Unknown => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    let body = json!({ "id": id.to_string(), "orderStatus": order_status, "outcome": outcome.as_str(), "reason": refusal });
    (code, Json(body)).into_response()
}
