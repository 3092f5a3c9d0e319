//! Order queries in SQLite.

use sqlx::{QueryBuilder, Sqlite, SqliteConnection};
use uuid::Uuid;

use super::{
    row::{self, columns},
    timestamp::{from_ms, to_ms},
};
use crate::{
    order::{Order, OrderId},
    store::{Error, List, Page, history},
};

const FIND: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM orders o JOIN order_lines l ON l.order_id = o.id WHERE o.id = $1 AND o.deleted_at IS NULL ORDER BY l.position"
);
const FIND_INCLUDING_REMOVED: &str =
    concat!("SELECT ", columns!(), " FROM orders o JOIN order_lines l ON l.order_id = o.id WHERE o.id = $1 ORDER BY l.position");

pub(super) async fn find(db: &mut SqliteConnection, id: OrderId) -> Result<Option<Order>, Error> {
    Ok(row::orders(&sqlx::query(FIND).bind(id.as_uuid()).fetch_all(db).await?)?.pop())
}

pub(super) async fn find_including_removed(db: &mut SqliteConnection, id: OrderId) -> Result<Option<Order>, Error> {
    Ok(row::orders(&sqlx::query(FIND_INCLUDING_REMOVED).bind(id.as_uuid()).fetch_all(db).await?)?.pop())
}

pub(super) async fn history_after(db: &mut SqliteConnection, id: OrderId, version: i64) -> Result<Vec<Order>, Error> {
    let rows: Vec<(i64, String, Option<String>, i64)> =
        sqlx::query_as(history::SELECT_AFTER).bind(id.as_uuid()).bind(version).fetch_all(&mut *db).await?;
    let rows = rows.into_iter().map(|(version, status, reason, at)| Ok((version, status, reason, from_ms(at)?)));
    let rows = rows.collect::<Result<_, Error>>()?;
    find_including_removed(db, id).await?.map_or(Ok(Vec::new()), |order| history::snapshots(&order, rows))
}

pub(super) async fn versions(db: &mut SqliteConnection, ids: &[OrderId]) -> Result<Vec<(OrderId, i64)>, Error> {
    let mut versions = Vec::with_capacity(ids.len());
    for id in ids {
        let row: Option<(Uuid, i64)> =
            sqlx::query_as("SELECT id, version FROM orders WHERE id = $1").bind(id.as_uuid()).fetch_optional(&mut *db).await?;
        versions.extend(row.map(|(id, version)| (id.into(), version)));
    }
    Ok(versions)
}

pub(super) async fn list(db: &mut SqliteConnection, list: &List) -> Result<Page, Error> {
    let rows = select(list).build().fetch_all(db).await?;
    Ok(Page::from_lookahead(row::orders(&rows)?, list.limit))
}

/// Selects one order more than the page, to know whether another page follows. Adds only the
/// filters that are set, because each combination has its own index.
fn select(list: &List) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(concat!("SELECT ", columns!(), " FROM (SELECT * FROM orders WHERE deleted_at IS NULL"));
    if let Some(user_id) = &list.user_id {
        query.push(" AND user_id = ").push_bind(user_id.clone());
    }
    if let Some(status) = list.status {
        query.push(" AND status = ").push_bind(status.as_str());
    }
    if let Some(after) = list.after {
        query.push(" AND (created_at, id) < (").push_bind(to_ms(after.created_at)).push(", ").push_bind(after.id.as_uuid()).push(")");
    }
    query.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(i64::from(list.limit) + 1);
    query.push(") o JOIN order_lines l ON l.order_id = o.id ORDER BY o.created_at DESC, o.id DESC, l.position");
    query
}
