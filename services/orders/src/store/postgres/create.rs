//! Order creation in PostgreSQL, once per idempotency key.

use sqlx::{PgConnection, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::row::{self, columns, lines};
use crate::{
    order::OrderId,
    store::{Create, CreateResult, Error, IdempotencyKey, KEY_LIFETIME, StoredResponse, key::ExistingKey, outbox::NewEvent},
};

/// Inserts the key first: unless it is new or expired, nothing else is written. A statement that
/// conflicts with an uncommitted key waits for it.
const CREATE: &str = "
    WITH taken AS (
        INSERT INTO idempotency_keys (subject, key, fingerprint, order_id, expires_at)
        SELECT $13, $14, $15, $1, $16 WHERE $14 IS NOT NULL
        ON CONFLICT (subject, key) DO UPDATE
            SET fingerprint = excluded.fingerprint, order_id = excluded.order_id, answer = NULL, expires_at = excluded.expires_at
            WHERE idempotency_keys.expires_at <= $4
        RETURNING order_id
    ), accepted AS (
        INSERT INTO orders (id, user_id, status, version, created_at, updated_at, trace_parent, due_at, fence, attempts, saga_deadline, release_pending)
        SELECT $1, $2, $3, 1, $4, $4, $5, $6, $7, 1, $8, FALSE
        WHERE $14 IS NULL OR EXISTS (SELECT FROM taken)
        RETURNING id
    ), lines AS (
        INSERT INTO order_lines (order_id, position, product_id, quantity)
        SELECT id, position, product_id, quantity
        FROM accepted, UNNEST($9::uuid[], $10::bigint[]) WITH ORDINALITY AS line (product_id, quantity, position)
    ), history AS (
        INSERT INTO order_history (order_id, version, to_status, at) SELECT id, 1, $3, $4 FROM accepted
    ), news AS (
        INSERT INTO outbox (event_id, order_id, version, kind, payload, trace_parent, created_at)
        SELECT $11, id, 1, $12, $17, $5, $4 FROM accepted
    )
    SELECT count(*) FROM accepted";

const SELECT_EXISTING_KEY: &str = concat!(
    "SELECT k.fingerprint, k.answer, o.fence, o.due_at, ",
    columns!(),
    " FROM idempotency_keys k JOIN orders o ON o.id = k.order_id",
    lines!(),
    "WHERE k.subject = $1 AND k.key = $2"
);

pub(super) async fn create(db: &mut PgConnection, create: &Create, now: OffsetDateTime) -> Result<CreateResult, Error> {
    let claimed = create.claimed(now);
    let order = &claimed.saga.order;
    let news = NewEvent::for_order(order)?;
    let (product_ids, quantities): (Vec<Uuid>, Vec<i64>) = order.lines.iter().map(|line| (line.product_id, line.quantity)).unzip();
    let key = create.key.as_ref();
    let accepted: i64 = sqlx::query_scalar(CREATE)
        .bind(order.id.as_uuid())
        .bind(&order.user_id)
        .bind(order.status.as_str())
        .bind(now)
        .bind(&claimed.trace_parent)
        .bind(now + create.lease)
        .bind(claimed.fence)
        .bind(create.deadline)
        .bind(product_ids)
        .bind(quantities)
        .bind(news.event_id)
        .bind(news.kind)
        .bind(key.map(|key| &key.subject))
        .bind(key.map(|key| &key.key))
        .bind(key.map(|key| key.fingerprint))
        .bind(now + KEY_LIFETIME)
        .bind(news.payload)
        .fetch_one(&mut *db)
        .await?;
    match key {
        Some(key) if accepted == 0 => resolve_existing_key(db, key, create.is_retry, now).await,
        _ => Ok(CreateResult::Created(claimed)),
    }
}

async fn resolve_existing_key(
    db: &mut PgConnection,
    key: &IdempotencyKey,
    is_retry: bool,
    now: OffsetDateTime,
) -> Result<CreateResult, Error> {
    let existing = sqlx::query(SELECT_EXISTING_KEY).bind(&key.subject).bind(&key.key).fetch_optional(db).await?;
    match existing {
        Some(row) => Ok(existing_key(&row)?.resolve(key, is_retry, now)),
        // The key expired and was deleted between the two statements: the caller's next attempt
        // creates a new one.
        None => Ok(CreateResult::InProgress),
    }
}

fn existing_key(row: &PgRow) -> Result<ExistingKey, Error> {
    Ok(ExistingKey {
        fingerprint: row.try_get("fingerprint")?,
        response: row.try_get("answer")?,
        fence: row.try_get("fence")?,
        due_at: row.try_get("due_at")?,
        order: row::order(row)?,
    })
}

pub(super) async fn store_response(db: &mut PgConnection, id: OrderId, response: &StoredResponse) -> Result<(), Error> {
    sqlx::query("UPDATE idempotency_keys SET answer = $4 WHERE subject = $1 AND key = $2 AND order_id = $3 AND answer IS NULL")
        .bind(&response.key.subject)
        .bind(&response.key.key)
        .bind(id.as_uuid())
        .bind(&response.bytes)
        .execute(db)
        .await?;
    Ok(())
}

pub(super) async fn delete_expired_keys(db: &mut PgConnection, now: OffsetDateTime) -> Result<u64, Error> {
    let deleted = sqlx::query("DELETE FROM idempotency_keys WHERE expires_at <= $1").bind(now).execute(db).await?;
    Ok(deleted.rows_affected())
}
