//! Orders in PostgreSQL: creation once per idempotency key, queries, and status changes by users.

use std::time::Duration;

use async_trait::async_trait;
use palisade_middleware::{auth::Subject, preconditions::VersionPreconditions};
use sqlx::{PgConnection, Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    PostgresStore, list,
    row::{self, Timestamp, columns, lines},
};
use crate::{
    order::{Actor, HistoryEntry, Line, MAX_HISTORY, MaxTotal, Order, OrderId, Status},
    store::{
        batches::{self, NewRow},
        database::Error,
        orders::{
            Create, CreateResult, ExistingKey, FIRST_FENCE, IdempotencyKey, OrderStore, RemoveResult, SetStatusResult, StoredResponse,
        },
        queries::{self, ChangeRow, HistoryRow, List, Page, SELECT_CHANGES, SELECT_HISTORY},
        revisions::RequestRevisionResult,
    },
};

const SELECT_EXISTING_KEY: &str = concat!(
    "SELECT k.fingerprint, k.answer, o.fence, o.due_at, ",
    columns!(),
    " FROM idempotency_keys k JOIN orders o ON o.id = k.order_id",
    lines!(),
    "WHERE k.subject = $1 AND k.key = $2"
);

#[async_trait]
impl OrderStore for PostgresStore {
    async fn create(&self, create: Create, now: OffsetDateTime) -> Result<CreateResult, Error> {
        Ok(self.creates.write(NewRow { create, now }).await?)
    }

    async fn store_response(&self, id: OrderId, response: StoredResponse) -> Result<(), Error> {
        self.with_retries(|| async {
            sqlx::query("UPDATE idempotency_keys SET answer = $4 WHERE subject = $1 AND key = $2 AND order_id = $3 AND answer IS NULL")
                .bind(response.key.subject.as_str())
                .bind(&response.key.key)
                .bind(id.as_uuid())
                .bind(&response.bytes)
                .execute(&mut *self.pool.acquire().await?)
                .await?;
            Ok(())
        })
        .await
    }

    async fn expire_creator_lease(&self, id: OrderId, now: OffsetDateTime) -> Result<bool, Error> {
        self.with_retries(|| async {
            let expired = sqlx::query("UPDATE orders SET due_at = $2 WHERE id = $1 AND due_at IS NOT NULL AND fence = $3")
                .bind(id.as_uuid())
                .bind(now)
                .bind(FIRST_FENCE)
                .execute(&mut *self.pool.acquire().await?)
                .await?;
            Ok(expired.rows_affected() == 1)
        })
        .await
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
        self.with_retries(|| self.request(id, &wanted, &by, &preconditions, (now, lease))).await
    }

    async fn remove(
        &self,
        id: OrderId,
        by: Actor,
        preconditions: VersionPreconditions,
        now: OffsetDateTime,
    ) -> Result<RemoveResult, Error> {
        self.with_retries(|| async {
            let mut db = self.pool.acquire().await?;
            match row::find_including_removed(&mut db, id).await? {
                None => return Ok(RemoveResult::NotFound),
                Some(order) if order.removed.is_some() => return Ok(RemoveResult::NotFound),
                // A terminal order keeps its version.
                Some(order) if !preconditions.allow_write(&order.version) => return Ok(RemoveResult::VersionMismatch),
                Some(order) if !order.status.is_terminal() => return Ok(RemoveResult::InProgress(order.status)),
                Some(_) => {}
            }
            let hide = sqlx::query(
                "UPDATE orders SET deleted_at = $2, deleted_by = $3, deleted_by_service = $4 WHERE id = $1 AND deleted_at IS NULL",
            );
            let hide = hide.bind(id.as_uuid()).bind(now).bind(by.subject.as_ref().map(Subject::as_str)).bind(by.service.as_deref());
            let hidden = hide.execute(&mut *db).await?;
            Ok(if hidden.rows_affected() == 1 { RemoveResult::Removed } else { RemoveResult::NotFound })
        })
        .await
    }

    async fn find(&self, id: OrderId) -> Result<Option<Order>, Error> {
        row::find_including_removed(&mut *self.pool.acquire().await?, id).await
    }

    async fn list(&self, list: List) -> Result<Page, Error> {
        let rows = list::select(&list).build().fetch_all(&mut *self.pool.acquire().await?).await?;
        let positions: Vec<_> = rows.iter().map(row::position).collect();
        Ok(Page::from_lookahead(rows.iter().map(row::order).collect(), &positions, &list))
    }

    async fn history_after(&self, id: OrderId, version: i64) -> Result<Vec<Order>, Error> {
        let mut db = self.pool.acquire().await?;
        let Some(order) = row::find_including_removed(&mut db, id).await? else { return Ok(Vec::new()) };
        let select = sqlx::query_as(SELECT_HISTORY).bind(id.as_uuid()).bind(version).bind(order.version);
        let rows: Vec<(i64, String, Option<String>, Timestamp, Option<String>)> = select.fetch_all(&mut *db).await?;
        let history: Vec<HistoryRow> =
            rows.into_iter().map(|(version, status, reason, Timestamp(at), lines)| (version, status, reason, at, lines)).collect();
        queries::snapshots(&order, history)
    }

    async fn history(&self, id: OrderId) -> Result<Vec<HistoryEntry>, Error> {
        let select = sqlx::query_as(SELECT_CHANGES).bind(id.as_uuid()).bind(i64::from(MAX_HISTORY));
        let rows: Vec<ChangeRow<Timestamp>> = select.fetch_all(&mut *self.pool.acquire().await?).await?;
        let decode = |row: ChangeRow<Timestamp>| {
            let Timestamp(at) = row.at;
            row.decode(at)
        };
        rows.into_iter().map(decode).collect()
    }

    async fn versions(&self, ids: Vec<OrderId>) -> Result<Vec<(OrderId, i64)>, Error> {
        let ids: Vec<Uuid> = ids.into_iter().map(OrderId::as_uuid).collect();
        let select = sqlx::query_as("SELECT id, version FROM orders WHERE id = ANY($1)").bind(ids);
        let rows: Vec<(Uuid, i64)> = select.fetch_all(&mut *self.pool.acquire().await?).await?;
        Ok(rows.into_iter().map(|(id, version)| (id.into(), version)).collect())
    }

    async fn delete_expired_keys(&self, now: OffsetDateTime, limit: u32) -> Result<u64, Error> {
        self.with_retries(|| async {
            let delete = sqlx::query(
                "DELETE FROM idempotency_keys WHERE expires_at <= $1 AND (subject, key) IN
                     (SELECT subject, key FROM idempotency_keys WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)",
            );
            let delete = delete.bind(now).bind(i64::from(limit));
            Ok(delete.execute(&mut *self.pool.acquire().await?).await?.rows_affected())
        })
        .await
    }
}

/// Result of a create whose key exists.
pub(super) async fn resolve_existing_key(
    db: &mut PgConnection,
    key: &IdempotencyKey,
    is_retry: bool,
    now: OffsetDateTime,
) -> Result<CreateResult, Error> {
    let existing = sqlx::query(SELECT_EXISTING_KEY).bind(key.subject.as_str()).bind(&key.key).fetch_optional(db).await?;
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
        // An unreadable lease has no effect.
        due_at: row.try_get::<Option<Timestamp>, _>("due_at").unwrap_or_default().map(|Timestamp(at)| at),
        order: row::order(row)?,
    })
}
