//! Invariants of the orders store, checked after every write.

use std::{collections::BTreeMap, path::Path};

use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::parse;
use crate::story::Violation;

/// Reads the data of orders and remembers what must not change.
pub struct OrdersCheck(Mutex<Reader>);

struct Reader {
    db: SqliteConnection,
    data_version: Option<i64>,
    before: BTreeMap<Uuid, OrderState>,
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderState {
    /// Its owner.
    pub user: String,
    /// Its status.
    pub status: String,
    /// Its version.
    pub version: i64,
    /// Its total, minor units.
    pub total_minor: Option<i64>,
    /// Whether work is left: the saga, a release, a revision or a fulfilment.
    pub is_unfinished: bool,
    /// Whether its owner has removed it.
    pub is_removed: bool,
    /// Quantities by product.
    pub lines: BTreeMap<Uuid, i64>,
    /// Price of all lines, minor units; `None` without prices.
    pub lines_total_minor: Option<i64>,
    /// Version and status of each change.
    pub history: Vec<(i64, String)>,
    /// Versions with an event, by publication.
    pub events: BTreeMap<i64, bool>,
}

impl OrderState {
    /// Whether its status is final.
    pub fn is_terminal(&self) -> bool {
        matches!(self.status.as_str(), "FAILED" | "COMPLETED" | "CANCELLED")
    }
}

type OrderRow = (Uuid, String, String, i64, Option<i64>, i64, i64);
type LineRow = (Uuid, Uuid, i64, Option<i64>);
type HistoryRow = (Uuid, i64, String);
type EventRow = (Uuid, i64, i64);

/// All data in one row: a row of each table would cost more than the call that is checked.
const READ: &str = "SELECT
    (SELECT json_group_array(json_array(hex(id), user_id, status, version, total_minor, deleted_at IS NOT NULL,
        due_at IS NOT NULL OR revision IS NOT NULL OR EXISTS (SELECT 1 FROM fulfilments WHERE order_id = id))) FROM orders),
    (SELECT json_group_array(json_array(hex(order_id), hex(product_id), quantity, unit_price_minor)) FROM order_lines),
    (SELECT json_group_array(json_array(hex(order_id), version, to_status))
        FROM (SELECT * FROM order_history ORDER BY order_id, version)),
    (SELECT json_group_array(json_array(hex(order_id), version, published_at IS NOT NULL)) FROM outbox)";

impl OrdersCheck {
    /// Opens the file at `path`.
    pub async fn open(path: &Path) -> anyhow::Result<Self> {
        let db = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await?;
        Ok(Self(Mutex::new(Reader { db, data_version: None, before: BTreeMap::new() })))
    }

    /// Reads the data.
    pub async fn read(&self) -> sqlx::Result<BTreeMap<Uuid, OrderState>> {
        self.0.lock().await.read().await
    }

    /// Checks the data, also against the previous check.
    pub async fn check(&self) -> Vec<Violation> {
        let mut reader = self.0.lock().await;
        let mut violations = Vec::new();
        match reader.read_changed().await {
            Ok(None) => {}
            Ok(Some(orders)) => {
                for (id, order) in &orders {
                    check_order(*id, order, &mut violations);
                }
                for (id, before) in &reader.before {
                    check_change(*id, before, orders.get(id), &mut violations);
                }
                reader.before = orders;
            }
            Err(error) => violations.push(Violation { invariant: "the data can be read", evidence: error.to_string() }),
        }
        violations
    }
}

impl Reader {
    /// Reads the data; `None` if no other connection has changed the file since the last call.
    async fn read_changed(&mut self) -> sqlx::Result<Option<BTreeMap<Uuid, OrderState>>> {
        let version: i64 = sqlx::query_scalar("PRAGMA data_version").fetch_one(&mut self.db).await?;
        if self.data_version.replace(version) == Some(version) {
            return Ok(None);
        }
        self.read().await.map(Some)
    }

    async fn read(&mut self) -> sqlx::Result<BTreeMap<Uuid, OrderState>> {
        let (orders, lines, history, events): (String, String, String, String) = sqlx::query_as(READ).fetch_one(&mut self.db).await?;
        let order = |(id, user, status, version, total_minor, is_removed, is_unfinished): OrderRow| {
            let order = OrderState {
                user,
                status,
                version,
                total_minor,
                is_unfinished: is_unfinished != 0,
                is_removed: is_removed != 0,
                lines: BTreeMap::new(),
                lines_total_minor: Some(0),
                history: Vec::new(),
                events: BTreeMap::new(),
            };
            (id, order)
        };
        let mut orders: BTreeMap<_, _> = parse::<OrderRow>(&orders)?.into_iter().map(order).collect();
        for (id, product, quantity, price) in parse::<LineRow>(&lines)? {
            if let Some(order) = orders.get_mut(&id) {
                order.lines.insert(product, quantity);
                order.lines_total_minor = order.lines_total_minor.zip(price).map(|(total, price)| total + price * quantity);
            }
        }
        for (id, version, status) in parse::<HistoryRow>(&history)? {
            orders.entry(id).and_modify(|order| order.history.push((version, status)));
        }
        for (id, version, is_published) in parse::<EventRow>(&events)? {
            if let Some(order) = orders.get_mut(&id) {
                order.events.insert(version, is_published != 0);
            }
        }
        Ok(orders)
    }
}

fn check_order(id: Uuid, order: &OrderState, violations: &mut Vec<Violation>) {
    let mut violate = |invariant| violations.push(Violation { invariant, evidence: format!("order {id}: {order:?}") });
    let last = order.history.last();
    if last != Some(&(order.version, order.status.clone()))
        || order.history.iter().zip(1..).any(|((version, _), number)| *version != number)
    {
        violate("the history has every status of an order");
    }
    if order.history.iter().any(|(version, _)| !order.events.contains_key(version)) {
        violate("every change has an event");
    }
    if order.lines.is_empty() || order.total_minor != order.lines_total_minor {
        violate("the total is the sum of the lines");
    }
    if !order.is_unfinished && matches!(order.status.as_str(), "PENDING" | "PRODUCT_RESERVED") {
        violate("an unfinished order is due");
    }
}

fn check_change(id: Uuid, before: &OrderState, now: Option<&OrderState>, violations: &mut Vec<Violation>) {
    let mut violate = |invariant| violations.push(Violation { invariant, evidence: format!("order {id}: {before:?} became {now:?}") });
    let Some(now) = now else {
        return violate("no accepted order is lost");
    };
    if !now.history.starts_with(&before.history) {
        violate("the history only grows");
    }
    if before.user != now.user {
        violate("an order keeps its owner");
    }
    if before.is_terminal() && (now.status != before.status || now.lines != before.lines) {
        violate("a final status never changes");
    }
    if now.status != before.status
        && !now.history[before.history.len().min(now.history.len())..]
            .iter()
            .map(|(_, status)| status.as_str())
            .fold((before.status.as_str(), true), |(from, legal), to| (to, legal && is_legal(from, to)))
            .1
    {
        violate("only legal transitions");
    }
    if now.version < before.version {
        violate("versions only grow");
    }
}

fn is_legal(from: &str, to: &str) -> bool {
    matches!(
        (from, to),
        ("PENDING", "PRODUCT_RESERVED" | "FAILED" | "CANCELLED")
            | ("PRODUCT_RESERVED", "CONFIRMED" | "FAILED" | "CANCELLED")
            | ("CONFIRMED", "COMPLETED" | "CANCELLED" | "CONFIRMED")
    )
}
