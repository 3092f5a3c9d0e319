use palisade_middleware::preconditions::VersionPreconditions;
use sqlx::{Connection, migrate::Migrator};
use time::macros::datetime;

use super::*;
use crate::{
    product::{Filter, Input, Query, Sort, ValidatedProduct},
    store::{Maintenance, ProductStore},
};

async fn add(store: &SqliteStore, name: &str) -> Uuid {
    let id = Uuid::now_v7();
    let draft = ValidatedProduct::new(Input {
        name: name.into(),
        description: String::new(),
        price_minor: 1,
        quantity: 1,
        category: "home".into(),
        is_active: true,
    });
    store.create(id, draft.unwrap(), None, "alice".into(), datetime!(2026-01-01 0:00 UTC)).await.unwrap();
    id
}

async fn found(store: &SqliteStore, text: &str) -> usize {
    let filter = Filter { text: Some(text.into()), ..Filter::default() };
    store.list(Query::new(filter, Sort::Newest, 100, None).unwrap()).await.unwrap().items.len()
}

async fn candidates(store: &SqliteStore, text: &str) -> Candidates {
    Candidates::find(&mut store.readers.acquire().await.unwrap(), text.to_owned()).await.unwrap()
}

#[tokio::test]
async fn rare_text_is_found_by_the_index() {
    let files = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&format!("sqlite://{}/products.db", files.path().display())).await.unwrap();
    let mut db = store.writer.acquire().await.unwrap();
    let mut transaction = db.begin().await.unwrap();
    sqlx::raw_sql(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
         INSERT INTO products (id, name, description, folded, search_text, price_minor, quantity, taken, supply, category, is_active, version,
                               created_at, updated_at)
         SELECT randomblob(16), 'Lamp', '', 'lamp ' || i || char(10), 'lamp ' || i || char(10), 1, 1, 0, 1, 'home', TRUE, 1, i, i FROM n",
    )
    .execute(&mut *transaction)
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    drop(db);
    add(&store, "Ж\"q").await;
    for (text, count) in [("zzzz", 0), ("zz", 0), ("z", 0), ("ж", 1), ("ж\"", 1), ("\"q", 1), ("ж\"q", 1), ("lamp 2500", 1), ("00\n", 25)]
    {
        let Candidates::Listed(ids) = candidates(&store, text).await else { panic!("{text} is rare") };
        assert_eq!(ids.len(), count, "{text}");
    }
    assert_eq!(candidates(&store, "lamp").await, Candidates::Many("lamp".into()));
    assert_eq!(candidates(&store, "la").await, Candidates::Many("la".into()));
    assert_eq!((found(&store, "LAMP").await, found(&store, "ж").await, found(&store, "zzzz").await), (100, 1, 0));
}

#[tokio::test]
async fn index_follows_every_change() {
    let files = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&format!("sqlite://{}/products.db", files.path().display())).await.unwrap();
    let id = add(&store, "Lamp").await;
    let rename = |name: &str| {
        let input =
            Input { name: name.into(), description: String::new(), price_minor: 1, quantity: 1, category: "home".into(), is_active: true };
        store.update(
            id,
            ValidatedProduct::new(input).unwrap(),
            VersionPreconditions::default(),
            "alice".into(),
            datetime!(2026-01-02 0:00 UTC),
        )
    };
    rename("ΚΟΣΜΟΣ").await.unwrap();
    assert_eq!((found(&store, "lamp").await, found(&store, "κοσ").await), (0, 1));
    sqlx::raw_sql("VACUUM").execute(&mut *store.writer.acquire().await.unwrap()).await.unwrap();
    assert_eq!(found(&store, "κοσ").await, 1);
    // A program of the previous release.
    let old = "UPDATE products SET name = 'Straße', folded = 'straße' || char(10), version = version + 1";
    sqlx::raw_sql(old).execute(&mut *store.writer.acquire().await.unwrap()).await.unwrap();
    assert_eq!((found(&store, "κοσ").await, found(&store, "straße").await, found(&store, "raß").await), (0, 0, 0));
    assert_eq!(found(&store, "stra").await, 1, "by the text of the previous release");
    assert_eq!(store.refresh_search(None, 10).await.unwrap(), Some(id));
    assert_eq!(store.refresh_search(None, 10).await.unwrap(), None);
    assert_eq!((found(&store, "straße").await, found(&store, "STRASSE").await), (1, 1));
    store.remove(id, VersionPreconditions::default(), datetime!(2026-01-02 0:00 UTC)).await.unwrap();
    for table in ["search", "search_ids"] {
        let count = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")));
        assert_eq!(count.fetch_one(&mut *store.writer.acquire().await.unwrap()).await.unwrap(), 0, "{table}");
    }
    store.ping().await.unwrap();
}

/// Products that a previous release stored are searchable at once, and normalized later.
#[tokio::test]
async fn existing_products_are_indexed_by_the_migration() {
    const FIRST: i64 = 20;
    let files = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/products.db?mode=rwc", files.path().display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let mut before: Migrator = sqlx::migrate!("./migrations/sqlite");
    before.migrations = before.migrations.iter().filter(|migration| migration.version < FIRST).cloned().collect();
    before.run(&pool).await.unwrap();
    let insert = "INSERT INTO products (id, name, description, folded, price_minor, quantity, taken, supply, category, is_active, version,
                                        created_at, updated_at)
                  VALUES (x'11111111111111111111111111111111', 'ΚΟΣΜΟΣ', '', 'κοσμος' || char(10), 1, 1, 0, 1, 'cafe' || char(769), TRUE, 1, 1, 1)";
    sqlx::raw_sql(insert).execute(&pool).await.unwrap();
    pool.close().await;
    let store = SqliteStore::open(&url).await.unwrap();
    assert_eq!((found(&store, "κοσμος").await, found(&store, "κοσμο").await), (0, 1));
    let id = store.refresh_search(None, 10).await.unwrap().unwrap();
    assert_eq!((found(&store, "κοσμος").await, found(&store, "ΚΟΣ").await), (1, 1));
    let product = store.find(id).await.unwrap().unwrap();
    assert_eq!((product.category.as_str(), product.version), ("café", 2));
}
