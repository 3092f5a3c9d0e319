//! Admin endpoints: stock audit, which checks the balance of every product and counts overdue
//! holds, open reservations, and the event relay.

mod reservations;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use http::StatusCode;
use palisade_middleware::{clock::Clock, job, jobs::Run};
use palisade_store::logged_violations;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{
    config, metrics,
    store::{Audit, Error, Store},
};

/// Routes `GET /invariants`, `GET /reservations`, `POST /reservations/{id}/release`, `GET
/// /reservations/quarantine`, `DELETE /reservations/quarantine/{id}` and `DELETE /events/relay`.
pub fn router(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Router {
    Router::new()
        .route("/invariants", get(invariants))
        .route("/events/relay", delete(reset_relay))
        .with_state((store.clone(), clock.clone()))
        .merge(reservations::router(store, clock))
}

type AdminState = (Arc<dyn Store>, Arc<dyn Clock>);

/// Forgets the destination of the events, after the broker was removed from all replicas.
async fn reset_relay(State((store, _)): State<AdminState>) -> Response {
    match store.reset_relay().await {
        Ok(()) => {
            tracing::warn!("operator reset the event relay, the next replica to publish decides the destination");
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => unavailable(&error),
    }
}

fn unavailable(error: &Error) -> Response {
    tracing::warn!(error = error as &dyn std::error::Error, "product store unavailable, admin request failed");
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ok": null, "reason": "the store is unavailable" }))).into_response()
}

/// Audits the stock periodically until the stop, for the metrics.
pub async fn run_audit_loop(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    config: config::Audit,
    Run { heartbeat, stop }: Run,
) -> job::Result {
    let (store, clock, heartbeat) = (&store, &clock, &heartbeat);
    let check = || async move {
        if let Some(audit) = heartbeat.record(store.audit(clock.now()).await) {
            record(&audit, clock.now());
        } else {
            metrics::forget_audit();
        }
    };
    job::run_with_duty_cycle(Duration::from_secs(config.interval_s), (heartbeat, stop), check).await;
    Ok(())
}

async fn invariants(State((store, clock)): State<AdminState>) -> Response {
    match store.audit(clock.now()).await {
        Ok(audit) => {
            record(&audit, clock.now());
            let violations: Vec<String> = audit.violations.iter().map(ToString::to_string).collect();
            // Unreadable rows were not audited, which is not the same as in order.
            let ok = if violations.is_empty() && audit.unreadable > 0 { Value::Null } else { violations.is_empty().into() };
            let body = json!({
                "ok": ok, "unreadable": audit.unreadable, "violations": violations, "productsChecked": audit.products_checked,
                "availableUnits": audit.available_units, "heldUnits": audit.held_units, "confirmedUnits": audit.confirmed_units,
                "outOfStockProducts": audit.out_of_stock_products, "overdueHolds": audit.overdue_holds,
            });
            Json(body).into_response()
        }
        Err(error) => unavailable(&error),
    }
}

fn record(audit: &Audit, now: OffsetDateTime) {
    let (logged, more) = logged_violations(&audit.violations);
    for violation in logged {
        tracing::error!(%violation, "stock invariant violated");
    }
    if more > 0 {
        tracing::error!(more, "further stock invariants violated");
    }
    metrics::record_audit(audit, now);
}
