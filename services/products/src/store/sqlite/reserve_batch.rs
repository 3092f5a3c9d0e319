//! Reserves a batch of reservations in one transaction, with one statement per table.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use palisade_middleware::{
    clock,
    group_commit::{BatchResult, BatchWriter},
    planted,
};
use palisade_store::json_rows::{self, hex};
use serde::Serialize;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Pool, begin,
    reservations::{find_or_expire, move_to},
};
use crate::{
    reservation::{Lines, ProductStock, Reservation, State},
    store::database::{Error, to_millis},
};

/// `?1` of all statements is a JSON array.
const SELECT_EXISTING: &str = "SELECT id FROM reservations WHERE id IN (SELECT unhex(value) FROM json_each(?1))";
const SELECT_STOCK: &str = "
    SELECT id, name, price_minor, quantity, is_active FROM products WHERE id IN (SELECT unhex(value) FROM json_each(?1))";
const INSERT_RESERVATIONS: &str = "
    INSERT INTO reservations (id, state, refusal, refused_product, expires_at)
    SELECT unhex(value ->> 'id'), value ->> 'state', value ->> 'refusal', unhex(value ->> 'refused_product'), value ->> 'expires_at'
    FROM json_each(?1)";
const INSERT_LINES: &str = "
    INSERT INTO reservation_lines (reservation_id, product_id, quantity, name, unit_price_minor)
    SELECT unhex(value ->> 'reservation_id'), unhex(value ->> 'product_id'), value ->> 'quantity', value ->> 'name', value ->> 'unit_price_minor'
    FROM json_each(?1)";
/// The version counts the changes, of which one update makes several.
const TAKE: &str = "
    UPDATE products
    SET quantity = products.quantity - taken.units, taken = products.taken + taken.units,
        version = version + taken.reservations, updated_at = taken.at
    FROM (
        SELECT unhex(value ->> 'product_id') AS product_id, value ->> 'units' AS units, value ->> 'reservations' AS reservations,
               value ->> 'at' AS at
        FROM json_each(?1)
    ) AS taken
    WHERE products.id = taken.product_id";

/// Writer of batches of reservations.
#[derive(Debug)]
pub(super) struct ReserveWriter {
    pub(super) pool: Arc<Pool>,
}

/// Reservation to make.
#[derive(Debug)]
pub(super) struct NewReservation {
    pub(super) id: Uuid,
    pub(super) lines: Lines,
    /// Whether it is confirmed at once.
    pub(super) confirm: bool,
    pub(super) now: OffsetDateTime,
    pub(super) hold_for: Duration,
}

#[derive(Serialize)]
struct ReservationRow {
    id: String,
    state: &'static str,
    refusal: Option<&'static str>,
    refused_product: Option<String>,
    expires_at: i64,
}

#[derive(Serialize)]
struct LineRow<'a> {
    reservation_id: String,
    product_id: String,
    quantity: i64,
    name: &'a str,
    unit_price_minor: i64,
}

#[derive(Serialize)]
struct TakeRow {
    product_id: String,
    units: i64,
    reservations: i64,
    at: i64,
}

impl BatchWriter for ReserveWriter {
    type Item = NewReservation;
    type Output = Reservation;
    type Error = Error;

    async fn write(&self, items: &[NewReservation]) -> BatchResult<Self> {
        let mut db = self.pool.acquire().await?;
        let mut transaction = begin(&mut db).await?;
        let results = write(&mut transaction, items).await?;
        if planted!("reservation acknowledged before its commit") {
            transaction.rollback().await?;
            return Ok(results.into_iter().map(Ok).collect());
        }
        transaction.commit().await?;
        Ok(results.into_iter().map(Ok).collect())
    }
}

async fn write(db: &mut SqliteConnection, items: &[NewReservation]) -> Result<Vec<Reservation>, Error> {
    let mut existing = existing(db, items).await?;
    let products: HashSet<Uuid> = items.iter().flat_map(|item| item.lines.as_slice()).map(|line| line.product_id).collect();
    let mut stock = load_stock(db, products.into_iter()).await?;
    let mut new = HashMap::with_capacity(items.len());
    let mut takes = BTreeMap::new();
    for (n, item) in items.iter().enumerate() {
        // Of two with the same id, the second finds the first.
        if !existing.insert(item.id) {
            if planted!("repeated reserve takes again") {
                take(&mut stock, &mut takes, item);
            }
            continue;
        }
        let (mut state, lines) = item.lines.evaluate(&stock);
        if planted!("stock not checked") {
            state = State::Held;
        }
        if state == State::Held {
            take(&mut stock, &mut takes, item);
            state = if item.confirm { State::Confirmed } else { State::Held };
        }
        new.insert(n, Reservation { id: item.id, state, lines, expires_at: clock::after(item.now, item.hold_for) });
    }
    insert_all(db, new.values()).await?;
    let takes: Vec<TakeRow> = takes.into_values().collect();
    if !takes.is_empty() {
        json_rows::execute(db, TAKE, &encode(&takes)?).await?;
    }
    let mut results = Vec::with_capacity(items.len());
    for (n, item) in items.iter().enumerate() {
        results.push(match new.remove(&n) {
            Some(reservation) => reservation,
            None => find(db, item).await?,
        });
    }
    Ok(results)
}

