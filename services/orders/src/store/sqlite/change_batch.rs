//! Writes a batch of status changes in one transaction, with one statement per table.

use std::{collections::HashSet, sync::Arc};

use palisade_middleware::{
    auth::Subject,
    group_commit::{BatchResult, BatchWriter},
    planted,
};
use serde::Serialize;
use sqlx::{Connection, Sqlite, SqliteConnection};
use uuid::Uuid;

use super::{
    batch::{self, hex},
    row::to_ms,
};
use crate::{
    order::FailureReason,
    store::{
        batches::ChangeRow,
        change::Change,
        database::{BatchFailure, Pool},
        orders::StoredResponse,
    },
};

/// Compare-and-set on version and fence. Returns the ids of the updated orders.
const UPDATE_ORDERS: &str = "
    UPDATE orders SET
        status = item.status, failure_reason = item.failure_reason, total_minor = item.total_minor, version = item.version,
        updated_at = item.at, release_pending = item.release_pending,
        due_at = CASE WHEN item.keeps_lease THEN orders.due_at ELSE item.due_at END,
        fence = CASE WHEN item.fence IS NULL THEN orders.fence + 1 ELSE orders.fence END,
        attempts = item.attempts, last_error = NULL, revision = NULL
    FROM (
        SELECT unhex(value ->> 'id') AS id, value ->> 'old_version' AS old_version, value ->> 'version' AS version,
               value ->> 'status' AS status, value ->> 'failure_reason' AS failure_reason, value ->> 'total_minor' AS total_minor,
               value ->> 'at' AS at, value ->> 'release_pending' AS release_pending, value ->> 'keeps_lease' AS keeps_lease,
               value ->> 'due_at' AS due_at, value ->> 'fence' AS fence, value ->> 'attempts' AS attempts
        FROM json_each($1)
    ) AS item
    WHERE orders.id = item.id AND orders.version = item.old_version AND (item.fence IS NULL OR orders.fence = item.fence)
    RETURNING id";
const UPDATE_LINES: &str = "
    UPDATE order_lines SET name = item.name, unit_price_minor = item.price
    FROM (
        SELECT unhex(value ->> 'order_id') AS order_id, unhex(value ->> 'product_id') AS product_id,
               value ->> 'name' AS name, value ->> 'price' AS price
        FROM json_each($1)
    ) AS item
    WHERE order_lines.order_id = item.order_id AND order_lines.product_id = item.product_id";
const INSERT_HISTORY: &str = "
    INSERT INTO order_history (order_id, version, from_status, to_status, reason, actor, actor_subject, actor_service, at)
    SELECT unhex(value ->> 'order_id'), value ->> 'version', value ->> 'from', value ->> 'to', value ->> 'reason',
           value ->> 'actor', value ->> 'actor_subject', value ->> 'actor_service', value ->> 'at'
    FROM json_each($1)";
const INSERT_EVENTS: &str = "
    INSERT INTO outbox (event_id, order_id, version, kind, payload, trace_parent, created_at)
    SELECT unhex(value ->> 'event_id'), orders.id, value ->> 'version', value ->> 'kind', value ->> 'payload', orders.trace_parent, value ->> 'at'
    FROM json_each($1) JOIN orders ON orders.id = unhex(value ->> 'order_id')
    ORDER BY json_each.key";
const STORE_RESPONSES: &str = "
    UPDATE idempotency_keys SET answer = item.response
    FROM (
        SELECT value ->> 'subject' AS subject, value ->> 'key' AS key, unhex(value ->> 'order_id') AS order_id,
               unhex(value ->> 'response') AS response
        FROM json_each($1)
    ) AS item
    WHERE idempotency_keys.subject = item.subject AND idempotency_keys.key = item.key
      AND idempotency_keys.order_id = item.order_id AND idempotency_keys.answer IS NULL";

/// Writer of batches of status changes.
#[derive(Debug)]
pub(super) struct ChangeWriter {
    pub(super) pool: Arc<Pool<Sqlite>>,
}

#[derive(Serialize)]
struct OrderRow {
    id: String,
    old_version: i64,
    version: i64,
    status: &'static str,
    failure_reason: Option<&'static str>,
    total_minor: Option<i64>,
    at: i64,
    release_pending: bool,
    keeps_lease: bool,
    due_at: Option<i64>,
    fence: Option<i64>,
    attempts: i64,
}

#[derive(Serialize)]
struct PriceRow<'a> {
    order_id: String,
    product_id: String,
    name: &'a str,
    price: i64,
}

#[derive(Serialize)]
struct StepRow<'a> {
    order_id: String,
    version: i64,
    from: &'static str,
    to: &'static str,
    reason: Option<&'static str>,
    actor: &'static str,
    actor_subject: Option<&'a str>,
    actor_service: Option<&'a str>,
    at: i64,
    event_id: String,
    kind: &'a str,
    payload: &'a str,
}

