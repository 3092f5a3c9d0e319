//! The saga's tools on the admin port: are all invariants kept, which orders do not move, try this one again; and those of its events.

mod events;

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::StatusCode;
use palisade_middleware::{
    auth::Principal,
    clock::Clock,
    context::{self, Context},
};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    metrics,
    order::{OrderId, Status},
    products::Products,
    store::{Error, Standing, Store},
};

/// A due order that no worker took up for this long is a finding.
const OVERDUE_AFTER: Duration = Duration::from_mins(1);
/// An order that did not move for this long is listed as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(30);
/// As is one that was tried this often.
const STUCK_ATTEMPTS: u32 = 5;
const STUCK_LISTED: u32 = 100;
const RESERVATIONS_PER_PAGE: u32 = 500;
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);

/// What the tools work with.
#[derive(Clone)]
pub struct Tools {
    /// Where orders are kept.
    pub store: Arc<dyn Store>,
    /// Where reservations are kept.
    pub products: Products,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

/// `GET /invariants`, `GET /saga/stuck`, `POST /saga/retry/{id}`, `GET /events/dead`, `POST /events/redrive`.
pub fn router(tools: Tools) -> Router {
    Router::new()
        .route("/invariants", get(invariants))
        .route("/saga/stuck", get(stuck))
        .route("/saga/retry/{id}", post(retry))
        .merge(events::router())
        .with_state(tools)
}

async fn invariants(State(tools): State<Tools>) -> Response {
    match tools.check().await {
        Ok(report) => Json(report).into_response(),
        Err(error) => unavailable(&error),
    }
}

/// How often the gauges are brought up to date without anybody asking.
const CHECK_EVERY: Duration = Duration::from_mins(1);

/// Checks the invariants again and again until `stop`, for the metrics.
pub async fn watch(tools: Tools, stop: CancellationToken) {
    let mut ticks = interval(CHECK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if let Err(error) = tools.check().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the invariants could not be checked");
        }
    }
}

struct Compared {
    checked: u64,
    violations: Vec<String>,
}

impl Tools {
    /// Everything that must hold, as the body of `GET /invariants` and as a gauge.
    async fn check(&self) -> Result<Value, Error> {
        let audit = self.store.audit(self.clock.now(), OVERDUE_AFTER).await?;
        let mut violations: Vec<String> = audit.findings.iter().map(ToString::to_string).collect();
        let context = Context::background().on_behalf_of(Arc::new(Principal::absent_user("orders"))).until(Instant::now() + CHECK_TIMEOUT);
        let reservations = match context::scope(context, self.compare_reservations()).await {
            Ok(found) => {
                violations.extend(found.violations);
                json!({ "checked": found.checked })
            }
            Err(reason) => json!({ "checked": null, "reason": reason }),
        };
        for violation in &violations {
            tracing::error!(%violation, "an invariant is broken");
        }
        metrics::audited(violations.len());
        let counts: HashMap<&str, u64> = audit.counts.iter().map(|(status, count)| (status.as_str(), *count)).collect();
        Ok(json!({ "ok": violations.is_empty(), "violations": violations, "orders": counts, "reservations": reservations }))
    }

    /// Every reservation that owns units has an order that wants them. Asked of products, page by page.
    async fn compare_reservations(&self) -> Result<Compared, String> {
        let mut compared = Compared { checked: 0, violations: Vec::new() };
        let mut after = None;
        loop {
            let page = self.products.open_reservations(after, RESERVATIONS_PER_PAGE).await;
            let page = page.map_err(|status| format!("products answers {:?}", status.code()))?;
            let Some((last, _)) = page.last() else { return Ok(compared) };
            after = Some(*last);
            let ids: Vec<OrderId> = page.iter().map(|(id, _)| OrderId::from(*id)).collect();
            // Read after the reservations: an order is there before its reservation and only then moves on.
            let standings = self.store.standings(&ids).await.map_err(|error| error.to_string())?;
            let standings: HashMap<Uuid, Standing> =
                standings.into_iter().map(|standing| (standing.order_id.as_uuid(), standing)).collect();
            for (id, confirmed) in page {
                compared.checked += 1;
                // What changed between the two readings is no finding: once it is over, both stores agree.
                if disagreement(id, confirmed, standings.get(&id)).is_some()
                    && let Some(violation) = self.disagreement_now(id).await?
                {
                    compared.violations.push(violation);
                }
            }
        }
    }

    /// As [`disagreement`] of one reservation and its order as they are now; none if the reservation is no longer open.
    async fn disagreement_now(&self, id: Uuid) -> Result<Option<String>, String> {
        let before = Uuid::from_u128(id.as_u128().saturating_sub(1));
        let page = self.products.open_reservations(Some(before), 1).await;
        let page = page.map_err(|status| format!("products answers {:?}", status.code()))?;
        let Some((_, confirmed)) = page.into_iter().find(|(open, _)| *open == id) else { return Ok(None) };
        let standings = self.store.standings(&[OrderId::from(id)]).await.map_err(|error| error.to_string())?;
        Ok(disagreement(id, confirmed, standings.first()))
    }
}

fn disagreement(id: Uuid, confirmed: bool, standing: Option<&Standing>) -> Option<String> {
    let Some(standing) = standing else { return Some(format!("reservation {id} has no order")) };
    let wanted = match standing.status {
        Status::Pending => !confirmed,
        // The order can be one step behind what products has, never the other way round.
        Status::ProductReserved | Status::Confirmed | Status::Completed => true,
        Status::Failed | Status::Cancelled => false,
    };
    let agreed = wanted || standing.release_pending;
    (!agreed).then(|| format!("order {id} is {} without a release queued, its reservation still owns units", standing.status.as_str()))
}

async fn stuck(State(tools): State<Tools>) -> Response {
    match tools.store.stuck(tools.clock.now() - STUCK_AFTER, STUCK_ATTEMPTS, STUCK_LISTED).await {
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

async fn retry(State(tools): State<Tools>, Path(id): Path<String>) -> Response {
    let Ok(id) = id.parse::<OrderId>() else { return StatusCode::NOT_FOUND.into_response() };
    match tools.store.retry_now(id, tools.clock.now()).await {
        Ok(true) => StatusCode::ACCEPTED.into_response(),
        Ok(false) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => unavailable(&error),
    }
}

fn unavailable(error: &Error) -> Response {
    tracing::warn!(error = error as &dyn std::error::Error, "the store gave the admin port no answer");
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ok": null, "reason": "the store does not answer" }))).into_response()
}
