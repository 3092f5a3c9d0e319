//! Invariant audit and statistics in SQLite.

use std::time::Duration;

use sqlx::{Connection, SqliteConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::timestamp::{from_ms, to_ms};
use crate::{
    order::OrderId,
    store::{
        Audit, Error, Finding, Invariant, SagaStatus, Stats,
        audit::{self, CHECKS, COUNTS, OVERDUE, STATS},
    },
};

pub(super) async fn audit(
    db: &mut SqliteConnection,
    now: OffsetDateTime,
    overdue_after: Duration,
    since: Option<OffsetDateTime>,
) -> Result<Audit, Error> {
    let first_id = audit::first_id(since);
    // All checks must see the same snapshot. Otherwise orders that change between two checks would
    // look inconsistent.
    let mut transaction = db.begin().await?;
    let overdue =
        sqlx::query_scalar(OVERDUE).bind(to_ms(now - overdue_after)).bind(Audit::MAX_FINDINGS).fetch_all(&mut *transaction).await?;
    let mut findings: Vec<Finding> = audit::findings(Invariant::NotOverdue, overdue).collect();
    for (invariant, check) in CHECKS {
        let violating = sqlx::query_scalar(check).bind(Audit::MAX_FINDINGS).bind(first_id).fetch_all(&mut *transaction).await?;
        findings.extend(audit::findings(invariant, violating));
    }
    let counts = audit::counts(sqlx::query_as(COUNTS).bind(first_id).fetch_all(&mut *transaction).await?)?;
    transaction.commit().await?;
    Ok(Audit { counts, findings })
}

pub(super) async fn saga_statuses(db: &mut SqliteConnection, ids: &[OrderId]) -> Result<Vec<SagaStatus>, Error> {
    let mut rows = Vec::with_capacity(ids.len());
    for id in ids {
        let row: Option<(Uuid, String, bool)> = sqlx::query_as("SELECT id, status, release_pending FROM orders WHERE id = $1")
            .bind(id.as_uuid())
            .fetch_optional(&mut *db)
            .await?;
        rows.extend(row);
    }
    audit::saga_statuses(rows)
}

pub(super) async fn stats(db: &mut SqliteConnection, now: OffsetDateTime) -> Result<Stats, Error> {
    let rows: Vec<(Option<String>, i64, Option<i64>)> = sqlx::query_as(STATS).fetch_all(db).await?;
    let rows = rows.into_iter().map(|(status, rows, oldest)| Ok((status, rows, oldest.map(from_ms).transpose()?)));
    Stats::from_rows(rows.collect::<Result<_, Error>>()?, now)
}
