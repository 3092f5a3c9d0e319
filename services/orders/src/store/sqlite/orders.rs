//! Orders in SQLite: creation once per idempotency key, queries, and status changes by users.

use async_trait::async_trait;
use palisade_middleware::{auth::Subject, clock, preconditions::VersionPreconditions};
use sqlx::{Connection, QueryBuilder, Row, Sqlite, SqliteConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    SqliteStore, change,
    row::{self, columns, from_ms, to_ms},
};
use crate::{
    order::{Actor, Order, OrderId, Status},
    saga::{self, StatusChange},
    store::{
        change::Change,
        database::Error,
        orders::{
            Claimed, Create, CreateResult, ExistingKey, FIRST_FENCE, IdempotencyKey, KEY_LIFETIME, OrderStore, RemoveResult,
            SetStatusResult, StoredResponse,
        },
        outbox::NewEvent,
        queries::{self, List, Page, SELECT_HISTORY},
    },
};

#[async_trait]
impl OrderStore for SqliteStore {
    async fn create(&self, create: Create, now: OffsetDateTime) -> Result<CreateResult, Error> {
        let claimed = create.claimed(now);
        let mut db = self.writer.acquire().await?;
        let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
        if let Some(key) = &create.key
            && let Some(existing) = find_key(&mut transaction, key, now).await?
        {
            return Ok(existing.resolve(key, create.is_retry, now));
        }
        insert_order(&mut transaction, &claimed, clock::after(now, create.lease)).await?;
        if let Some(key) = &create.key {
            insert_key(&mut transaction, key, create.id, clock::after(now, KEY_LIFETIME)).await?;
        }
        transaction.commit().await?;
        Ok(CreateResult::Created(claimed))
    }

    async fn store_response(&self, id: OrderId, response: StoredResponse) -> Result<(), Error> {
        change::store_response(&mut *self.writer.acquire().await?, id, &response).await
    }

    async fn expire_creator_lease(&self, id: OrderId, now: OffsetDateTime) -> Result<bool, Error> {
        let expire = sqlx::query("UPDATE orders SET due_at = $2 WHERE id = $1 AND due_at IS NOT NULL AND fence = $3");
        let expire = expire.bind(id.as_uuid()).bind(to_ms(now)).bind(FIRST_FENCE);
        Ok(expire.execute(&mut *self.writer.acquire().await?).await?.rows_affected() == 1)
    }

    async fn set_status(
        &self,
        id: OrderId,
        to: Status,
        by: Actor,
        preconditions: VersionPreconditions,
        now: OffsetDateTime,
    ) -> Result<SetStatusResult, Error> {
        let mut db = self.writer.acquire().await?;
        let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
        let Some(order) = row::find_including_removed(&mut transaction, id).await? else { return Ok(SetStatusResult::NotFound) };
        match saga::request_conditional_change(&order, to, by, &preconditions) {
            StatusChange::VersionMismatch => Ok(SetStatusResult::VersionMismatch),
            StatusChange::Unchanged => Ok(SetStatusResult::Unchanged(order)),
            StatusChange::Illegal(allowed) => Ok(SetStatusResult::Illegal { order, allowed }),
            StatusChange::Allowed(transition) => {
                let change = Change::by_user(order, &transition, by, now)?;
                if !change::write(&mut transaction, &change).await? {
                    return Err(Error::Corrupt(format!("order {id} changed within the write transaction")));
                }
                transaction.commit().await?;
                Ok(SetStatusResult::Changed { from: change.from, order: change.order })
            }
        }
    }

    async fn remove(
        &self,
        id: OrderId,
        by: Subject,
        preconditions: VersionPreconditions,
        now: OffsetDateTime,
    ) -> Result<RemoveResult, Error> {
        let mut db = self.writer.acquire().await?;
        let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
        match row::find_including_removed(&mut transaction, id).await? {
            None => return Ok(RemoveResult::NotFound),
            Some(order) if order.removed.is_some() => return Ok(RemoveResult::NotFound),
            Some(order) if !preconditions.allow_write(&order.version) => return Ok(RemoveResult::VersionMismatch),
            Some(order) if !order.status.is_terminal() => return Ok(RemoveResult::InProgress(order.status)),
            Some(_) => {}
        }
        let hide = sqlx::query("UPDATE orders SET deleted_at = $2, deleted_by = $3 WHERE id = $1");
        let hide = hide.bind(id.as_uuid()).bind(to_ms(now)).bind(by.as_str());
        hide.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(RemoveResult::Removed)
    }

    async fn find(&self, id: OrderId) -> Result<Option<Order>, Error> {
        row::find_including_removed(&mut *self.readers.acquire().await?, id).await
    }

    async fn list(&self, list: List) -> Result<Page, Error> {
        let rows = select(&list).build().fetch_all(&mut *self.readers.acquire().await?).await?;
        let orders = row::orders(&rows)?.into_iter().map(|(_, order)| order).collect();
        Ok(Page::from_lookahead(orders, &row::positions(&rows)?, list.limit))
    }

