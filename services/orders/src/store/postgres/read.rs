//! Order queries in PostgreSQL.

use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use super::row::{self, columns, lines};
use crate::{
    order::{Order, OrderId},
    store::{Error, List, Page, history},
};

const FIND: &str = concat!("SELECT ", columns!(), " FROM orders o", lines!(), "WHERE o.id = $1 AND o.deleted_at IS NULL");
const FIND_INCLUDING_REMOVED: &str = concat!("SELECT ", columns!(), " FROM orders o", lines!(), "WHERE o.id = $1");

pub(super) async fn find(db: &mut PgConnection, id: OrderId) -> Result<Option<Order>, Error> {
    sqlx::query(FIND).bind(id.as_uuid()).fetch_optional(db).await?.as_ref().map(row::order).transpose()
}

pub(super) async fn find_including_removed(db: &mut PgConnection, id: OrderId) -> Result<Option<Order>, Error> {
    sqlx::query(FIND_INCLUDING_REMOVED).bind(id.as_uuid()).fetch_optional(db).await?.as_ref().map(row::order).transpose()
}

pub(super) async fn history_after(db: &mut PgConnection, id: OrderId, version: i64) -> Result<Vec<Order>, Error> {
    let rows: Vec<history::Row> = sqlx::query_as(history::SELECT_AFTER).bind(id.as_uuid()).bind(version).fetch_all(&mut *db).await?;
    find_including_removed(db, id).await?.map_or(Ok(Vec::new()), |order| history::snapshots(&order, rows))
}

pub(super) async fn versions(db: &mut PgConnection, ids: &[OrderId]) -> Result<Vec<(OrderId, i64)>, Error> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
    let rows: Vec<(Uuid, i64)> = sqlx::query_as("SELECT id, version FROM orders WHERE id = ANY($1)").bind(ids).fetch_all(db).await?;
    Ok(rows.into_iter().map(|(id, version)| (id.into(), version)).collect())
}

pub(super) async fn list(db: &mut PgConnection, list: &List) -> Result<Page, Error> {
    let rows = select(list).build().fetch_all(db).await?;
    let orders = rows.iter().map(row::order).collect::<Result<_, _>>()?;
    Ok(Page::from_lookahead(orders, list.limit))
}

/// Selects one order more than the page, to know whether another page follows. Adds only the
/// filters that are set, because each combination has its own index.
fn select(list: &List) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new(concat!("SELECT ", columns!(), " FROM (SELECT * FROM orders WHERE deleted_at IS NULL"));
    if let Some(user_id) = &list.user_id {
        query.push(" AND user_id = ").push_bind(user_id.clone());
    }
    if let Some(status) = list.status {
        query.push(" AND status = ").push_bind(status.as_str());
    }
    if let Some(after) = list.after {
        query.push(" AND (created_at, id) < (").push_bind(after.created_at).push(", ").push_bind(after.id.as_uuid()).push(")");
    }
    query.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(i64::from(list.limit) + 1);
    query.push(concat!(") o", lines!(), "ORDER BY o.created_at DESC, o.id DESC"));
    query
}
