//! Invariant audit and statistics in PostgreSQL.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    order::OrderId,
    store::{
        Audit, Error, Finding, Invariant, SagaStatus, Stats,
        audit::{self, CHECKS, COUNTS, OVERDUE, STATS},
    },
};

pub(super) async fn audit(
    db: &mut PgConnection,
    now: OffsetDateTime,
    overdue_after: Duration,
    since: Option<OffsetDateTime>,
) -> Result<Audit, Error> {
    let first_id = audit::first_id(since);
    // All checks must see the same snapshot. Otherwise orders that change between two checks would
    // look inconsistent.
    let mut transaction = db.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    // The audit reads everything, and no request waits for it.
    sqlx::query("SET LOCAL statement_timeout = '30s'").execute(&mut *transaction).await?;
    let overdue = sqlx::query_scalar(OVERDUE).bind(now - overdue_after).bind(Audit::MAX_FINDINGS).fetch_all(&mut *transaction).await?;
    let mut findings: Vec<Finding> = audit::findings(Invariant::NotOverdue, overdue).collect();
    for (invariant, check) in CHECKS {
        let violating = sqlx::query_scalar(check).bind(Audit::MAX_FINDINGS).bind(first_id).fetch_all(&mut *transaction).await?;
        findings.extend(audit::findings(invariant, violating));
    }
    let counts = audit::counts(sqlx::query_as(COUNTS).bind(first_id).fetch_all(&mut *transaction).await?)?;
    transaction.commit().await?;
    Ok(Audit { counts, findings })
}

pub(super) async fn saga_statuses(db: &mut PgConnection, ids: &[OrderId]) -> Result<Vec<SagaStatus>, Error> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
    let rows = sqlx::query_as("SELECT id, status, release_pending FROM orders WHERE id = ANY($1)").bind(ids).fetch_all(db).await?;
    audit::saga_statuses(rows)
}

pub(super) async fn stats(db: &mut PgConnection, now: OffsetDateTime) -> Result<Stats, Error> {
    Stats::from_rows(sqlx::query_as(STATS).fetch_all(db).await?, now)
}
