//! Accepts a batch of orders in one transaction, with one statement per table.

use std::{collections::HashSet, sync::Arc};

use palisade_middleware::{
    auth::Subject,
    clock,
    group_commit::{BatchResult, BatchWriter},
};
use serde::Serialize;
use sqlx::{Connection, Sqlite, SqliteConnection};
use time::OffsetDateTime;

use super::{
    batch::{self, hex},
    orders::find_key,
    row::to_ms,
};
use crate::{
    order::MaxTotal,
    store::{
        batches::NewRow,
        database::{BatchFailure, Error, Pool},
        orders::{Claimed, Create, CreateResult, KEY_LIFETIME},
        outbox::NewEvent,
    },
};

/// `$1` of all statements is a JSON array with one object per row.
const INSERT_KEYS: &str = "
    INSERT OR REPLACE INTO idempotency_keys (subject, key, fingerprint, order_id, expires_at)
    SELECT value ->> 'subject', value ->> 'key', unhex(value ->> 'fingerprint'), unhex(value ->> 'order_id'), value ->> 'expires_at'
    FROM json_each($1)";
const INSERT_ORDERS: &str = "
    INSERT INTO orders (
        id, user_id, status, version, created_at, updated_at, trace_parent, due_at, fence, attempts, saga_deadline, release_pending,
        max_total_minor
    )
    SELECT unhex(value ->> 'id'), value ->> 'user_id', value ->> 'status', 1, value ->> 'at', value ->> 'at', value ->> 'trace_parent',
           value ->> 'due_at', value ->> 'fence', 1, value ->> 'saga_deadline', FALSE,
           value ->> 'max_total_minor'
    FROM json_each($1)";
const INSERT_LINES: &str = "
    INSERT INTO order_lines (order_id, position, product_id, quantity)
    SELECT unhex(value ->> 'order_id'), value ->> 'position', unhex(value ->> 'product_id'), value ->> 'quantity'
    FROM json_each($1)";
const INSERT_HISTORY: &str = "
    INSERT INTO order_history (order_id, version, to_status, actor_subject, actor_service, at)
    SELECT unhex(value ->> 'id'), 1, value ->> 'status', value ->> 'actor_subject', value ->> 'actor_service', value ->> 'at'
    FROM json_each($1)";
const INSERT_EVENTS: &str = "
    INSERT INTO outbox (event_id, order_id, version, kind, payload, trace_parent, created_at)
    SELECT unhex(value ->> 'event_id'), unhex(value ->> 'id'), 1, value ->> 'kind', value ->> 'payload', value ->> 'trace_parent', value ->> 'at'
    FROM json_each($1)";

/// Writer of batches of new orders.
#[derive(Debug)]
pub(super) struct CreateWriter {
    pub(super) pool: Arc<Pool<Sqlite>>,
}

/// Values for `orders`, its first history row and its first event.
#[derive(Serialize)]
struct OrderRow<'a> {
    id: String,
    user_id: &'a str,
    status: &'static str,
    at: i64,
    trace_parent: Option<&'a str>,
    due_at: i64,
    fence: i64,
    saga_deadline: i64,
    max_total_minor: Option<i64>,
    actor_subject: Option<&'a str>,
    actor_service: Option<&'a str>,
    event_id: String,
    kind: &'a str,
    payload: &'a str,
}

#[derive(Serialize)]
struct LineRow {
    order_id: String,
    position: i64,
    product_id: String,
    quantity: i64,
}

#[derive(Serialize)]
struct KeyRow<'a> {
    subject: &'a str,
    key: &'a str,
    fingerprint: String,
    order_id: String,
    expires_at: i64,
}

impl BatchWriter for CreateWriter {
    type Item = NewRow;
    type Output = CreateResult;
    type Error = BatchFailure;