#[derive(Serialize)]
struct ResponseRow<'a> {
    subject: &'a str,
    key: &'a str,
    order_id: String,
    response: String,
}

impl BatchWriter for ChangeWriter {
    type Item = ChangeRow;
    /// Whether the order was updated.
    type Output = bool;
    type Error = BatchFailure;

    async fn write(&self, items: &[ChangeRow]) -> BatchResult<Self> {
        let mut db = self.pool.acquire().await.map_err(BatchFailure::unknown)?;
        let mut transaction = db.begin_with("BEGIN IMMEDIATE").await.map_err(BatchFailure::from_statement)?;
        let mut results = vec![false; items.len()];
        let mut waiting: Vec<(usize, &ChangeRow)> = items.iter().enumerate().collect();
        // A statement changes an order once: a second change of the same order follows in the next
        // round, and loses like a concurrent one.
        while !waiting.is_empty() {
            let mut ids = HashSet::new();
            let (round, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(_, item)| ids.insert(item.change.order.id));
            let updated = write(&mut transaction, &round.iter().map(|(_, item)| *item).collect::<Vec<_>>()).await?;
            for (n, item) in &round {
                results[*n] = updated.contains(&item.change.order.id.as_uuid());
            }
            waiting = rest;
        }
        transaction.commit().await.map_err(BatchFailure::from_statement)?;
        Ok(results.into_iter().map(Ok).collect())
    }
}

/// Writes changes of different orders and returns the ids of those that were updated.
async fn write(db: &mut SqliteConnection, items: &[&ChangeRow]) -> Result<HashSet<Uuid>, BatchFailure> {
    let orders = items.iter().map(|item| OrderRow::new(&item.change)).collect::<Vec<_>>();
    let updated: Vec<Uuid> =
        sqlx::query_scalar(UPDATE_ORDERS).bind(batch::json(&orders)?).fetch_all(&mut *db).await.map_err(BatchFailure::from_statement)?;
    let updated: HashSet<Uuid> = updated.into_iter().collect();
    let written: Vec<_> = items.iter().filter(|item| updated.contains(&item.change.order.id.as_uuid())).collect();
    let id = |item: &ChangeRow| hex(item.change.order.id.as_uuid());
    let prices = written.iter().filter(|item| item.change.sets_prices).flat_map(|item| {
        item.change.order.lines.iter().filter_map(|line| {
            let snapshot = line.snapshot.as_ref()?;
            Some(PriceRow { order_id: id(item), product_id: hex(line.product_id), name: &snapshot.name, price: snapshot.unit_price_minor })
        })
    });
    let prices: Vec<_> = prices.collect();
    if !prices.is_empty() {
        batch::execute(db, UPDATE_LINES, &batch::json(&prices)?).await?;
    }
    let steps: Vec<_> = written.iter().flat_map(|item| StepRow::all(id(item), &item.change)).collect();
    if !steps.is_empty() {
        let steps = batch::json(&steps)?;
        batch::execute(db, INSERT_HISTORY, &steps).await?;
        if !planted!("event lost") {
            batch::execute(db, INSERT_EVENTS, &steps).await?;
        }
    }
    let responses = written.iter().filter_map(|item| {
        let response = item.response.as_ref()?;
        let StoredResponse { key, bytes } = response;
        Some(ResponseRow { subject: key.subject.as_str(), key: &key.key, order_id: id(item), response: hex(bytes) })
    });
    let responses: Vec<_> = responses.collect();
    if !responses.is_empty() {
        batch::execute(db, STORE_RESPONSES, &batch::json(&responses)?).await?;
    }
    Ok(updated)
}

impl OrderRow {
    fn new(change: &Change) -> Self {
        let order = &change.order;
        Self {
            id: hex(order.id.as_uuid()),
            old_version: change.old_version(),
            version: order.version,
            status: order.status.as_str(),
            failure_reason: order.failure_reason.map(FailureReason::as_str),
            total_minor: order.total_minor,
            at: to_ms(order.updated_at),
            release_pending: change.release,
            keeps_lease: change.keeps_lease,
            due_at: change.due_at.map(to_ms),
            fence: change.fence,
            attempts: change.attempts,
        }
    }
}

impl<'a> StepRow<'a> {
    fn all(order_id: String, change: &'a Change) -> impl Iterator<Item = Self> {
        change.steps.iter().map(move |step| Self {
            order_id: order_id.clone(),
            version: step.version,
            from: step.from.as_str(),
            to: step.to.as_str(),
            reason: step.reason.map(FailureReason::as_str),
            actor: change.by.role.as_str(),
            actor_subject: change.by.subject.as_ref().map(Subject::as_str),
            actor_service: change.by.service.as_deref(),
            at: to_ms(change.order.updated_at),
            event_id: hex(step.event.event_id),
            kind: &step.event.kind,
            payload: &step.event.payload,
        })
    }
}
