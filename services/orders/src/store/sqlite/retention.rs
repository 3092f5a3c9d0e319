//! Deletion of settled orders in SQLite.

use async_trait::async_trait;
use palisade_store::json_rows::{self, hex};
use sqlx::{Connection, Row, sqlite::SqliteRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    SqliteStore,
    row::{self, columns, to_ms},
};
use crate::{
    order::{OrderId, Status},
    store::{
        database::{Error, corrupt},
        retention::{self, RecordedChange, RetentionStore, SettledPage, SettledPosition, history_columns, nothing_pending, settled},
    },
};

/// An outer join: an order without lines is unreadable, not invisible.
const SELECT_SETTLED: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM (SELECT * FROM orders WHERE ",
    settled!(),
    " AND status = $1 AND updated_at <= $2 AND (updated_at, id) > ($3, $4)",
    nothing_pending!(),
    " ORDER BY updated_at, id LIMIT $5) o LEFT JOIN order_lines l ON l.order_id = o.id ORDER BY o.updated_at, o.id, l.position"
);
/// `$1` is a JSON array of ids, here and below.
const SELECT_HISTORY: &str = concat!(
    "SELECT ",
    history_columns!(),
    " FROM order_history WHERE order_id IN (SELECT unhex(value) FROM json_each($1)) ORDER BY order_id, version"
);
const DELETE_ORDERS: &str = concat!(
    "DELETE FROM orders WHERE id IN (SELECT unhex(value) FROM json_each($1)) AND ",
    settled!(),
    nothing_pending!(),
    " RETURNING id"
);
const DELETE_ROWS: [&str; 3] = [
    "DELETE FROM outbox WHERE order_id IN (SELECT unhex(value) FROM json_each($1))",
    "DELETE FROM order_history WHERE order_id IN (SELECT unhex(value) FROM json_each($1))",
    "DELETE FROM order_lines WHERE order_id IN (SELECT unhex(value) FROM json_each($1))",
];

#[async_trait]
impl RetentionStore for SqliteStore {
    async fn settled_orders(
        &self,
        status: Status,
        before: OffsetDateTime,
        after: Option<SettledPosition>,
        limit: u32,
    ) -> Result<SettledPage, Error> {
        let after = after.unwrap_or(SettledPosition::START);
        let mut db = self.readers.acquire().await?;
        let select = sqlx::query(SELECT_SETTLED).bind(status.as_str()).bind(to_ms(before));
        let select = select.bind(to_ms(after.updated_at)).bind(after.id.as_uuid()).bind(limit);
        let mut rows = select.fetch_all(&mut *db).await?;
        let found = row::orders(&rows)?;
        let versions = found.iter().map(|(_, order)| order.as_ref().map_or(1, |order| order.version));
        let (is_full, fitting) = (found.len() >= limit as usize, retention::fitting(versions));
        let is_cut = found.len() > fitting;
        let (ids, orders): (Vec<Uuid>, Vec<_>) = found.into_iter().take(fitting).unzip();
        // The rows of an order are its lines.
        while let (Some(row), Some(last)) = (rows.last(), ids.last()) {
            if row.try_get::<Uuid, _>("id")? == *last {
                break;
            }
            rows.pop();
        }
        let next = match (rows.last(), ids.last()) {
            (Some(row), Some(id)) if is_full || is_cut => {
                Some(SettledPosition { updated_at: row::time(row, "updated_at")?, id: OrderId::from(*id) })
            }
            _ => None,
        };
        let history = sqlx::query(SELECT_HISTORY).bind(encode(&ids)?).fetch_all(&mut *db).await?;
        let history = history.iter().map(|row| Ok((row.try_get("order_id")?, history_entry(row))));
        Ok(SettledPage::new(orders, history.collect::<Result<_, Error>>()?, next))
    }

    async fn delete_settled(&self, ids: Vec<OrderId>) -> Result<u64, Error> {
        let ids: Vec<Uuid> = ids.into_iter().map(OrderId::as_uuid).collect();
        let mut db = self.writer.acquire().await?;
        let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
        // Until the commit: the triggers demand that an order is deleted before its rows.
        sqlx::query("PRAGMA defer_foreign_keys = ON").execute(&mut *transaction).await?;
        let deleted: Vec<Uuid> = sqlx::query_scalar(DELETE_ORDERS).bind(encode(&ids)?).fetch_all(&mut *transaction).await?;
        let rows = encode(&deleted)?;
        for delete in DELETE_ROWS {
            json_rows::execute(&mut transaction, delete, &rows).await?;
        }
        transaction.commit().await?;
        Ok(deleted.len() as u64)
    }
}

fn encode(ids: &[Uuid]) -> Result<String, Error> {
    json_rows::encode(&ids.iter().copied().map(hex).collect::<Vec<_>>()).map_err(corrupt)
}

fn history_entry(row: &SqliteRow) -> Result<RecordedChange, Error> {
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
