//! Robustness: unreadable rows, newer schemas, unwritable files and hidden removals.

use palisade_products::{
    product::{Filter, Query, Sort},
    store::{Maintenance, ProductStore, SqliteStore},
};
use sqlx::{Connection, Executor, SqliteConnection};
use uuid::Uuid;

use crate::fixtures::{HOLD, LATER, START, TestStore, draft, lines};

pub(crate) async fn probe_succeeds_and_counts_are_zero(fixture: TestStore) {
    fixture.store.migrate().await.unwrap();
    for _ in 0..3 {
        fixture.store.ping().await.unwrap();
    }
    let stats = fixture.store.stats(START, START).await.unwrap();
    assert_eq!((stats.overdue_keys, stats.quarantined), (0, 0));
    assert!(!fixture.store.end_quarantine(Uuid::now_v7()).await.unwrap());
}

pub(crate) async fn reservation_list_continues_after_each_page(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 10).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(fixture.hold(&[(product, 1)]).await);
    }
    ids.sort();
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = fixture.store.list_reservations(after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        listed.extend(page.iter().map(|reservation| reservation.id));
    }
    assert_eq!(listed, ids);
}

struct Sqlite {
    store: SqliteStore,
    back_door: SqliteConnection,
    files: tempfile::TempDir,
}

fn url(files: &tempfile::TempDir) -> String {
    format!("sqlite://{}/products.db", files.path().display())
}

async fn sqlite() -> Sqlite {
    let files = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&url(&files)).await.unwrap();
    let back_door = SqliteConnection::connect(&url(&files)).await.unwrap();
    Sqlite { store, back_door, files }
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_rows_do_not_block_the_others() {
    use palisade_products::store::ReservationStore;
    let Sqlite { store, mut back_door, files: _files } = sqlite().await;
    let (good, bad) = (Uuid::now_v7(), Uuid::now_v7());
    store.create(good, draft("good", 10), None, "alice".into(), START).await.unwrap();
    store.create(bad, draft("bad", 10), None, "alice".into(), START).await.unwrap();
    let (held, broken) = (Uuid::now_v7(), Uuid::now_v7());
    store.reserve(broken, lines(&[(good, 1)]), START, HOLD).await.unwrap();
    store.reserve(held, lines(&[(good, 2)]), START, HOLD).await.unwrap();
    // The broken reservation is due first, and giving it back violates the schema of its product.
    back_door.execute("UPDATE reservations SET expires_at = expires_at - 1 WHERE id = (SELECT min(id) FROM reservations)").await.unwrap();
    back_door.execute("UPDATE reservation_lines SET quantity = 1000 WHERE quantity = 1").await.unwrap();
    back_door.execute("UPDATE products SET created_at = 9223372036854775807 WHERE name = 'bad'").await.unwrap();
    back_door.execute("UPDATE news SET since = 9223372036854775807").await.unwrap();

    assert_eq!(store.expire_due(LATER, 10).await.unwrap(), 1);
    assert_eq!(store.find(good).await.unwrap().unwrap().quantity, 9, "the readable hold is released");
    let quarantined = store.quarantined(10).await.unwrap();
    assert_eq!(quarantined.iter().map(|entry| entry.reservation_id).collect::<Vec<_>>(), [broken]);
    assert_eq!(store.expire_due(LATER, 10).await.unwrap(), 0, "it is left alone");
    assert_eq!(store.stats(LATER, START).await.unwrap().quarantined, 1);
    let page = store.list(Query::new(Filter::default(), Sort::Newest, 20, None).unwrap()).await.unwrap();
    assert_eq!(page.items.iter().map(|product| product.id).collect::<Vec<_>>(), [good]);
    assert_eq!(palisade_products::store::OutboxStore::unpublished_changes(&store, 10).await.unwrap().len(), 2);

    back_door.execute("UPDATE reservation_lines SET quantity = 1 WHERE quantity = 1000").await.unwrap();
    assert!(store.end_quarantine(broken).await.unwrap());
    assert_eq!(store.expire_due(LATER, 10).await.unwrap(), 1);
    assert_eq!(store.find(good).await.unwrap().unwrap().quantity, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_schema_is_tolerated() {
    let Sqlite { store, mut back_door, files } = sqlite().await;
    back_door
        .execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'next release', 1, x'00', 1);
             ALTER TABLE products ADD COLUMN of_the_next_release TEXT",
        )
        .await
        .unwrap();
    drop(store);
    let store = SqliteStore::open(&url(&files)).await.unwrap();
    store.ping().await.unwrap();
    store.create(Uuid::now_v7(), draft("Lamp", 1), None, "alice".into(), START).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_file_is_an_error_until_it_is_usable() {
    let files = tempfile::tempdir().unwrap();
    let folder = files.path().join("later");
    let store = SqliteStore::new(&format!("sqlite://{}/products.db", folder.display())).unwrap();
    store.migrate().await.unwrap_err();
    store.ping().await.unwrap_err();
    std::fs::create_dir(&folder).unwrap();
    store.migrate().await.unwrap();
    store.ping().await.unwrap();
    store.create(Uuid::now_v7(), draft("Lamp", 1), None, "alice".into(), START).await.unwrap();
}