    async fn write(&self, items: &[NewRow]) -> BatchResult<Self> {
        let mut db = self.pool.acquire().await.map_err(BatchFailure::unknown)?;
        let mut transaction = db.begin_with("BEGIN IMMEDIATE").await.map_err(BatchFailure::from_statement)?;
        let results = write(&mut transaction, items).await?;
        transaction.commit().await.map_err(BatchFailure::from_statement)?;
        Ok(results.into_iter().map(Ok).collect())
    }
}

async fn write(db: &mut SqliteConnection, items: &[NewRow]) -> Result<Vec<CreateResult>, BatchFailure> {
    let mut results = Vec::with_capacity(items.len());
    let mut accepted = Vec::new();
    // Keys of this batch, whose first request is still in progress when the next one asks.
    let mut keys = HashSet::new();
    for NewRow { create, now } in items {
        let mut existing = None;
        if let Some(key) = &create.key {
            if keys.contains(&(&key.subject, &key.key)) {
                insert(db, &std::mem::take(&mut accepted)).await?;
            }
            existing = find_key(db, key, *now).await.map_err(BatchFailure::rolled_back)?;
            keys.insert((&key.subject, &key.key));
        }
        results.push(if let (Some(existing), Some(key)) = (existing, &create.key) {
            existing.resolve(key, create.is_retry, *now)
        } else {
            let claimed = create.claimed(*now);
            accepted.push((create, claimed.clone(), *now));
            CreateResult::Created(claimed)
        });
    }
    insert(db, &accepted).await?;
    Ok(results)
}

async fn insert(db: &mut SqliteConnection, accepted: &[(&Create, Claimed, OffsetDateTime)]) -> Result<(), BatchFailure> {
    if accepted.is_empty() {
        return Ok(());
    }
    let events = accepted.iter().map(|(_, claimed, _)| NewEvent::for_order(&claimed.saga.order)).collect::<Result<Vec<_>, Error>>();
    let events = events.map_err(BatchFailure::rolled_back)?;
    let keys = accepted.iter().filter_map(|(create, _, now)| {
        let key = create.key.as_ref()?;
        let expires_at = to_ms(clock::after(*now, KEY_LIFETIME));
        Some(KeyRow {
            subject: key.subject.as_str(),
            key: &key.key,
            fingerprint: hex(key.fingerprint),
            order_id: hex(create.id.as_uuid()),
            expires_at,
        })
    });
    let keys: Vec<_> = keys.collect();
    let orders = accepted.iter().zip(&events).map(|((create, claimed, now), event)| OrderRow {
        id: hex(create.id.as_uuid()),
        user_id: claimed.saga.order.user_id.as_str(),
        status: claimed.saga.order.status.as_str(),
        at: to_ms(claimed.saga.order.created_at),
        trace_parent: claimed.trace_parent.as_deref(),
        due_at: to_ms(clock::after(*now, create.lease)),
        fence: claimed.fence,
        saga_deadline: to_ms(claimed.saga.deadline),
        max_total_minor: claimed.saga.max_total.map(MaxTotal::minor),
        actor_subject: create.by.subject.as_ref().map(Subject::as_str),
        actor_service: create.by.service.as_deref(),
        event_id: hex(event.event_id),
        kind: &event.kind,
        payload: &event.payload,
    });
    let orders = batch::json(&orders.collect::<Vec<_>>())?;
    let lines = accepted.iter().flat_map(|(create, claimed, _)| {
        (1_i64..).zip(&claimed.saga.order.lines).map(|(position, line)| LineRow {
            order_id: hex(create.id.as_uuid()),
            position,
            product_id: hex(line.product_id),
            quantity: line.quantity,
        })
    });
    let lines = batch::json(&lines.collect::<Vec<_>>())?;
    batch::execute(db, INSERT_ORDERS, &orders).await?;
    batch::execute(db, INSERT_LINES, &lines).await?;
    batch::execute(db, INSERT_HISTORY, &orders).await?;
    batch::execute(db, INSERT_EVENTS, &orders).await?;
    if !keys.is_empty() {
        batch::execute(db, INSERT_KEYS, &batch::json(&keys)?).await?;
    }
    Ok(())
}