/// Returns the ids of those `items` that exist.
async fn existing(db: &mut SqliteConnection, items: &[NewReservation]) -> Result<HashSet<Uuid>, Error> {
    let ids: Vec<String> = items.iter().map(|item| hex(item.id)).collect();
    Ok(sqlx::query_scalar(SELECT_EXISTING).bind(encode(&ids)?).fetch_all(db).await?.into_iter().collect())
}

pub(super) async fn load_stock(
    db: &mut SqliteConnection,
    products: impl Iterator<Item = Uuid>,
) -> Result<HashMap<Uuid, ProductStock>, Error> {
    let ids: Vec<String> = products.map(hex).collect();
    let stock = |row: &SqliteRow| {
        let stock = ProductStock {
            name: row.try_get("name")?,
            unit_price_minor: row.try_get("price_minor")?,
            quantity: row.try_get("quantity")?,
            is_active: row.try_get("is_active")?,
        };
        Ok((row.try_get("id")?, stock))
    };
    sqlx::query(SELECT_STOCK).bind(encode(&ids)?).fetch_all(db).await?.iter().map(stock).collect()
}

/// Takes the units of `item`, which are available.
fn take(stock: &mut HashMap<Uuid, ProductStock>, takes: &mut BTreeMap<Uuid, TakeRow>, item: &NewReservation) {
    let lines = if planted!("first line only") { &item.lines.as_slice()[..1] } else { item.lines.as_slice() };
    for line in lines {
        stock.entry(line.product_id).and_modify(|product| product.quantity -= line.quantity);
        let row = TakeRow { product_id: hex(line.product_id), units: 0, reservations: 0, at: i64::MIN };
        let row = takes.entry(line.product_id).or_insert(row);
        row.units += line.quantity;
        row.reservations += 1;
        row.at = row.at.max(to_millis(item.now));
    }
}

async fn insert_all(db: &mut SqliteConnection, new: impl Iterator<Item = &Reservation> + Clone) -> Result<(), Error> {
    let reservations: Vec<ReservationRow> = new.clone().map(ReservationRow::from).collect();
    if reservations.is_empty() {
        return Ok(());
    }
    json_rows::execute(db, INSERT_RESERVATIONS, &encode(&reservations)?).await?;
    insert_lines(db, new).await
}

pub(super) async fn insert_lines(db: &mut SqliteConnection, of: impl Iterator<Item = &Reservation>) -> Result<(), Error> {
    let lines = of.flat_map(|reservation| {
        reservation.lines.iter().map(|line| LineRow {
            reservation_id: hex(reservation.id),
            product_id: hex(line.product_id),
            quantity: line.quantity,
            name: &line.name,
            unit_price_minor: line.unit_price_minor,
        })
    });
    let lines: Vec<LineRow<'_>> = lines.collect();
    json_rows::execute(db, INSERT_LINES, &encode(&lines)?).await?;
    Ok(())
}

/// Returns the reservation that exists, confirmed if `item` asks for that.
async fn find(db: &mut SqliteConnection, item: &NewReservation) -> Result<Reservation, Error> {
    let found = find_or_expire(db, item.id, item.now).await?;
    let mut reservation = found.ok_or_else(|| Error::Corrupt(format!("reservation {} is missing", item.id)))?;
    if item.confirm && reservation.state == State::Held && reservation.has_lines(&item.lines) {
        move_to(db, &mut reservation, State::Confirmed).await?;
    }
    Ok(reservation)
}

impl From<&Reservation> for ReservationRow {
    fn from(reservation: &Reservation) -> Self {
        let refused = match reservation.state {
            State::Refused { reason, product_id } => Some((reason.as_str(), hex(product_id))),
            _ => None,
        };
        let (refusal, refused_product) = refused.unzip();
        Self {
            id: hex(reservation.id),
            state: reservation.state.as_str(),
            refusal,
            refused_product,
            expires_at: to_millis(reservation.expires_at),
        }
    }
}

pub(super) fn encode(rows: &[impl Serialize]) -> Result<String, Error> {
    json_rows::encode(rows).map_err(|error| Error::Corrupt(error.to_string()))
}
