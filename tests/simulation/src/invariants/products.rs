//! Invariants of the products store, checked after every write.

use std::{collections::BTreeMap, path::Path};

use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::story::Violation;

/// Reads the data of products and remembers what must not change.
pub struct ProductsCheck(Mutex<Reader>);

struct Reader {
    db: SqliteConnection,
    states: BTreeMap<Uuid, ReservationState>,
}

/// A product.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
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
        Ok(Self(Mutex::new(Reader { db, states: BTreeMap::new() })))
    }

    /// Reads the data.
    pub async fn read(&self) -> sqlx::Result<ProductsData> {
        self.0.lock().await.read().await
    }

    /// Checks the data, also against the previous check.
    pub async fn check(&self) -> Vec<Violation> {
        let mut reader = self.0.lock().await;
        let mut violations = Vec::new();
        match reader.read().await {
            Ok(data) => {
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
type LineRow = (Uuid, String, Option<i64>, Option<Uuid>, Option<i64>);

impl Reader {
    async fn read(&mut self) -> sqlx::Result<ProductsData> {
        let mut db = self.db.begin().await?;
        let mut data = ProductsData {
            products: sqlx::query_as("SELECT id, quantity, taken, supply FROM products").fetch_all(&mut *db).await?,
            ..ProductsData::default()
        };
        let rows: Vec<LineRow> = sqlx::query_as(
            "SELECT r.id, r.state, r.fulfilled_at, l.product_id, l.quantity
             FROM reservations r LEFT JOIN reservation_lines l ON l.reservation_id = r.id",
        )
        .fetch_all(&mut *db)
        .await?;
        for (id, state, fulfilled_at, product, quantity) in rows {
            let reservation = data.reservations.entry(id).or_insert_with(|| ReservationState {
                state,
                is_fulfilled: fulfilled_at.is_some(),
                lines: BTreeMap::new(),
            });
            reservation.lines.extend(product.zip(quantity));
        }
        let ledger: Vec<(Uuid, i64)> =
            sqlx::query_as("SELECT product_id, sum(delta) FROM stock_adjustments GROUP BY product_id").fetch_all(&mut *db).await?;
        data.ledger = ledger.into_iter().collect();
        let fulfilled: Vec<(Uuid, Uuid, i64, i64)> = sqlx::query_as(
            "SELECT order_id, product_id, sum(delta), count(*) FROM stock_adjustments WHERE order_id IS NOT NULL GROUP BY 1, 2",
        )
        .fetch_all(&mut *db)
        .await?;
        data.fulfilled = fulfilled.into_iter().map(|(order, product, units, entries)| ((order, product), (units, entries))).collect();
        db.commit().await?;
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
