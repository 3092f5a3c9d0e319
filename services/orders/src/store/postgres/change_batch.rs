//! Writes a batch of status changes in one statement.

use std::{collections::HashSet, sync::Arc};

use palisade_middleware::{
    auth::Subject,
    group_commit::{BatchResult, BatchWriter},
};
use sqlx::Postgres;
use uuid::Uuid;

use crate::{
    order::FailureReason,
    store::{
        batches::ChangeRow,
        change::Change,
        database::{BatchFailure, Pool},
    },
};

/// Compare-and-set on version and fence: updates an order only if it is unchanged and the lease is
/// valid. All other writes of the order depend on that update. Of two changes of the same order in
/// one batch, one is written and the other is lost like a concurrent one.
const CHANGE: &str = "
    WITH item AS MATERIALIZED (
        SELECT * FROM UNNEST(
            $1::bigint[], $2::uuid[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::bigint[], $8::timestamptz[], $9::boolean[],
            $10::boolean[], $11::timestamptz[], $12::bigint[], $13::bigint[], $14::text[], $15::text[], $16::bytea[]
        ) AS item (
            n, id, old_version, version, status, failure_reason, total_minor, updated_at, release_pending,
            keeps_lease, due_at, fence, attempts, subject, key, response
        )
    ), changed AS (
        UPDATE orders SET
            status = item.status, failure_reason = item.failure_reason, total_minor = item.total_minor, version = item.version,
            updated_at = item.updated_at, release_pending = item.release_pending,
            due_at = CASE WHEN item.keeps_lease THEN orders.due_at ELSE item.due_at END,
            fence = CASE WHEN item.fence IS NULL THEN orders.fence + 1 ELSE orders.fence END,
            attempts = item.attempts, last_error = NULL, revision = NULL
        FROM item
        WHERE orders.id = item.id AND orders.version = item.old_version AND (item.fence IS NULL OR orders.fence = item.fence)
        RETURNING item.n, orders.id, orders.trace_parent
    ), priced AS (
        UPDATE order_lines SET name = line.name, unit_price_minor = line.price
        FROM UNNEST($17::bigint[], $18::uuid[], $19::text[], $20::bigint[]) AS line (n, product_id, name, price)
        JOIN changed ON changed.n = line.n
        WHERE order_lines.order_id = changed.id AND order_lines.product_id = line.product_id
    ), step AS MATERIALIZED (
        SELECT step.*, changed.id, changed.trace_parent
        FROM UNNEST(
            $21::bigint[], $22::bigint[], $23::text[], $24::text[], $25::text[], $26::text[], $27::timestamptz[],
            $28::uuid[], $29::text[], $30::text[], $31::text[], $32::text[]
        ) AS step (n, version, from_status, to_status, reason, actor, at, event_id, kind, payload, actor_subject, actor_service)
        JOIN changed ON changed.n = step.n
    ), history AS (
        INSERT INTO order_history (order_id, version, from_status, to_status, reason, actor, actor_subject, actor_service, at)
        SELECT id, version, from_status, to_status, reason, actor, actor_subject, actor_service, at FROM step ORDER BY id, version
    ), event AS (
        INSERT INTO outbox (event_id, order_id, version, kind, payload, trace_parent, created_at)
        SELECT event_id, id, version, kind, payload, trace_parent, at FROM step ORDER BY id, version
    ), response AS (
        UPDATE idempotency_keys SET answer = item.response
        FROM item JOIN changed ON changed.n = item.n
        WHERE idempotency_keys.subject = item.subject AND idempotency_keys.key = item.key
          AND idempotency_keys.order_id = item.id AND idempotency_keys.answer IS NULL
    )
    SELECT n FROM changed";

/// Writer of batches of status changes.
#[derive(Debug)]
pub(super) struct ChangeWriter {
    pub(super) pool: Arc<Pool<Postgres>>,
}

impl BatchWriter for ChangeWriter {
    type Item = ChangeRow;
    /// Whether the order was updated.
    type Output = bool;
    type Error = BatchFailure;

    async fn write(&self, items: &[ChangeRow]) -> BatchResult<Self> {
        super::with_retries(|| self.write_once(items)).await
    }
}

impl ChangeWriter {
    async fn write_once(&self, items: &[ChangeRow]) -> BatchResult<Self> {
        let mut db = self.pool.acquire().await.map_err(BatchFailure::unknown)?;
        let numbered: Vec<(i64, &ChangeRow)> = (0..).zip(items).collect();
        let changes = || items.iter().map(|item| &item.change);
        let responses = || items.iter().map(|item| item.response.as_ref());
        let lines: Vec<_> = numbered
            .iter()
            .filter(|(_, item)| item.change.sets_prices)
            .flat_map(|(n, item)| item.change.order.lines.iter().filter_map(|line| Some((*n, line.product_id, line.snapshot.as_ref()?))))
            .collect();
        let steps: Vec<_> = numbered.iter().flat_map(|(n, item)| item.change.steps.iter().map(|step| (*n, &item.change, step))).collect();
        let updated: Vec<i64> = sqlx::query_scalar(CHANGE)
            .bind(numbered.iter().map(|(n, _)| *n).collect::<Vec<_>>())
            .bind(changes().map(|change| change.order.id.as_uuid()).collect::<Vec<_>>())
            .bind(changes().map(Change::old_version).collect::<Vec<_>>())
            .bind(changes().map(|change| change.order.version).collect::<Vec<_>>())
            .bind(changes().map(|change| change.order.status.as_str()).collect::<Vec<_>>())
            .bind(changes().map(|change| change.order.failure_reason.map(FailureReason::as_str)).collect::<Vec<_>>())
            .bind(changes().map(|change| change.order.total_minor).collect::<Vec<_>>())
            .bind(changes().map(|change| change.order.updated_at).collect::<Vec<_>>())
            .bind(changes().map(|change| change.release).collect::<Vec<_>>())
            .bind(changes().map(|change| change.keeps_lease).collect::<Vec<_>>())
            .bind(changes().map(|change| change.due_at).collect::<Vec<_>>())
            .bind(changes().map(|change| change.fence).collect::<Vec<_>>())
            .bind(changes().map(|change| change.attempts).collect::<Vec<_>>())
            .bind(responses().map(|response| Some(response?.key.subject.as_str())).collect::<Vec<_>>())
            .bind(responses().map(|response| Some(response?.key.key.as_str())).collect::<Vec<_>>())
            .bind(responses().map(|response| Some(&response?.bytes[..])).collect::<Vec<_>>())
            .bind(lines.iter().map(|(n, ..)| *n).collect::<Vec<_>>())
            .bind(lines.iter().map(|(_, product_id, _)| *product_id).collect::<Vec<Uuid>>())
            .bind(lines.iter().map(|(.., snapshot)| snapshot.name.as_str()).collect::<Vec<_>>())
            .bind(lines.iter().map(|(.., snapshot)| snapshot.unit_price_minor).collect::<Vec<_>>())
            .bind(steps.iter().map(|(n, ..)| *n).collect::<Vec<_>>())
            .bind(steps.iter().map(|(.., step)| step.version).collect::<Vec<_>>())
            .bind(steps.iter().map(|(.., step)| step.from.as_str()).collect::<Vec<_>>())
            .bind(steps.iter().map(|(.., step)| step.to.as_str()).collect::<Vec<_>>())
            .bind(steps.iter().map(|(.., step)| step.reason.map(FailureReason::as_str)).collect::<Vec<_>>())
            .bind(steps.iter().map(|(_, change, _)| change.by.role.as_str()).collect::<Vec<_>>())
            .bind(steps.iter().map(|(_, change, _)| change.order.updated_at).collect::<Vec<_>>())
            .bind(steps.iter().map(|(.., step)| step.event.event_id).collect::<Vec<_>>())
            .bind(steps.iter().map(|(.., step)| step.event.kind.as_str()).collect::<Vec<_>>())
            .bind(steps.iter().map(|(.., step)| step.event.payload.as_str()).collect::<Vec<_>>())
            .bind(steps.iter().map(|(_, change, _)| change.by.subject.as_ref().map(Subject::as_str)).collect::<Vec<_>>())
            .bind(steps.iter().map(|(_, change, _)| change.by.service.as_deref()).collect::<Vec<_>>())
            .fetch_all(&mut *db)
            .await
            .map_err(BatchFailure::from_statement)?;
        let updated: HashSet<i64> = updated.into_iter().collect();
        Ok(numbered.iter().map(|(n, _)| Ok(updated.contains(n))).collect())
    }
}
