//! Invariants of the products store, checked after every write.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::parse;
use crate::story::Violation;

/// Reads the data of products and remembers what must not change.
pub struct ProductsCheck(Mutex<Reader>);

struct Reader {
    db: SqliteConnection,
    data_version: Option<i64>,
    states: BTreeMap<Uuid, ReservationState>,
}

/// A product.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct ProductRow {
    /// Its id.
    pub id: Uuid,
    /// Units that can be sold.
    pub quantity: i64,
    /// Units in open reservations.
    pub taken: i64,
    /// Opening stock and all adjustments.
    pub supply: i64,
}

/// A reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservationState {
    /// Its state.
    pub state: String,
    /// Whether its units have left the stock.
    pub is_fulfilled: bool,
    /// Quantities by product.
    pub lines: BTreeMap<Uuid, i64>,
}

impl ReservationState {
    /// Whether it owns units.
    pub fn is_open(&self) -> bool {
        matches!(self.state.as_str(), "HELD" | "CONFIRMED")
    }

    /// Whether it owns units, or owned them until they left the stock.
    pub fn owns_or_fulfilled(&self) -> bool {
        self.is_open() || self.is_fulfilled
    }
}

/// All data of products.
#[derive(Debug, Default)]
pub struct ProductsData {
    /// The catalogue.
    pub products: Vec<ProductRow>,
    /// The reservations.
    pub reservations: BTreeMap<Uuid, ReservationState>,
    /// Sum of the ledger by product.
    pub ledger: BTreeMap<Uuid, i64>,
    /// Units of the ledger by order and product, with the number of entries.
    pub fulfilled: BTreeMap<(Uuid, Uuid), (i64, i64)>,
}

impl ProductsCheck {
    /// Opens the file at `path`.
    pub async fn open(path: &Path) -> anyhow::Result<Self> {
        let db = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await?;
        Ok(Self(Mutex::new(Reader { db, data_version: None, states: BTreeMap::new() })))
    }

    /// Reads the data.
    pub async fn read(&self) -> sqlx::Result<ProductsData> {
        self.0.lock().await.read().await
    }

    /// Checks the data, also against the previous check.
    pub async fn check(&self) -> Vec<Violation> {
        let mut reader = self.0.lock().await;
        let mut violations = Vec::new();
        match reader.read_changed().await {
            Ok(None) => {}
            Ok(Some(data)) => {
                check_stock(&data, &mut violations);
                check_moves(&reader.states, &data.reservations, &mut violations);
                reader.states = data.reservations;
            }
            Err(error) => violations.push(Violation { invariant: "the data can be read", evidence: error.to_string() }),
        }
        violations
    }
}

/// Id, state and fulfilment of a reservation, with the product and quantity of one of its lines.
type LineRow = (Uuid, String, i64, Option<Uuid>, Option<i64>);
type LedgerRow = (Uuid, i64);
type FulfilmentRow = (Uuid, Uuid, i64, i64);

/// All data in one row: a row of each table would cost more than the call that is checked.
const READ: &str = "SELECT
    (SELECT json_group_array(json_object('id', hex(id), 'quantity', quantity, 'taken', taken, 'supply', supply)) FROM products),
    (SELECT json_group_array(json_array(hex(r.id), r.state, r.fulfilled_at IS NOT NULL, iif(l.product_id IS NULL, NULL, hex(l.product_id)),
        l.quantity)) FROM reservations r LEFT JOIN reservation_lines l ON l.reservation_id = r.id),
    (SELECT json_group_array(json_array(hex(product_id), units))
        FROM (SELECT product_id, sum(delta) AS units FROM stock_adjustments GROUP BY product_id)),
    (SELECT json_group_array(json_array(hex(order_id), hex(product_id), units, entries))
        FROM (SELECT order_id, product_id, sum(delta) AS units, count(*) AS entries
            FROM stock_adjustments WHERE order_id IS NOT NULL GROUP BY 1, 2))";

impl Reader {
    /// Reads the data; `None` if no other connection has changed the file since the last call.
    async fn read_changed(&mut self) -> sqlx::Result<Option<ProductsData>> {
        let version: i64 = sqlx::query_scalar("PRAGMA data_version").fetch_one(&mut self.db).await?;
        if self.data_version.replace(version) == Some(version) {
            return Ok(None);
        }
        self.read().await.map(Some)
    }

    async fn read(&mut self) -> sqlx::Result<ProductsData> {
        let (products, lines, ledger, fulfilled): (String, String, String, String) = sqlx::query_as(READ).fetch_one(&mut self.db).await?;
        let mut data = ProductsData {
            products: parse(&products)?,
            ledger: parse::<LedgerRow>(&ledger)?.into_iter().collect(),
            ..ProductsData::default()
        };
        for (id, state, is_fulfilled, product, quantity) in parse::<LineRow>(&lines)? {
            let new = || ReservationState { state, is_fulfilled: is_fulfilled != 0, lines: BTreeMap::new() };
            data.reservations.entry(id).or_insert_with(new).lines.extend(product.zip(quantity));
        }
        let fulfilled = parse::<FulfilmentRow>(&fulfilled)?.into_iter();
        data.fulfilled = fulfilled.map(|(order, product, units, entries)| ((order, product), (units, entries))).collect();
        Ok(data)
    }
}

fn check_stock(data: &ProductsData, violations: &mut Vec<Violation>) {
    let mut violate = |invariant, evidence: String| violations.push(Violation { invariant, evidence });
    let mut taken = BTreeMap::<Uuid, i64>::new();
    for reservation in data.reservations.values().filter(|reservation| reservation.is_open()) {
        for (product, quantity) in &reservation.lines {
            *taken.entry(*product).or_default() += quantity;
        }
    }
    for row in &data.products {
        let reserved = taken.get(&row.id).copied().unwrap_or_default();
        if row.quantity < 0 || reserved > row.supply {
            violate("no product is oversold", format!("{row:?}, reserved {reserved}"));
        }
        if row.quantity + reserved != row.supply || row.taken != reserved {
            violate("stock is conserved", format!("{row:?}, reserved {reserved}"));
        }
        let booked = data.ledger.get(&row.id).copied().unwrap_or_default();
        if booked != row.supply {
            violate("the ledger explains the stock", format!("{row:?}, ledger {booked}"));
        }
    }
    for ((order, product), (units, entries)) in &data.fulfilled {
        let reservation = data.reservations.get(order);
        let expected = reservation.filter(|it| it.is_fulfilled).and_then(|it| it.lines.get(product));
        if *entries != 1 || expected != Some(&-units) {
            violate(
                "an order takes its units exactly once",
                format!("order {order}: {entries} entries of {units} units, reservation {reservation:?}"),
            );
        }
    }
}

fn check_moves(before: &BTreeMap<Uuid, ReservationState>, now: &BTreeMap<Uuid, ReservationState>, violations: &mut Vec<Violation>) {
    for (id, old) in before {
        let Some(new) = now.get(id) else {
            violations.push(Violation { invariant: "reservations are kept", evidence: format!("{id} was {old:?}") });
            continue;
        };
        let ended = !old.is_open();
        if ended && new.is_open() {
            let invariant = "a late reserve after a release holds nothing";
            violations.push(Violation { invariant, evidence: format!("{id}: {} became {}", old.state, new.state) });
        } else if ended && old != new {
            violations
                .push(Violation { invariant: "an ended reservation never changes", evidence: format!("{id}: {old:?} became {new:?}") });
        } else if old.state == "CONFIRMED" && new.state == "HELD" {
            violations.push(Violation { invariant: "a confirmed reservation stays confirmed", evidence: format!("{id}") });
        }
    }
}
