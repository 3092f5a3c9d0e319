//! Upgrade of the schema with data in it: orders in every state, written by an earlier release, are
//! ended by this one.

use std::time::Duration;

use palisade_orders::{
    order::Status,
    store::{PostgresStore, SqliteStore, Store},
};
use sqlx::{PgPool, SqlitePool, migrate::Migrator};
use tempfile::TempDir;

use crate::database::{BackDoor, Database, LEASE, NOW, confirmed, fresh_postgres, reserved};

/// Schemas of earlier releases, by their last migration: the first one, the one before orders were
/// written in batches, and the one before actors were recorded.
const RELEASES: [i64; 3] = [2, 30, 40];

/// Statuses of the orders, each with those before it.
const HISTORIES: [&[&str]; 7] = [
    &["PENDING"],
    &["PENDING", "PRODUCT_RESERVED"],
    &["PENDING", "PRODUCT_RESERVED", "CONFIRMED"],
    &["PENDING", "PRODUCT_RESERVED", "CONFIRMED", "COMPLETED"],
    &["PENDING", "PRODUCT_RESERVED", "CONFIRMED", "CANCELLED"],
    &["PENDING", "FAILED"],
    &["PENDING", "CANCELLED"],
];

/// Statements that write an order with this history, as an earlier release did. An order that
/// failed or was cancelled still has to release its reservation.
fn statements(db: &BackDoor, number: usize, history: &[&str]) -> String {
    let id = |number: usize| {
        let hex = format!("{number:04x}").repeat(8);
        if matches!(db, BackDoor::Sqlite { .. }) { format!("x'{hex}'") } else { format!("'{hex}'::uuid") }
    };
    let millis = NOW.unix_timestamp() * 1_000;
    let now = if matches!(db, BackDoor::Sqlite { .. }) { millis.to_string() } else { format!("to_timestamp({millis} / 1000.0)") };
    let order = id(number + 1);
    let event = |version: usize| {
        format!(
            "INSERT INTO outbox (event_id, order_id, version, kind, payload, created_at) VALUES ({}, {order}, {version}, 'order', '{{}}', {now});",
            id(version * 0x100 + number + 1)
        )
    };
    let mut statements = vec![format!(
        "INSERT INTO orders (id, user_id, status, version, created_at, updated_at, due_at, fence, attempts, saga_deadline, release_pending)
             VALUES ({order}, 'alice', 'PENDING', 1, {now}, {now}, {now}, 1, 1, {now}, FALSE);
         INSERT INTO order_lines (order_id, position, product_id, quantity) VALUES ({order}, 1, {}, 2);
         INSERT INTO order_history (order_id, version, to_status, at) VALUES ({order}, 1, 'PENDING', {now});",
        id(0xaaaa)
    )];
    statements.push(event(1));
    for (step, pair) in history.windows(2).enumerate() {
        let (from, to, version) = (pair[0], pair[1], step + 2);
        let reason = if to == "FAILED" { "'insufficient_stock'" } else { "NULL" };
        let is_ended = ["FAILED", "CANCELLED"].contains(&to);
        let due = if to == "PRODUCT_RESERVED" || is_ended { now.as_str() } else { "NULL" };
        let total = if to == "PRODUCT_RESERVED" { ", total_minor = 300" } else { "" };
        statements.push(format!(
            "UPDATE orders SET status = '{to}', version = {version}, failure_reason = {reason}, due_at = {due},
                 release_pending = {is_ended}{total} WHERE id = {order};
             INSERT INTO order_history (order_id, version, from_status, to_status, reason, actor, at)
                 VALUES ({order}, {version}, '{from}', '{to}', {reason}, 'saga', {now});"
        ));
        statements.push(event(version));
        if to == "PRODUCT_RESERVED" {
            statements.push(format!("UPDATE order_lines SET name = 'Lamp', unit_price_minor = 150 WHERE order_id = {order};"));
        }
    }
    statements.concat()
}

/// Writes the orders into the schema of an earlier release, and starts this one.
async fn upgraded(release: i64, migrations: Migrator, store: Box<dyn Store>, back_door: BackDoor) -> Database {
    let mut before = migrations;
    before.migrations = before.migrations.iter().filter(|migration| migration.version <= release).cloned().collect();
    match &back_door {
        BackDoor::Sqlite { pool, .. } => before.run(pool).await.unwrap(),
        BackDoor::Postgres { pool } => before.run(pool).await.unwrap(),
    }
    for (number, history) in HISTORIES.iter().enumerate() {
        back_door.execute(&statements(&back_door, number, history)).await.unwrap();
    }
    store.migrate().await.unwrap();
    Database { store: store.into(), back_door }
}

/// Takes up all orders that are due, as the saga worker does when products has the stock.
async fn every_order_ends(db: Database) {
    let later = NOW + LEASE;
    let due = db.store.claim_due(later, LEASE, 100).await.unwrap();
    assert_eq!(due.len(), 5, "two unfinished orders, and three that have to release their reservation");
    for claimed in due {
        match claimed.saga.order.status {
            Status::Pending => drop(db.apply(&db.apply(&claimed, reserved(&claimed.saga.order), later).await, confirmed(), later).await),
            Status::ProductReserved => drop(db.apply(&claimed, confirmed(), later).await),
            Status::Failed | Status::Cancelled => assert!(db.store.release_done(claimed.saga.order.id, claimed.fence).await.unwrap()),
            other => panic!("{other:?} has nothing left to do"),
        }
    }
    assert_eq!(db.store.claim_due(later + LEASE * 2, LEASE, 100).await.unwrap(), [], "nothing is left to do");
    assert_eq!(db.back_door.pairs("SELECT status, status FROM orders WHERE release_pending").await, []);
    assert_eq!(db.back_door.count("quarantined_orders").await, 0);
    let due = db.store.claim_fulfilments(NOW + Duration::from_hours(24 * 36_500), LEASE, 10).await.unwrap();
    assert_eq!(due.len(), 1, "the completed order is fulfilled");
    assert!(db.store.fulfilment_done(due[0].order_id).await.is_ok());
    let statuses = db.back_door.pairs("SELECT status, CAST(count(*) AS TEXT) FROM orders GROUP BY status ORDER BY status").await;
    let statuses: Vec<_> = statuses.iter().map(|(status, number)| (status.as_str(), number.as_str())).collect();
    assert_eq!(statuses, [("CANCELLED", "2"), ("COMPLETED", "1"), ("CONFIRMED", "3"), ("FAILED", "1")]);
    db.assert_invariants(later + Duration::from_secs(1)).await;
}

#[tokio::test]
async fn sqlite() {
    for release in RELEASES {
        let directory = TempDir::new().unwrap();
        let url = format!("sqlite://{}/orders.db?mode=rwc", directory.path().display());
        let pool = SqlitePool::connect(&url).await.unwrap();
        let store = Box::new(SqliteStore::new(&url).unwrap());
        let back_door = BackDoor::Sqlite { pool, _directory: directory.into() };
        every_order_ends(upgraded(release, sqlx::migrate!("migrations/sqlite"), store, back_door).await).await;
    }
}

#[tokio::test]
async fn postgres() {
    for release in RELEASES {
        let url = fresh_postgres();
        let pool = PgPool::connect(&url).await.unwrap();
        let store = Box::new(PostgresStore::new(&url, 4).unwrap());
        every_order_ends(upgraded(release, sqlx::migrate!("migrations/postgres"), store, BackDoor::Postgres { pool }).await).await;
    }
}
