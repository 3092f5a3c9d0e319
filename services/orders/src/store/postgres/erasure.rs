//! Erasure of a subject in PostgreSQL.

use async_trait::async_trait;
use palisade_middleware::auth::Subject;
use sqlx::{Connection, Row};
use uuid::Uuid;

use super::PostgresStore;
use crate::{
    order::{OrderId, Status},
    store::{
        database::Error,
        erasure::{self, ErasedKeys, ErasedOrders, ErasureStore, UNSETTLED},
        retention::settled,
    },
};

/// Looks for responses, which reads all keys, only with the last keys of the subject.
const ERASE_KEYS: &str = "
    WITH keys AS (
        DELETE FROM idempotency_keys
        WHERE (subject, key) IN (SELECT subject, key FROM idempotency_keys WHERE subject = $1 LIMIT $2) RETURNING 1
    ), responses AS (
        UPDATE idempotency_keys SET answer = NULL WHERE (subject, key) IN (
            SELECT subject, key FROM idempotency_keys
            WHERE subject <> $1 AND answer IS NOT NULL AND order_id IN (SELECT id FROM orders WHERE user_id = $1)
            LIMIT CASE WHEN (SELECT count(*) FROM keys) < $2 THEN $2 ELSE 0 END
        ) RETURNING 1
    )
    SELECT (SELECT count(*) FROM keys), (SELECT count(*) FROM responses)";

/// `$1` subject, `$2` pseudonym, `$3` last id of the previous batch, `$4` size of the batch, `$5`
/// and `$6` the members of a payload. One more column with a subject is one more `UPDATE`.
const ERASE_ORDERS: &str = concat!(
    "WITH batch AS MATERIALIZED (
        SELECT id, user_id = $1 AS is_owner, ",
    settled!(),
    " AND NOT EXISTS (SELECT FROM fulfilments WHERE order_id = id) AS is_settled
        FROM orders WHERE id > $3 ORDER BY id LIMIT $4
    ), orders_erased AS (
        UPDATE orders SET
            user_id = CASE WHEN is_owner AND is_settled THEN $2 ELSE orders.user_id END,
            deleted_by = CASE WHEN deleted_by = $1 THEN $2 ELSE deleted_by END
        FROM batch WHERE orders.id = batch.id AND ((is_owner AND is_settled) OR deleted_by = $1)
        RETURNING orders.user_id = $2 AS owner, deleted_by = $2 AS remover
    ), history_erased AS (
        UPDATE order_history SET actor_subject = $2 FROM batch WHERE order_id = batch.id AND actor_subject = $1
        RETURNING 1
    ), events_erased AS (
        UPDATE outbox SET payload = replace(payload, $5, $6)
        FROM batch WHERE order_id = batch.id AND is_owner AND is_settled AND strpos(payload, $5) > 0
        RETURNING 1
    )
    SELECT (SELECT id FROM batch ORDER BY id DESC LIMIT 1), (SELECT count(*) FROM orders_erased WHERE owner),
        (SELECT count(*) FROM orders_erased WHERE remover), (SELECT count(*) FROM history_erased),
        (SELECT count(*) FROM events_erased)"
);

#[async_trait]
impl ErasureStore for PostgresStore {
    async fn unsettled_orders(&self, subject: Subject) -> Result<Vec<(Status, u64)>, Error> {
        let select = sqlx::query_as(UNSETTLED).bind(subject.as_str());
        erasure::counts(select.fetch_all(&mut *self.pool.acquire().await?).await?)
    }

    async fn erase_keys(&self, subject: Subject, limit: u32) -> Result<ErasedKeys, Error> {
        self.with_retries(|| async {
            // As for an audit: closed after use, and with time to read all keys.
            let mut db = self.pool.acquire_and_close().await?;
            let mut transaction = db.begin().await?;
            sqlx::query("SET LOCAL statement_timeout = '30s'").execute(&mut *transaction).await?;
            let erase = sqlx::query_as(ERASE_KEYS).bind(subject.as_str()).bind(i64::from(limit));
            let (keys, responses): (i64, i64) = erase.fetch_one(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(ErasedKeys { keys: keys.unsigned_abs(), responses: responses.unsigned_abs() })
        })
        .await
    }

    async fn erase_orders(&self, subject: Subject, pseudonym: Subject, after: OrderId, limit: u32) -> Result<ErasedOrders, Error> {
        self.with_retries(|| async {
            let erase = sqlx::query(ERASE_ORDERS).bind(subject.as_str()).bind(pseudonym.as_str());
            let erase = erase.bind(after.as_uuid()).bind(i64::from(limit));
            let erase = erase.bind(erasure::payload_members(&subject)).bind(erasure::payload_members(&pseudonym));
            let row = erase.fetch_one(&mut *self.pool.acquire().await?).await?;
            let count = |index: usize| Ok::<_, Error>(row.try_get::<i64, _>(index)?.unsigned_abs());
            Ok(ErasedOrders {
                last: erasure::last(row.try_get::<Option<Uuid>, _>(0)?),
                orders: count(1)?,
                removals: count(2)?,
                history: count(3)?,
                events: count(4)?,
            })
        })
        .await
    }
}
