//! Stock audit on the admin port: checks the balance of every product and counts overdue holds.

use std::{sync::Arc, time::Duration};

use axum::{Json, Router, extract::State, response::IntoResponse, routing::get};
use http::StatusCode;
use palisade_middleware::{clock::Clock, task};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    config, metrics,
    store::{Audit, Maintenance},
};

/// Returns the admin route `GET /invariants`.
pub fn router(store: Arc<dyn Maintenance>, clock: Arc<dyn Clock>) -> Router {
    Router::new().route("/invariants", get(invariants)).with_state((store, clock))
}

type AuditState = (Arc<dyn Maintenance>, Arc<dyn Clock>);

/// Audits the stock periodically until `stop`, for the metrics.
pub async fn run_audit_loop(store: Arc<dyn Maintenance>, clock: Arc<dyn Clock>, config: config::Audit, stop: CancellationToken) {
    if config.interval_s == 0 {
        return;
    }
    let (store, clock) = (&store, &clock);
    let check = || async move {
        match store.audit(clock.now()).await {
            Ok(audit) => record(&audit),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "stock audit failed"),
        }
    };
    task::run_with_duty_cycle(Duration::from_secs(config.interval_s), stop, check).await;
}

async fn invariants(State((store, clock)): State<AuditState>) -> axum::response::Response {
    match store.audit(clock.now()).await {
        Ok(audit) => {
            record(&audit);
            let violations: Vec<String> = audit.violations.iter().map(ToString::to_string).collect();
            let body = json!({
                "ok": violations.is_empty(), "violations": violations, "productsChecked": audit.products_checked,
                "availableUnits": audit.available_units, "heldUnits": audit.held_units, "confirmedUnits": audit.confirmed_units,
                "outOfStockProducts": audit.out_of_stock_products, "overdueHolds": audit.overdue_holds,
            });
            Json(body).into_response()
        }
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "stock audit failed");
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ok": null, "reason": "the store is unavailable" }))).into_response()
        }
    }
}

fn record(audit: &Audit) {
    for violation in &audit.violations {
        tracing::error!(%violation, "stock invariant violated");
    }
    metrics::record_audit(audit);
}