    async fn history_after(&self, id: OrderId, version: i64) -> Result<Vec<Order>, Error> {
        let mut db = self.readers.acquire().await?;
        let rows: Vec<(i64, String, Option<String>, i64)> =
            sqlx::query_as(SELECT_HISTORY).bind(id.as_uuid()).bind(version).fetch_all(&mut *db).await?;
        let history = rows.into_iter().map(|(version, status, reason, at)| Ok((version, status, reason, from_ms(at)?)));
        let history = history.collect::<Result<_, Error>>()?;
        row::find_including_removed(&mut db, id).await?.map_or(Ok(Vec::new()), |order| queries::snapshots(&order, history))
    }

    async fn versions(&self, ids: Vec<OrderId>) -> Result<Vec<(OrderId, i64)>, Error> {
        let mut db = self.readers.acquire().await?;
        let mut versions = Vec::with_capacity(ids.len());
        for id in ids {
            let select = sqlx::query_scalar("SELECT version FROM orders WHERE id = $1").bind(id.as_uuid());
            versions.extend(select.fetch_optional(&mut *db).await?.map(|version| (id, version)));
        }
        Ok(versions)
    }

    async fn delete_expired_keys(&self, now: OffsetDateTime, limit: u32) -> Result<u64, Error> {
        let delete = sqlx::query(
            "DELETE FROM idempotency_keys WHERE (subject, key) IN
                 (SELECT subject, key FROM idempotency_keys WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)",
        );
        let delete = delete.bind(to_ms(now)).bind(limit);
        Ok(delete.execute(&mut *self.writer.acquire().await?).await?.rows_affected())
    }
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
    .bind(order.user_id.as_str())
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
    let event = NewEvent::for_order(order)?;
    sqlx::query(
        "INSERT INTO outbox (event_id, order_id, version, kind, payload, trace_parent, created_at) VALUES ($1, $2, 1, $3, $4, $5, $6)",
    )
    .bind(event.event_id)
    .bind(id)
    .bind(event.kind)
    .bind(event.payload)
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
    .bind(key.subject.as_str())
    .bind(&key.key)
    .bind(to_ms(now))
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let id: Uuid = row.try_get("order_id")?;
    let order =
        row::find_including_removed(connection, id.into()).await?.ok_or_else(|| Error::Corrupt(format!("order {id} has no lines")))?;
    let due_at: Option<i64> = row.try_get("due_at")?;
    Ok(Some(ExistingKey {
        fingerprint: row.try_get("fingerprint")?,
        response: row.try_get("answer")?,
        fence: row.try_get("fence")?,
        // An unreadable lease has no effect.
        due_at: due_at.and_then(|due_at| from_ms(due_at).ok()),
        order,
    }))
}

async fn insert_key(connection: &mut SqliteConnection, key: &IdempotencyKey, id: OrderId, expires_at: OffsetDateTime) -> Result<(), Error> {
    sqlx::query("INSERT OR REPLACE INTO idempotency_keys (subject, key, fingerprint, order_id, expires_at) VALUES ($1, $2, $3, $4, $5)")
        .bind(key.subject.as_str())
        .bind(&key.key)
        .bind(&key.fingerprint[..])
        .bind(id.as_uuid())
        .bind(to_ms(expires_at))
        .execute(connection)
        .await?;
    Ok(())
}

/// Selects one order more than the page, to know whether another page follows.
fn select(list: &List) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(concat!("SELECT ", columns!(), " FROM ("));
    push_page(&mut query, list, "deleted_at IS NULL");
    if list.with_removed {
        // Removed orders have indexes of their own.
        query.push(" UNION ALL ");
        push_page(&mut query, list, "deleted_at IS NOT NULL");
        query.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(i64::from(list.limit) + 1);
    }
    query.push(") o JOIN order_lines l ON l.order_id = o.id ORDER BY o.created_at DESC, o.id DESC, l.position");
    query
}

/// Adds a page of the orders that `filter` selects. Adds only the filters that are set, because
/// each combination has its own index.
fn push_page(query: &mut QueryBuilder<Sqlite>, list: &List, filter: &'static str) {
    query.push("SELECT * FROM (SELECT * FROM orders WHERE ").push(filter);
    if let Some(user_id) = &list.user_id {
        query.push(" AND user_id = ").push_bind(user_id.to_string());
    }
    if let Some(status) = list.status {
        query.push(" AND status = ").push_bind(status.as_str());
    }
    if let Some(after) = list.after {
        query.push(" AND (created_at, id) < (").push_bind(to_ms(after.created_at)).push(", ").push_bind(after.id.as_uuid()).push(")");
    }
    query.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(i64::from(list.limit) + 1).push(")");
}
