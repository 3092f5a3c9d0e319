//! Orders in SQLite: creation once per idempotency key, queries, and status changes by users.

use std::time::Duration;

use async_trait::async_trait;
use palisade_middleware::{auth::Subject, preconditions::VersionPreconditions};
use sqlx::{Connection, Row, SqliteConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    SqliteStore, list,
    row::{self, from_ms, to_ms},
};
use crate::{
    order::{Actor, HistoryEntry, Line, MAX_HISTORY, MaxTotal, Order, OrderId, Status},
    store::{
        batches::{self, NewRow},
        database::Error,
        orders::{
            Create, CreateResult, ExistingKey, FIRST_FENCE, IdempotencyKey, OrderStore, RemoveResult, SetStatusResult, StoredResponse,
        },
        queries::{self, ChangeRow, List, Page, SELECT_CHANGES, SELECT_HISTORY},
        revisions::RequestRevisionResult,
    },
};

#[async_trait]
impl OrderStore for SqliteStore {
    async fn create(&self, create: Create, now: OffsetDateTime) -> Result<CreateResult, Error> {
        Ok(self.creates.write(NewRow { create, now }).await?)
    }

    async fn store_response(&self, id: OrderId, response: StoredResponse) -> Result<(), Error> {
        let store =
            sqlx::query("UPDATE idempotency_keys SET answer = $4 WHERE subject = $1 AND key = $2 AND order_id = $3 AND answer IS NULL");
        let store = store.bind(response.key.subject.as_str()).bind(&response.key.key).bind(id.as_uuid()).bind(&response.bytes);
        store.execute(&mut *self.writer.acquire().await?).await?;
        Ok(())
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
        batches::set_status(self, &self.changes, id, to, by, preconditions, now).await
    }

    async fn request_revision(
        &self,
        id: OrderId,
        wanted: (Vec<Line>, Option<MaxTotal>),
        by: Actor,
        preconditions: VersionPreconditions,
        lease: Duration,
        now: OffsetDateTime,
    ) -> Result<RequestRevisionResult, Error> {
        self.request(id, wanted, &by, preconditions, (now, lease)).await
    }

    async fn remove(
        &self,
        id: OrderId,
        by: Actor,
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
        let hide = sqlx::query("UPDATE orders SET deleted_at = $2, deleted_by = $3, deleted_by_service = $4 WHERE id = $1");
        let hide = hide.bind(id.as_uuid()).bind(to_ms(now)).bind(by.subject.as_ref().map(Subject::as_str)).bind(by.service.as_deref());
        hide.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(RemoveResult::Removed)
    }

    async fn find(&self, id: OrderId) -> Result<Option<Order>, Error> {
        row::find_including_removed(&mut *self.readers.acquire().await?, id).await
    }

    async fn list(&self, list: List) -> Result<Page, Error> {
        let rows = list::select(&list).build().fetch_all(&mut *self.readers.acquire().await?).await?;
        let orders = row::orders(&rows)?.into_iter().map(|(_, order)| order).collect();
        Ok(Page::from_lookahead(orders, &row::positions(&rows)?, &list))
    }

    async fn history_after(&self, id: OrderId, version: i64) -> Result<Vec<Order>, Error> {
        let mut db = self.readers.acquire().await?;
        let Some(order) = row::find_including_removed(&mut db, id).await? else { return Ok(Vec::new()) };
        let select = sqlx::query_as(SELECT_HISTORY).bind(id.as_uuid()).bind(version).bind(order.version);
        let rows: Vec<(i64, String, Option<String>, i64, Option<String>)> = select.fetch_all(&mut *db).await?;
        let history = rows.into_iter().map(|(version, status, reason, at, lines)| Ok((version, status, reason, from_ms(at)?, lines)));
        queries::snapshots(&order, history.collect::<Result<_, Error>>()?)
    }

    async fn history(&self, id: OrderId) -> Result<Vec<HistoryEntry>, Error> {
        let select = sqlx::query_as(SELECT_CHANGES).bind(id.as_uuid()).bind(MAX_HISTORY);
        let rows: Vec<ChangeRow<i64>> = select.fetch_all(&mut *self.readers.acquire().await?).await?;
        let decode = |row: ChangeRow<i64>| {
            let at = from_ms(row.at)?;
            row.decode(at)
        };
        rows.into_iter().map(decode).collect()
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

/// Finds an unexpired key.
pub(super) async fn find_key(
    connection: &mut SqliteConnection,
    key: &IdempotencyKey,
    now: OffsetDateTime,
) -> Result<Option<ExistingKey>, Error> {
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
