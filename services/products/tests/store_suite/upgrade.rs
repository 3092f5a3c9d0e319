//! Upgrade of the embedded store with data in it, and programs of the previous release on the new
//! schema: every change of the supply gets into the ledger, and every change of a catalogue field
//! into the history.

use std::path::Path;

use palisade_middleware::preconditions::{Condition, VersionPreconditions};
use palisade_products::{
    product::{Change, ChangedFields, Edit, MAX_HISTORY, Patch, ValidatedPatch},
    stock_ledger::{Kind, LedgerQuery},
    store::{HistoryStore, LedgerStore, Maintenance, ProductStore, SqliteStore, UpdateOutcome},
};
use sqlx::{Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};
use uuid::Uuid;

use crate::fixtures::START;

/// Last migration of the release before the ledger.
const BEFORE_LEDGER: i64 = 39;
/// Last migration of the release before the history.
const BEFORE_HISTORY: i64 = 59;

/// Writes a product with 3 taken units, as the previous release did.
fn insert(id: Uuid, supply: i64) -> String {
    let millis = START.unix_timestamp() * 1_000;
    format!(
        "INSERT INTO products (id, name, description, folded, price_minor, quantity, taken, supply, category, is_active, version,
                               created_at, updated_at, search_text)
         VALUES (x'{}', 'Lamp', '', 'lamp', 1, {supply} - 3, 3, {supply}, 'home', 1, 4, {millis}, {millis}, 'lamp');",
        id.simple()
    )
}

async fn ledger(store: &SqliteStore, product: Uuid) -> Vec<(Kind, i64, i64)> {
    let page = store.ledger(LedgerQuery::new(product, 100, None).unwrap()).await.unwrap().unwrap();
    assert!(page.items.iter().all(|entry| entry.id.get_version_num() == 7 && entry.actor.is_none() && entry.created_at == START));
    page.items.into_iter().map(|entry| (entry.kind, entry.delta, entry.quantity_after)).collect()
}

/// Creates a file with the schema of an earlier release.
async fn open_at(file: &Path, last_migration: i64) -> SqliteConnection {
    let mut old = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file).create_if_missing(true)).await.unwrap();
    let mut before = sqlx::migrate!("./migrations/sqlite");
    before.migrations = before.migrations.iter().filter(|migration| migration.version <= last_migration).cloned().collect();
    before.run(&mut old).await.unwrap();
    old
}

#[tokio::test(flavor = "multi_thread")]
async fn ledger_covers_the_previous_release() {
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("products.db");
    let mut old = open_at(&file, BEFORE_LEDGER).await;
    let (kept, new) = (Uuid::now_v7(), Uuid::now_v7());
    old.execute(sqlx::AssertSqlSafe(insert(kept, 10))).await.unwrap();

    let store = SqliteStore::open(&format!("sqlite://{}", file.display())).await.unwrap();
    assert_eq!(ledger(&store, kept).await, [(Kind::Opening, 10, 7)]);
    let violations = async || store.audit(START).await.unwrap().violations;
    // The units are taken by no reservation.
    assert!(violations().await.iter().all(|violation| violation.ledger == violation.supply));

    // The previous release runs on: a new product, a new quantity, a fulfilment, an edit.
    old.execute(sqlx::AssertSqlSafe(insert(new, 5))).await.unwrap();
    assert_eq!(ledger(&store, new).await, [(Kind::Opening, 5, 2)]);
    let id = kept.simple();
    for change in ["supply = supply + 8 - quantity, quantity = 8, version = version + 1", "taken = taken - 2, supply = supply - 2"] {
        old.execute(sqlx::AssertSqlSafe(format!("UPDATE products SET {change} WHERE id = x'{id}'"))).await.unwrap();
    }
    assert_eq!(ledger(&store, kept).await, [(Kind::Reconciled, -2, 8), (Kind::Reconciled, 1, 8), (Kind::Opening, 10, 7)]);
    assert!(violations().await.iter().all(|violation| violation.ledger == violation.supply));

    let edit = async |version| {
        let patch = ValidatedPatch::new(Patch { price_minor: Some(2), ..Patch::default() }, &[]).unwrap();
        let if_match = VersionPreconditions { if_match: Some(Condition::Listed(vec![version])), if_none_match: None };
        matches!(store.patch(kept, patch, if_match, "alice".into(), START).await.unwrap(), UpdateOutcome::Updated(_))
    };
    // Version 4 is that of the migration; since then only the stock has changed.
    assert!(!edit(3).await && edit(4).await);
    let rename = format!("UPDATE products SET name = 'Lantern', version = version + 1 WHERE id = x'{id}'");
    let shown = store.find(kept).await.unwrap().unwrap().version;
    old.execute(sqlx::AssertSqlSafe(rename)).await.unwrap();
    assert!(!edit(shown).await && edit(shown + 1).await);

    old.execute("DELETE FROM products").await.unwrap();
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM stock_adjustments").fetch_one(&mut old).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_covers_the_previous_release() {
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("products.db");
    let mut old = open_at(&file, BEFORE_HISTORY).await;
    let (kept, new) = (Uuid::now_v7(), Uuid::now_v7());
    old.execute(sqlx::AssertSqlSafe(insert(kept, 10))).await.unwrap();
    let store = SqliteStore::open(&format!("sqlite://{}", file.display())).await.unwrap();
    let history = async |product| store.history(product).await.unwrap().unwrap();
    assert_eq!(history(kept).await, [], "it begins with the next change");

    // The previous release runs on: a new product, an edit of every field, a sale.
    old.execute(sqlx::AssertSqlSafe(insert(new, 5))).await.unwrap();
    let id = kept.simple();
    for change in [
        "name = 'a \"b\"', description = 'x', price_minor = 0, category = 'attic', is_active = 0, version = 5",
        "quantity = quantity - 1, taken = taken + 1, version = 6",
        "name = name, is_active = is_active, version = 7",
    ] {
        old.execute(sqlx::AssertSqlSafe(format!("UPDATE products SET {change} WHERE id = x'{id}'"))).await.unwrap();
    }
    let text = |from: Option<&str>, to: &str| Some(Edit { from: from.map(str::to_owned), to: to.to_owned() });
    let created = ChangedFields {
        name: text(None, "Lamp"),
        description: false,
        price_minor: Some(Edit { from: None, to: 1 }),
        category: text(None, "home"),
        is_active: Some(Edit { from: None, to: true }),
    };
    let edited = ChangedFields {
        name: text(Some("Lamp"), "a \"b\""),
        description: true,
        price_minor: Some(Edit { from: Some(1), to: 0 }),
        category: text(Some("home"), "attic"),
        is_active: Some(Edit { from: Some(true), to: false }),
    };
    assert_eq!(history(new).await, [Change { version: 4, fields: created, actor: None, at: START }]);
    assert_eq!(history(kept).await, [Change { version: 5, fields: edited, actor: None, at: START }]);

    // It keeps the bound, too.
    for version in 8..100 {
        let rename = format!("UPDATE products SET name = 'Lamp {version}', version = {version} WHERE id = x'{id}'");
        old.execute(sqlx::AssertSqlSafe(rename)).await.unwrap();
    }
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM product_changes").fetch_one(&mut old).await.unwrap();
    assert_eq!(rows, i64::from(MAX_HISTORY) + 1);
    old.execute("DELETE FROM products").await.unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM product_changes").fetch_one(&mut old).await.unwrap();
    assert_eq!(rows, 0);
}
