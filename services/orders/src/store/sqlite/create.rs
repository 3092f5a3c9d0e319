//! Order creation in SQLite, once per idempotency key.

use sqlx::{Connection, Row, SqliteConnection};
use time::OffsetDateTime;

use super::{
    read,
    timestamp::{from_ms, to_ms},
};
use crate::{
    order::OrderId,
    store::{Claimed, Create, CreateResult, Error, IdempotencyKey, KEY_LIFETIME, StoredResponse, key::ExistingKey, outbox::NewEvent},
};

pub(super) async fn create(db: &mut SqliteConnection, create: &Create, now: OffsetDateTime) -> Result<CreateResult, Error> {
    let claimed = create.claimed(now);
    let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
    if let Some(key) = &create.key
        && let Some(existing) = find_key(&mut transaction, key, now).await?
    {
        return Ok(existing.resolve(key, create.is_retry, now));
    }
    insert_order(&mut transaction, &claimed, now + create.lease).await?;
    if let Some(key) = &create.key {
        insert_key(&mut transaction, key, create.id, now + KEY_LIFETIME).await?;
    }
    transaction.commit().await?;
    Ok(CreateResult::Created(claimed))
}

async fn insert_order(connection: &mut SqliteConnection, claimed: &Claimed, leased_until: OffsetDateTime) -> Result<(), Error> {
    let order = &claimed.saga.order;
    let id = order.id.as_uuid();
    let now = to_ms(order.created_at);
    sqlx::query(
        "INSERT INTO orders (id, user_id, status, version, created_at, updated_at, trace_parent, due_at, fence, attempts, saga_deadline, release_pending)
         VALUES ($1, $2, $3, 1, $4, $4, $5, $6, $7, 1, $8, FALSE)",
    )
    .bind(id)
    .bind(&order.user_id)
    .bind(order.status.as_str())
    .bind(now)
    .bind(&claimed.trace_parent)
    .bind(to_ms(leased_until))
    .bind(claimed.fence)
    .bind(to_ms(claimed.saga.deadline))
    .execute(&mut *connection)
    .await?;
    for (position, line) in (1_i64..).zip(&order.lines) {
        sqlx::query("INSERT INTO order_lines (order_id, position, product_id, quantity) VALUES ($1, $2, $3, $4)")
            .bind(id)
            .bind(position)
            .bind(line.product_id)
            .bind(line.quantity)
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query("INSERT INTO order_history (order_id, version, to_status, at) VALUES ($1, 1, $2, $3)")
        .bind(id)
        .bind(order.status.as_str())
        .bind(now)
        .execute(&mut *connection)
        .await?;
    let news = NewEvent::for_order(order)?;
    sqlx::query(
        "INSERT INTO outbox (event_id, order_id, version, kind, payload, trace_parent, created_at) VALUES ($1, $2, 1, $3, $4, $5, $6)",
    )
    .bind(news.event_id)
    .bind(id)
    .bind(news.kind)
    .bind(news.payload)
    .bind(&claimed.trace_parent)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// Finds an unexpired key.
async fn find_key(connection: &mut SqliteConnection, key: &IdempotencyKey, now: OffsetDateTime) -> Result<Option<ExistingKey>, Error> {
    let row = sqlx::query(
        "SELECT k.fingerprint, k.answer, k.order_id, o.fence, o.due_at FROM idempotency_keys k JOIN orders o ON o.id = k.order_id
         WHERE k.subject = $1 AND k.key = $2 AND k.expires_at > $3",
    )
    .bind(&key.subject)
    .bind(&key.key)
    .bind(to_ms(now))
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let id: uuid::Uuid = row.try_get("order_id")?;
    let order =
        read::find_including_removed(connection, id.into()).await?.ok_or_else(|| Error::Corrupt(format!("order {id} has no lines")))?;
    let due_at: Option<i64> = row.try_get("due_at")?;
    Ok(Some(ExistingKey {
        fingerprint: row.try_get("fingerprint")?,
        response: row.try_get("answer")?,
        fence: row.try_get("fence")?,
        due_at: due_at.map(from_ms).transpose()?,
        order,
    }))
}

async fn insert_key(connection: &mut SqliteConnection, key: &IdempotencyKey, id: OrderId, expires_at: OffsetDateTime) -> Result<(), Error> {
    sqlx::query("INSERT OR REPLACE INTO idempotency_keys (subject, key, fingerprint, order_id, expires_at) VALUES ($1, $2, $3, $4, $5)")
        .bind(&key.subject)
        .bind(&key.key)
        .bind(&key.fingerprint[..])
        .bind(id.as_uuid())
        .bind(to_ms(expires_at))
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn store_response(db: &mut SqliteConnection, id: OrderId, response: &StoredResponse) -> Result<(), Error> {
    sqlx::query("UPDATE idempotency_keys SET answer = $4 WHERE subject = $1 AND key = $2 AND order_id = $3 AND answer IS NULL")
        .bind(&response.key.subject)
        .bind(&response.key.key)
        .bind(id.as_uuid())
        .bind(&response.bytes)
        .execute(db)
        .await?;
    Ok(())
}

pub(super) async fn delete_expired_keys(db: &mut SqliteConnection, now: OffsetDateTime) -> Result<u64, Error> {
    let deleted = sqlx::query("DELETE FROM idempotency_keys WHERE expires_at <= $1").bind(to_ms(now)).execute(db).await?;
    Ok(deleted.rows_affected())
}
