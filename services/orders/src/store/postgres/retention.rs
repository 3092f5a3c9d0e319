//! Deletion of settled orders in PostgreSQL.

use async_trait::async_trait;
use sqlx::{Row, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    PostgresStore,
    row::{self, columns, lines},
};
use crate::{
    order::{OrderId, Status},
    store::{
        database::Error,
        retention::{self, RecordedChange, RetentionStore, SettledPage, SettledPosition, history_columns, nothing_pending, settled},
    },
};

const SELECT_SETTLED: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM (SELECT * FROM orders WHERE ",
    settled!(),
    " AND status = $1 AND updated_at <= $2 AND (updated_at, id) > ($3, $4)",
    nothing_pending!(),
    " ORDER BY updated_at, id LIMIT $5) o",
    lines!(),
    "ORDER BY o.updated_at, o.id"
);
const SELECT_HISTORY: &str =
    concat!("SELECT ", history_columns!(), " FROM order_history WHERE order_id = ANY($1) ORDER BY order_id, version");

/// One statement, so that triggers see the result of all deletions. Skips orders
/// that another replica deletes.
const DELETE: &str = concat!(
    "WITH settled AS MATERIALIZED (SELECT id FROM orders WHERE id = ANY($1) AND ",
    settled!(),
    nothing_pending!(),
    " FOR UPDATE SKIP LOCKED), \
     events AS (DELETE FROM outbox USING settled WHERE order_id = settled.id), \
     history AS (DELETE FROM order_history USING settled WHERE order_id = settled.id), \
     lines AS (DELETE FROM order_lines USING settled WHERE order_id = settled.id) \
     DELETE FROM orders USING settled WHERE orders.id = settled.id"
);

#[async_trait]
impl RetentionStore for PostgresStore {
    async fn settled_orders(
        &self,
        status: Status,
        before: OffsetDateTime,
        after: Option<SettledPosition>,
        limit: u32,
    ) -> Result<SettledPage, Error> {
        let after = after.unwrap_or(SettledPosition::START);
        let mut db = self.pool.acquire().await?;
        let select = sqlx::query(SELECT_SETTLED).bind(status.as_str()).bind(before);
        let select = select.bind(after.updated_at).bind(after.id.as_uuid()).bind(i64::from(limit));
        let mut rows = select.fetch_all(&mut *db).await?;
        let is_full = rows.len() >= limit as usize;
        let fitting = retention::fitting(rows.iter().map(|row| row.try_get("version").unwrap_or(1)));
        let is_cut = rows.len() > fitting;
        rows.truncate(fitting);
        let mut ids = Vec::with_capacity(rows.len());
        for row in &rows {
            ids.push(row.try_get::<Uuid, _>("id")?);
        }
        let next = match (rows.last(), ids.last()) {
            (Some(row), Some(id)) if is_full || is_cut => {
                Some(SettledPosition { updated_at: row::time(row, "updated_at")?, id: OrderId::from(*id) })
            }
            _ => None,
        };
        let history = sqlx::query(SELECT_HISTORY).bind(&ids).fetch_all(&mut *db).await?;
        let history = history.iter().map(|row| Ok((row.try_get("order_id")?, history_entry(row))));
        Ok(SettledPage::new(rows.iter().map(row::order).collect(), history.collect::<Result<_, Error>>()?, next))
    }

    async fn delete_settled(&self, ids: Vec<OrderId>) -> Result<u64, Error> {
        let ids: Vec<Uuid> = ids.into_iter().map(OrderId::as_uuid).collect();
        self.with_retries(|| async {
            let delete = sqlx::query(DELETE).bind(&ids);
            Ok(delete.execute(&mut *self.pool.acquire().await?).await?.rows_affected())
        })
        .await
    }
}

fn history_entry(row: &PgRow) -> Result<RecordedChange, Error> {
    Ok(RecordedChange {
        version: row.try_get("version")?,
        from: row.try_get("from_status")?,
        to: row.try_get("to_status")?,
        reason: row.try_get("reason")?,
        replaced_lines: row.try_get("replaced_lines")?,
        actor: row.try_get("actor")?,
        actor_subject: row.try_get("actor_subject")?,
        actor_service: row.try_get("actor_service")?,
        at: row::time(row, "at")?,
    })
}
