//! Row mapping from SQLite to orders. Timestamps are milliseconds since the Unix epoch.

use palisade_middleware::auth::Subject;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    order::{Line, MaxTotal, Order, OrderId, ProductSnapshot, Removal},
    saga::Saga,
    store::{
        database::{Error, corrupt},
        orders::Claimed,
        queries::Position,
        revisions,
    },
};

/// Columns that [`orders`] reads, from `orders o` joined with `order_lines l`: one row per line,
/// lines in order.
macro_rules! columns {
    () => {
        "o.id, o.user_id, o.status, o.failure_reason, o.total_minor, o.version, o.created_at, o.updated_at, o.deleted_at, o.deleted_by, \
         o.deleted_by_service, o.revision, \
         l.product_id, l.quantity, l.name, l.unit_price_minor"
    };
}

/// Columns that [`claimed`] reads in addition to [`columns!`].
macro_rules! saga_columns {
    () => {
        ", o.release_pending, o.saga_deadline, o.attempts, o.fence, o.trace_parent, o.max_total_minor"
    };
}

pub(super) use {columns, saga_columns};

const FIND_INCLUDING_REMOVED: &str =
    concat!("SELECT ", columns!(), " FROM orders o JOIN order_lines l ON l.order_id = o.id WHERE o.id = $1 ORDER BY l.position");

pub(super) async fn find_including_removed(db: &mut SqliteConnection, id: OrderId) -> Result<Option<Order>, Error> {
    single_order(&sqlx::query(FIND_INCLUDING_REMOVED).bind(id.as_uuid()).fetch_all(db).await?)
}

/// Decodes the rows of at most one order.
pub(super) fn single_order(rows: &[SqliteRow]) -> Result<Option<Order>, Error> {
    orders(rows)?.pop().map(|(_, order)| order).transpose()
}

/// Result of decoding each run of rows with the same id, and that id.
type ById<T> = Vec<(Uuid, Result<T, Error>)>;

/// Calls `make` with the first row and the order of each run of rows with the same id.
fn group_by_order<T>(rows: &[SqliteRow], make: impl Fn(&SqliteRow, Order) -> Result<T, Error>) -> Result<ById<T>, Error> {
    let mut ids = Vec::with_capacity(rows.len());
    for row in rows {
        ids.push((row.try_get::<Uuid, _>("id")?, row));
    }
    let group = |rows: &[(Uuid, &SqliteRow)]| {
        let lines = rows.iter().map(|(_, row)| line(row)).collect::<Result<_, _>>()?;
        make(rows[0].1, order(rows[0].1, lines)?)
    };
    Ok(ids.chunk_by(|(a, _), (b, _)| a == b).map(|rows| (rows[0].0, group(rows))).collect())
}

pub(super) fn orders(rows: &[SqliteRow]) -> Result<ById<Order>, Error> {
    group_by_order(rows, |_, order| Ok(order))
}

/// Returns the positions of the orders in a list, as far as they are readable.
pub(super) fn positions(rows: &[SqliteRow]) -> Result<Vec<Option<Position>>, Error> {
    let mut positions: Vec<(Uuid, Option<Position>)> = Vec::with_capacity(rows.len());
    for row in rows {
        let id: Uuid = row.try_get("id")?;
        let created_at = time(row, "created_at").ok();
        positions.push((id, created_at.map(|created_at| Position { created_at, id: id.into() })));
    }
    positions.dedup_by_key(|(id, _)| *id);
    Ok(positions.into_iter().map(|(_, position)| position).collect())
}

pub(super) fn claimed(rows: &[SqliteRow]) -> Result<ById<Claimed>, Error> {
    group_by_order(rows, |row, order| {
        let saga = Saga {
            order,
            release_pending: row.try_get("release_pending")?,
            deadline: time(row, "saga_deadline")?,
            attempts: row.try_get::<i64, _>("attempts")?.try_into().map_err(corrupt)?,
            max_total: max_total(row)?,
        };
        Ok(Claimed { saga, fence: row.try_get("fence")?, trace_parent: row.try_get("trace_parent")? })
    })
}

fn max_total(row: &SqliteRow) -> Result<Option<MaxTotal>, Error> {
    let stored: Option<i64> = row.try_get("max_total_minor")?;
    let invalid = || corrupt("the maximum total is out of range");
    stored.map(|minor| MaxTotal::new(minor).map_err(|_violation| invalid())).transpose()
}

pub(super) fn time(row: &SqliteRow, column: &str) -> Result<OffsetDateTime, Error> {
    from_ms(row.try_get(column)?)
}

fn order(row: &SqliteRow, lines: Vec<Line>) -> Result<Order, Error> {
    let failure_reason: Option<&str> = row.try_get("failure_reason")?;
    Ok(Order {
        id: row.try_get::<Uuid, _>("id")?.into(),
        user_id: Subject::parse(row.try_get("user_id")?).map_err(corrupt)?,
        lines,
        total_minor: row.try_get("total_minor")?,
        status: row.try_get::<&str, _>("status")?.parse().map_err(corrupt)?,
        failure_reason: failure_reason.map(str::parse).transpose().map_err(corrupt)?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
        version: row.try_get("version")?,
        revision: revisions::decode(row.try_get("revision")?)?,
        removed: removal(row)?,
    })
}

fn removal(row: &SqliteRow) -> Result<Option<Removal>, Error> {
    let Some(at) = row.try_get::<Option<i64>, _>("deleted_at")? else { return Ok(None) };
    let by: Option<&str> = row.try_get("deleted_by")?;
    Ok(Some(Removal {
        at: from_ms(at)?,
        by: by.map(Subject::parse).transpose().map_err(corrupt)?,
        service: row.try_get("deleted_by_service")?,
    }))
}

fn line(row: &SqliteRow) -> Result<Line, Error> {
    let name: Option<String> = row.try_get("name")?;
    let price: Option<i64> = row.try_get("unit_price_minor")?;
    let snapshot = name.zip(price).map(|(name, unit_price_minor)| ProductSnapshot { name, unit_price_minor });
    Ok(Line { product_id: row.try_get("product_id")?, quantity: row.try_get("quantity")?, snapshot })
}

pub(super) fn to_ms(at: OffsetDateTime) -> i64 {
    at.unix_timestamp() * 1_000 + i64::from(at.millisecond())
}

pub(super) fn from_ms(ms: i64) -> Result<OffsetDateTime, Error> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).map_err(corrupt)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn timestamp_roundtrip_keeps_milliseconds() {
        for at in [datetime!(2026-11-22 21:34:09.123 UTC), datetime!(1969-12-31 23:59:59.999 UTC), OffsetDateTime::UNIX_EPOCH] {
            assert_eq!(from_ms(to_ms(at)).unwrap(), at);
        }
        assert!(from_ms(i64::MAX).is_err());
    }
}
