//! Erasure of a subject in SQLite.

use async_trait::async_trait;
use palisade_middleware::auth::Subject;
use sqlx::Connection;
use uuid::Uuid;

use super::SqliteStore;
use crate::{
    order::{OrderId, Status},
    store::{
        database::Error,
        erasure::{self, ErasedKeys, ErasedOrders, ErasureStore, UNSETTLED},
        retention::settled,
    },
};

const ERASE_KEYS: &str = "
    DELETE FROM idempotency_keys
    WHERE (subject, key) IN (SELECT subject, key FROM idempotency_keys WHERE subject = $1 LIMIT $2)";
/// Reads all keys: not on the connection of the writes, and only with the last keys of the subject.
const FIND_RESPONSES: &str = "
    SELECT subject, key FROM idempotency_keys
    WHERE subject <> $1 AND answer IS NOT NULL AND order_id IN (SELECT id FROM orders WHERE user_id = $1) LIMIT $2";
const ERASE_RESPONSE: &str = "UPDATE idempotency_keys SET answer = NULL WHERE subject = $1 AND key = $2 AND answer IS NOT NULL";
const SELECT_LAST: &str = "SELECT max(id) FROM (SELECT id FROM orders WHERE id > $1 ORDER BY id LIMIT $2)";

/// Condition of the settled orders of subject `$1`, with ids from above `$3` to `$4`. In all
/// statements `$2` is the pseudonym, and `$5` and `$6` are the members of a payload.
macro_rules! own_settled {
    () => {
        concat!("id > $3 AND id <= $4 AND user_id = $1 AND ", settled!(), " AND NOT EXISTS (SELECT 1 FROM fulfilments WHERE order_id = id)")
    };
}

/// Finds the events by the owner of their orders, so it is the first statement.
const ERASE_EVENTS: &str = concat!(
    "UPDATE outbox SET payload = replace(payload, $5, $6) WHERE order_id IN (SELECT id FROM orders WHERE ",
    own_settled!(),
    ") AND instr(payload, $5) > 0"
);
const ERASE_OWNERS: &str = concat!("UPDATE orders SET user_id = $2 WHERE ", own_settled!());
const ERASE_ACTORS: &str = "UPDATE order_history SET actor_subject = $2 WHERE order_id > $3 AND order_id <= $4 AND actor_subject = $1";
const ERASE_REMOVERS: &str = "UPDATE orders SET deleted_by = $2 WHERE id > $3 AND id <= $4 AND deleted_by = $1";

#[async_trait]
impl ErasureStore for SqliteStore {
    async fn unsettled_orders(&self, subject: Subject) -> Result<Vec<(Status, u64)>, Error> {
        let select = sqlx::query_as(UNSETTLED).bind(subject.as_str());
        erasure::counts(select.fetch_all(&mut *self.readers.acquire().await?).await?)
    }

    async fn erase_keys(&self, subject: Subject, limit: u32) -> Result<ErasedKeys, Error> {
        let delete = sqlx::query(ERASE_KEYS).bind(subject.as_str()).bind(limit);
        let keys = delete.execute(&mut *self.writer.acquire().await?).await?.rows_affected();
        let mut responses = 0;
        if keys == u64::from(limit) {
            return Ok(ErasedKeys { keys, responses });
        }
        let find = sqlx::query_as(FIND_RESPONSES).bind(subject.as_str()).bind(limit);
        let found: Vec<(String, String)> = find.fetch_all(&mut *self.readers.acquire().await?).await?;
        let mut db = self.writer.acquire().await?;
        let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
        for (holder, key) in found {
            let erase = sqlx::query(ERASE_RESPONSE).bind(holder).bind(key);
            responses += erase.execute(&mut *transaction).await?.rows_affected();
        }
        transaction.commit().await?;
        Ok(ErasedKeys { keys, responses })
    }

    async fn erase_orders(&self, subject: Subject, pseudonym: Subject, after: OrderId, limit: u32) -> Result<ErasedOrders, Error> {
        let mut db = self.writer.acquire().await?;
        let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
        let last: Option<Uuid> = sqlx::query_scalar(SELECT_LAST).bind(after.as_uuid()).bind(limit).fetch_one(&mut *transaction).await?;
        let Some(last) = last else { return Ok(ErasedOrders::default()) };
        let members = (erasure::payload_members(&subject), erasure::payload_members(&pseudonym));
        let mut changed = [0; 4];
        // One more column with a subject is one more statement.
        for (statement, changed) in [ERASE_EVENTS, ERASE_OWNERS, ERASE_REMOVERS, ERASE_ACTORS].into_iter().zip(&mut changed) {
            let erase = sqlx::query(statement).bind(subject.as_str()).bind(pseudonym.as_str());
            let erase = erase.bind(after.as_uuid()).bind(last).bind(&members.0).bind(&members.1);
            *changed = erase.execute(&mut *transaction).await?.rows_affected();
        }
        transaction.commit().await?;
        let [events, orders, removals, history] = changed;
        Ok(ErasedOrders { last: erasure::last(Some(last)), orders, removals, history, events })
    }
}
