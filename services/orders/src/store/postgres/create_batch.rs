//! Accepts a batch of orders in one statement.

use std::{collections::HashSet, sync::Arc};

use palisade_middleware::{
    auth::Subject,
    clock,
    group_commit::{BatchResult, BatchWriter},
};
use sqlx::{PgConnection, Postgres};
use uuid::Uuid;

use super::orders::resolve_existing_key;
use crate::{
    order::MaxTotal,
    store::{
        batches::NewRow,
        database::{BatchFailure, Error, Pool},
        orders::{CreateResult, KEY_LIFETIME},
        outbox::NewEvent,
    },
};

/// Inserts the keys first: unless its key is new or expired, nothing else of an order is written. A
/// statement that conflicts with an uncommitted key waits for it.
///
/// The parameters are columns, one element per order: their number does not depend on the size of
/// the batch, so one prepared statement serves all sizes.
const CREATE: &str = "
    WITH item AS MATERIALIZED (
        SELECT * FROM UNNEST(
            $1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::timestamptz[], $7::bigint[], $8::timestamptz[],
            $9::uuid[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bytea[], $15::timestamptz[],
            $21::text[], $22::text[], $23::bigint[]
        ) AS item (
            id, user_id, status, created_at, trace_parent, due_at, fence, saga_deadline,
            event_id, kind, payload, subject, key, fingerprint, expires_at,
            actor_subject, actor_service, max_total_minor
        )
    ), claimed_key AS (
        INSERT INTO idempotency_keys (subject, key, fingerprint, order_id, expires_at)
        SELECT subject, key, fingerprint, id, expires_at FROM item WHERE key IS NOT NULL ORDER BY subject, key
        ON CONFLICT (subject, key) DO UPDATE
            SET fingerprint = excluded.fingerprint, order_id = excluded.order_id, answer = NULL, expires_at = excluded.expires_at
            WHERE idempotency_keys.expires_at <= excluded.expires_at - make_interval(secs => $20)
        RETURNING order_id
    ), accepted AS (
        INSERT INTO orders (
            id, user_id, status, version, created_at, updated_at, trace_parent, due_at, fence, attempts, saga_deadline, release_pending,
            max_total_minor
        )
        SELECT id, user_id, status, 1, created_at, created_at, trace_parent, due_at, fence, 1, saga_deadline, FALSE, max_total_minor
        FROM item WHERE key IS NULL OR id IN (SELECT order_id FROM claimed_key)
        RETURNING id
    ), lines AS (
        INSERT INTO order_lines (order_id, position, product_id, quantity)
        SELECT line.order_id, line.position, line.product_id, line.quantity
        FROM UNNEST($16::uuid[], $17::bigint[], $18::uuid[], $19::bigint[]) AS line (order_id, position, product_id, quantity)
        WHERE line.order_id IN (SELECT id FROM accepted)
    ), history AS (
        INSERT INTO order_history (order_id, version, to_status, actor_subject, actor_service, at)
        SELECT id, 1, status, actor_subject, actor_service, created_at FROM item WHERE id IN (SELECT id FROM accepted)
    ), event AS (
        INSERT INTO outbox (event_id, order_id, version, kind, payload, trace_parent, created_at)
        SELECT event_id, id, 1, kind, payload, trace_parent, created_at FROM item WHERE id IN (SELECT id FROM accepted)
    )
    SELECT id FROM accepted";

/// Writer of batches of new orders.
#[derive(Debug)]
pub(super) struct CreateWriter {
    pub(super) pool: Arc<Pool<Postgres>>,
}

impl BatchWriter for CreateWriter {
    type Item = NewRow;
    type Output = CreateResult;
    type Error = BatchFailure;

    async fn write(&self, items: &[NewRow]) -> BatchResult<Self> {
        super::with_retries(|| self.write_once(items)).await
    }
}

impl CreateWriter {
    async fn write_once(&self, items: &[NewRow]) -> BatchResult<Self> {
        let mut db = self.pool.acquire().await.map_err(BatchFailure::unknown)?;
        // One statement cannot write the same key twice: a repeated key waits for the first one.
        let mut keys = HashSet::new();
        let (first, repeated): (Vec<&NewRow>, Vec<&NewRow>) =
            items.iter().partition(|item| item.create.key.as_ref().is_none_or(|key| keys.insert((&key.subject, &key.key))));
        let mut accepted = insert(&mut db, &first).await?;
        for item in repeated {
            accepted.extend(insert(&mut db, &[item]).await?);
        }
        let mut results = Vec::with_capacity(items.len());
        for NewRow { create, now } in items {
            results.push(match &create.key {
                Some(key) if !accepted.contains(&create.id.as_uuid()) => {
                    resolve_existing_key(&mut db, key, create.is_retry, *now).await.map_err(BatchFailure::unknown)
                }
                _ => Ok(CreateResult::Created(create.claimed(*now))),
            });
        }
        Ok(results)
    }
}

/// Inserts the orders whose keys are free and returns their ids.
async fn insert(db: &mut PgConnection, items: &[&NewRow]) -> Result<HashSet<Uuid>, BatchFailure> {
    let claimed: Vec<_> = items.iter().map(|item| item.create.claimed(item.now)).collect();
    let events = claimed.iter().map(|claimed| NewEvent::for_order(&claimed.saga.order)).collect::<Result<Vec<_>, Error>>();
    let events = events.map_err(BatchFailure::rolled_back)?;
    let keys: Vec<_> = items.iter().map(|item| item.create.key.as_ref()).collect();
    let lines: Vec<_> = claimed
        .iter()
        .flat_map(|claimed| {
            (1_i64..).zip(&claimed.saga.order.lines).map(|(position, line)| (claimed.saga.order.id.as_uuid(), position, line))
        })
        .collect();
    let orders = || claimed.iter().map(|claimed| &claimed.saga.order);
    let accepted: Vec<Uuid> = sqlx::query_scalar(CREATE)
        .bind(orders().map(|order| order.id.as_uuid()).collect::<Vec<_>>())
        .bind(orders().map(|order| order.user_id.as_str()).collect::<Vec<_>>())
        .bind(orders().map(|order| order.status.as_str()).collect::<Vec<_>>())
        .bind(orders().map(|order| order.created_at).collect::<Vec<_>>())
        .bind(claimed.iter().map(|claimed| claimed.trace_parent.as_deref()).collect::<Vec<_>>())
        .bind(items.iter().map(|item| clock::after(item.now, item.create.lease)).collect::<Vec<_>>())
        .bind(claimed.iter().map(|claimed| claimed.fence).collect::<Vec<_>>())
        .bind(claimed.iter().map(|claimed| claimed.saga.deadline).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.event_id).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.payload.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.map(|key| key.subject.as_str())).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.map(|key| key.key.as_str())).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.map(|key| &key.fingerprint[..])).collect::<Vec<_>>())
        .bind(items.iter().map(|item| clock::after(item.now, KEY_LIFETIME)).collect::<Vec<_>>())
        .bind(lines.iter().map(|(order_id, ..)| *order_id).collect::<Vec<_>>())
        .bind(lines.iter().map(|(_, position, _)| *position).collect::<Vec<_>>())
        .bind(lines.iter().map(|(.., line)| line.product_id).collect::<Vec<_>>())
        .bind(lines.iter().map(|(.., line)| line.quantity).collect::<Vec<_>>())
        .bind(KEY_LIFETIME.as_secs_f64())
        .bind(items.iter().map(|item| item.create.by.subject.as_ref().map(Subject::as_str)).collect::<Vec<_>>())
        .bind(items.iter().map(|item| item.create.by.service.as_deref()).collect::<Vec<_>>())
        .bind(claimed.iter().map(|claimed| claimed.saga.max_total.map(MaxTotal::minor)).collect::<Vec<_>>())
        .fetch_all(db)
        .await
        .map_err(BatchFailure::from_statement)?;
    Ok(accepted.into_iter().collect())
}
