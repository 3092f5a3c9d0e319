use sqlx::Row;
use tempfile::TempDir;
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use super::*;
use crate::{
    product::{Filter, Input, Position, Query, Sort, ValidatedProduct},
    reservation::{Line, Lines},
    store::roles::{Maintenance, ProductStore, ReservationStore},
};

const NOW: OffsetDateTime = datetime!(2026-01-01 0:00 UTC);

async fn new_store() -> (SqliteStore, TempDir) {
    let files = tempfile::tempdir().unwrap();
    (SqliteStore::open(&url(&files)).await.unwrap(), files)
}

fn url(files: &TempDir) -> String {
    format!("sqlite://{}/products.db", files.path().display())
}

fn draft() -> ValidatedProduct {
    let [name, description, category] = ["Lamp", "", "home"].map(str::to_owned);
    ValidatedProduct::new(Input { name, description, price_minor: 1, quantity: 10, category, is_active: true }).unwrap()
}

#[tokio::test]
async fn every_filter_and_sort_is_served_by_an_index() {
    let (store, _files) = new_store().await;
    for sort in [Sort::Newest, Sort::Oldest, Sort::PriceAsc, Sort::PriceDesc, Sort::NameAsc, Sort::NameDesc] {
        let product = draft().into_product(Uuid::nil(), NOW);
        for category in [None, Some("home".to_owned())] {
            for is_active in [None, Some(true)] {
                for after in [None, Some(Position { key: sort.key(&product), id: product.id })] {
                    let filter = Filter { category: category.clone(), is_active, ..Filter::default() };
                    let query = Query::new(filter, sort, 20, after).unwrap();
                    let sql = products::select(&query, None).into_string();
                    let explained = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
                    let rows = sqlx::query(explained).fetch_all(&mut *store.readers.acquire().await.unwrap()).await.unwrap();
                    let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
                    assert!(plan.iter().all(|step| step.contains("USING INDEX")), "{query:?}: {plan:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn audit_finds_every_imbalance() {
    let (store, _files) = new_store().await;
    let id = Uuid::now_v7();
    store.create(id, draft(), None, "alice".into(), NOW).await.unwrap();
    let lines = Lines::new(vec![Line { product_id: id, quantity: 2 }]).unwrap();
    store.reserve(Uuid::now_v7(), lines, NOW, Duration::from_secs(1)).await.unwrap();
    for (wrong, right) in [
        ("UPDATE products SET quantity = quantity + 1", "UPDATE products SET quantity = quantity - 1"),
        ("UPDATE products SET taken = taken + 1", "UPDATE products SET taken = taken - 1"),
        ("UPDATE products SET quantity = 9, taken = 1", "UPDATE products SET quantity = 8, taken = 2"),
        ("UPDATE products SET supply = 11", "UPDATE products SET supply = 10"),
        ("UPDATE reservation_lines SET quantity = 1", "UPDATE reservation_lines SET quantity = 2"),
        ("UPDATE stock_adjustments SET delta = delta + 1", "UPDATE stock_adjustments SET delta = delta - 1"),
    ] {
        sqlx::query(wrong).execute(&mut *store.writer.acquire().await.unwrap()).await.unwrap();
        assert_eq!(store.audit(NOW).await.unwrap().violations.len(), 1, "{wrong}");
        sqlx::query(right).execute(&mut *store.writer.acquire().await.unwrap()).await.unwrap();
        assert_eq!(store.audit(NOW).await.unwrap().violations, []);
    }
    sqlx::query("DELETE FROM products").execute(&mut *store.writer.acquire().await.unwrap()).await.unwrap();
    assert_eq!(store.audit(NOW).await.unwrap().violations.len(), 1);
}

#[tokio::test]
async fn schema_constraints_reject_illegal_writes() {
    let (store, _files) = new_store().await;
    let id = Uuid::now_v7();
    store.create(id, draft(), None, "alice".into(), NOW).await.unwrap();
    let lines = Lines::new(vec![Line { product_id: id, quantity: 2 }]).unwrap();
    let reservation = Uuid::now_v7();
    store.reserve(reservation, lines, NOW, Duration::from_secs(1)).await.unwrap();
    store.release(reservation, NOW).await.unwrap();
    for illegal in [
        "UPDATE products SET quantity = -1",
        "UPDATE products SET taken = -1",
        "UPDATE reservations SET state = 'HELD'",
        "UPDATE reservations SET state = 'LOST'",
        "DELETE FROM reservations",
    ] {
        sqlx::query(illegal).execute(&mut *store.writer.acquire().await.unwrap()).await.unwrap_err();
    }
}

#[tokio::test]
async fn acknowledged_writes_survive_reopening() {
    let (store, files) = new_store().await;
    let id = Uuid::now_v7();
    store.create(id, draft(), None, "alice".into(), NOW).await.unwrap();
    drop(store);
    let reopened = SqliteStore::open(&url(&files)).await.unwrap();
    assert_eq!(reopened.find(id).await.unwrap().unwrap().quantity, 10);
}
