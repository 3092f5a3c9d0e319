//! Finding and listing orders.

use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::{
    moment::to_ms,
    row::{self, columns},
};
use crate::{
    order::{Order, OrderId},
    store::{Error, List, Page},
};

const FIND: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM orders o JOIN order_lines l ON l.order_id = o.id WHERE o.id = $1 AND o.deleted_at IS NULL ORDER BY l.position"
);
const FIND_EVEN_REMOVED: &str =
    concat!("SELECT ", columns!(), " FROM orders o JOIN order_lines l ON l.order_id = o.id WHERE o.id = $1 ORDER BY l.position");

pub(super) async fn find(db: &mut SqliteConnection, id: OrderId) -> Result<Option<Order>, Error> {
    Ok(row::orders(&sqlx::query(FIND).bind(id.as_uuid()).fetch_all(db).await?)?.pop())
}

pub(super) async fn find_even_removed(db: &mut SqliteConnection, id: OrderId) -> Result<Option<Order>, Error> {
    Ok(row::orders(&sqlx::query(FIND_EVEN_REMOVED).bind(id.as_uuid()).fetch_all(db).await?)?.pop())
}

pub(super) async fn list(db: &mut SqliteConnection, list: &List) -> Result<Page, Error> {
    let rows = select(list).build().fetch_all(db).await?;
    Ok(Page::of(row::orders(&rows)?, list.limit))
}

/// One more than the page, to know whether another follows. Only the filters that are set: each set of them has an index.
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
