//! Admin endpoints of the saga: invariant audit, stuck orders, manual retry, and dead-lettered
//! events.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::StatusCode;
use palisade_middleware::{
    auth::Principal,
    clock::Clock,
    context::{self, Context},
    task,
};
use serde::Deserialize;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    config, metrics,
    order::{self, OrderId, Status},
    products::Products,
    store::{DeadEvent, Error, SagaStatus, Store},
    watch::OrderWatchers,
};

/// Maximum time for which a due order may remain unclaimed. The audit reports it afterwards.
const OVERDUE_AFTER: Duration = Duration::from_mins(1);
/// Maximum time for which an unfinished order may remain unchanged. It is listed as stuck
/// afterwards.
const STUCK_AFTER: Duration = Duration::from_secs(30);
/// Number of attempts from which an order is listed as stuck.
const STUCK_ATTEMPTS: u32 = 5;
const MAX_STUCK_LISTED: u32 = 100;
const MAX_DEAD_LISTED: u32 = 100;
const RESERVATIONS_PER_PAGE: u32 = 500;
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);

/// State of the admin endpoints.
#[derive(Clone)]
pub struct AdminState {
    /// Order store.
    pub store: Arc<dyn Store>,
    /// Watchers, to wake the relay after a redrive.
    pub watchers: OrderWatchers,
    /// Products client, for the list of open reservations.
    pub products: Products,
    /// Source of the current time.
    pub clock: Arc<dyn Clock>,
}

/// Routes `GET /invariants`, `GET /saga/stuck`, `POST /saga/retry/{id}`, `GET /events/dead` and
/// `POST /events/redrive`.
pub fn router(state: AdminState) -> Router {
    Router::new()
        .route("/invariants", get(invariants))
        .route("/saga/stuck", get(stuck))
        .route("/saga/retry/{id}", post(retry))
        .route("/events/dead", get(list_dead_events))
        .route("/events/redrive", post(redrive))
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

/// Result of an audit.
struct Report {
    violations: usize,
    /// Response body of `GET /invariants`.
    body: Value,
}

async fn invariants(State(state): State<AdminState>, Query(Scope { hours }): Query<Scope>) -> Response {
    match state.check(hours).await {
        Ok(report) => Json(report.body).into_response(),
        Err(error) => unavailable(&error),
    }
}

/// Audits the invariants periodically until `stop` and sets the metric. Audits on request do not
/// set it, because their scope may differ.
pub async fn run_audit_loop(state: AdminState, config: config::Audit, stop: CancellationToken) {
    if config.interval_s == 0 {
        return;
    }
    let state = &state;
    let check = || async move {
        match state.check(config.lookback_hours).await {
            Ok(report) => metrics::record_audit(report.violations),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "invariant audit failed"),
        }
    };
    task::run_with_duty_cycle(Duration::from_secs(config.interval_s), stop, check).await;
}

/// Returns the preceding UUID. Lists start after a given id, so that this includes `id` itself.
fn previous_uuid(id: Uuid) -> Uuid {
    Uuid::from_u128(id.as_u128().saturating_sub(1))
}

struct ReservationAudit {
    checked: u64,
    violations: Vec<String>,
}

impl AdminState {
    /// Audits the orders of the last `hours` hours; 0 audits all orders.
    async fn check(&self, hours: u32) -> Result<Report, Error> {
        let now = self.clock.now();
        let since = Some(hours).filter(|hours| *hours > 0).and_then(|hours| now.checked_sub(time::Duration::hours(hours.into())));
        let audit = self.store.audit(now, OVERDUE_AFTER, since).await?;
        let mut violations: Vec<String> = audit.findings.iter().map(ToString::to_string).collect();
        let context =
            Context::background().on_behalf_of(Arc::new(Principal::on_behalf_of("orders"))).with_deadline(Instant::now() + CHECK_TIMEOUT);
        let reservations = match context::scope(context, self.compare_reservations(since)).await {
            Ok(audit) => {
                violations.extend(audit.violations);
                json!({ "checked": audit.checked })
            }
            Err(reason) => json!({ "checked": null, "reason": reason }),
        };
        for violation in &violations {
            tracing::error!(%violation, "invariant violated");
        }
        let counts: HashMap<&str, u64> = audit.counts.iter().map(|(status, count)| (status.as_str(), *count)).collect();
        let body = json!({ "ok": violations.is_empty(), "violations": violations, "orders": counts, "reservations": reservations });
        Ok(Report { violations: violations.len(), body })
    }

    /// Checks that each reservation that owns units belongs to an order that needs them. Lists the
    /// open reservations of products page by page; a reservation has the id of its order.
    async fn compare_reservations(&self, since: Option<OffsetDateTime>) -> Result<ReservationAudit, String> {
        let mut audit = ReservationAudit { checked: 0, violations: Vec::new() };
        let mut after = since.map(|since| previous_uuid(order::min_uuid_at(since)));
        loop {
            let page = self.products.open_reservations(after, RESERVATIONS_PER_PAGE).await;
            let page = page.map_err(|status| format!("products returned {:?}", status.code()))?;
            let Some((last, _)) = page.last() else { return Ok(audit) };
            after = Some(*last);
            let ids: Vec<OrderId> = page.iter().map(|(id, _)| OrderId::from(*id)).collect();
            // Read the orders after their reservations: an order exists before its reservation, and
            // only then changes its status.
            let statuses = self.store.saga_statuses(ids).await.map_err(|error| error.to_string())?;
            let statuses: HashMap<Uuid, SagaStatus> = statuses.into_iter().map(|status| (status.order_id.as_uuid(), status)).collect();
            for (id, confirmed) in page {
                audit.checked += 1;
                // A change between the two reads is not a violation: on a second read both stores
                // agree.
                if reservation_mismatch(id, confirmed, statuses.get(&id)).is_some()
                    && let Some(violation) = self.recheck_mismatch(id).await?
                {
                    audit.violations.push(violation);
                }
            }
        }
    }

    /// Reads one reservation and its order again and returns their [`reservation_mismatch`].
    /// Returns `None` if the reservation is no longer open.
    async fn recheck_mismatch(&self, id: Uuid) -> Result<Option<String>, String> {
        let page = self.products.open_reservations(Some(previous_uuid(id)), 1).await;
        let page = page.map_err(|status| format!("products returned {:?}", status.code()))?;
        let Some((_, confirmed)) = page.into_iter().find(|(open, _)| *open == id) else { return Ok(None) };
        let statuses = self.store.saga_statuses(vec![OrderId::from(id)]).await.map_err(|error| error.to_string())?;
        Ok(reservation_mismatch(id, confirmed, statuses.first()))
    }
}

fn reservation_mismatch(id: Uuid, confirmed: bool, saga: Option<&SagaStatus>) -> Option<String> {
    let Some(saga) = saga else { return Some(format!("reservation {id} has no order")) };
    let needed = match saga.status {
        Status::Pending => !confirmed,
        // The order may be one step behind its reservation, never ahead of it.
        Status::ProductReserved | Status::Confirmed => true,
        Status::Completed => saga.fulfilment_pending,
        Status::Failed | Status::Cancelled => false,
    };
    let consistent = needed || saga.release_pending;
    (!consistent).then(|| {
        format!("order {id} is {} without a pending release or fulfilment, but its reservation still owns units", saga.status.as_str())
    })
}

async fn stuck(State(state): State<AdminState>) -> Response {
    match state.store.stuck(state.clock.now() - STUCK_AFTER, STUCK_ATTEMPTS, MAX_STUCK_LISTED).await {
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
    let redriven = state.store.redrive().await;
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
