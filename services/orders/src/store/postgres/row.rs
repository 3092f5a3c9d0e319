//! Row mapping from PostgreSQL to orders.

use palisade_middleware::auth::Subject;
use sqlx::{
    Decode, PgConnection, Postgres, Row, Type,
    error::BoxDynError,
    postgres::{PgRow, PgTypeInfo, PgValueRef},
};
use time::{OffsetDateTime, macros::datetime};
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

/// Columns that [`order`] reads, from `orders o` and its lines `l` as [`lines!`] joins them.
macro_rules! columns {
    () => {
        "o.id, o.user_id, o.status, o.failure_reason, o.total_minor, o.version, o.created_at, o.updated_at, o.deleted_at, o.deleted_by, \
         o.deleted_by_service, o.revision, \
         l.product_ids, l.quantities, l.names, l.prices"
    };
}

/// Joins the lines of `orders o`, aggregated into one row.
macro_rules! lines {
    () => {
        " CROSS JOIN LATERAL (SELECT array_agg(product_id ORDER BY position) AS product_ids, array_agg(quantity ORDER BY position) AS quantities, \
         array_agg(name ORDER BY position) AS names, array_agg(unit_price_minor ORDER BY position) AS prices \
         FROM order_lines WHERE order_id = o.id) l "
    };
}

/// Columns that [`claimed`] reads in addition to [`columns!`].
macro_rules! saga_columns {
    () => {
        ", o.release_pending, o.saga_deadline, o.attempts, o.fence, o.trace_parent, o.max_total_minor"
    };
}

pub(super) use {columns, lines, saga_columns};

const FIND_INCLUDING_REMOVED: &str = concat!("SELECT ", columns!(), " FROM orders o", lines!(), "WHERE o.id = $1");

pub(super) async fn find_including_removed(db: &mut PgConnection, id: OrderId) -> Result<Option<Order>, Error> {
    sqlx::query(FIND_INCLUDING_REMOVED).bind(id.as_uuid()).fetch_optional(db).await?.as_ref().map(order).transpose()
}

/// Timestamp that is checked: `infinity` and years beyond 9999 overflow in the driver's own type,
/// which panics.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timestamp(pub(super) OffsetDateTime);

impl Type<Postgres> for Timestamp {
    fn type_info() -> PgTypeInfo {
        <OffsetDateTime as Type<Postgres>>::type_info()
    }
}

impl<'r> Decode<'r, Postgres> for Timestamp {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        /// PostgreSQL counts microseconds from 2000.
        const EPOCH: OffsetDateTime = datetime!(2000-01-01 0:00 UTC);
        let micros = <i64 as Decode<Postgres>>::decode(value)?;
        let at = EPOCH.checked_add(time::Duration::microseconds(micros)).filter(|_| micros != i64::MAX && micros != i64::MIN);
        at.map(Self).ok_or_else(|| "the timestamp is out of range".into())
    }
}

pub(super) fn time(row: &PgRow, column: &str) -> Result<OffsetDateTime, Error> {
    Ok(row.try_get::<Timestamp, _>(column)?.0)
}

/// Returns the position of a row in a list, if it is readable.
pub(super) fn position(row: &PgRow) -> Option<Position> {
    Some(Position { created_at: time(row, "created_at").ok()?, id: row.try_get::<Uuid, _>("id").ok()?.into() })
}

pub(super) fn order(row: &PgRow) -> Result<Order, Error> {
    let product_ids: Vec<Uuid> = row.try_get("product_ids")?;
    let quantities: Vec<i64> = row.try_get("quantities")?;
    let names: Vec<Option<String>> = row.try_get("names")?;
    let prices: Vec<Option<i64>> = row.try_get("prices")?;
    let snapshots = names.into_iter().zip(prices).map(|(name, price)| Some(ProductSnapshot { name: name?, unit_price_minor: price? }));
    let lines = product_ids.into_iter().zip(quantities).zip(snapshots).map(|((product_id, quantity), snapshot)| Line {
        product_id,
        quantity,
        snapshot,
    });
    let failure_reason: Option<&str> = row.try_get("failure_reason")?;
    Ok(Order {
        id: row.try_get::<Uuid, _>("id")?.into(),
        user_id: Subject::parse(row.try_get("user_id")?).map_err(corrupt)?,
        lines: lines.collect(),
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

fn removal(row: &PgRow) -> Result<Option<Removal>, Error> {
    let Some(Timestamp(at)) = row.try_get("deleted_at")? else { return Ok(None) };
    let by: Option<&str> = row.try_get("deleted_by")?;
    Ok(Some(Removal { at, by: by.map(Subject::parse).transpose().map_err(corrupt)?, service: row.try_get("deleted_by_service")? }))
}

fn max_total(row: &PgRow) -> Result<Option<MaxTotal>, Error> {
    let stored: Option<i64> = row.try_get("max_total_minor")?;
    let invalid = || corrupt("the maximum total is out of range");
    stored.map(|minor| MaxTotal::new(minor).map_err(|_violation| invalid())).transpose()
}

pub(super) fn claimed(row: &PgRow) -> Result<Claimed, Error> {
    let saga = Saga {
        order: order(row)?,
        release_pending: row.try_get("release_pending")?,
        deadline: time(row, "saga_deadline")?,
        attempts: row.try_get::<i64, _>("attempts")?.try_into().map_err(corrupt)?,
        max_total: max_total(row)?,
    };
    Ok(Claimed { saga, fence: row.try_get("fence")?, trace_parent: row.try_get("trace_parent")? })
}
