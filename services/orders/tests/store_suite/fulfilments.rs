//! Fulfilment queue: filled by the database when an order is completed.

use std::time::Duration;

use palisade_middleware::auth::Subject;
use palisade_orders::{
    order::{OrderId, Status},
    store::{DueFulfilment, FulfilmentQueue, SqliteStore, Store},
};
use sqlx::{SqlitePool, migrate::Migrator};

use crate::database::{Database, LEASE, NOW, admin, any};

crate::on_both![completed_order_is_queued_once, fulfilment_is_leased_and_retried, unfinished_fulfilment_is_visible];

async fn complete(db: &Database) -> OrderId {
    let id = db.confirm(&db.accept("alice", NOW).await, NOW).await.saga.order.id;
    db.store.set_status(id, Status::Completed, admin(), any(), NOW).await.unwrap();
    id
}

async fn claim(db: &Database, after: Duration) -> Vec<DueFulfilment> {
    db.store.claim_fulfilments(NOW + after, LEASE, 10).await.unwrap()
}

async fn completed_order_is_queued_once(db: Database) {
    db.confirm(&db.accept("bob", NOW).await, NOW).await;
    assert_eq!(claim(&db, LEASE).await, [], "a confirmed order is not fulfilled");
    let id = complete(&db).await;
    db.store.set_status(id, Status::Completed, admin(), any(), NOW).await.unwrap();
    let due = DueFulfilment { order_id: id, user_id: Subject::parse("alice").unwrap(), attempts: 1 };
    assert_eq!(claim(&db, Duration::ZERO).await, [due]);
    db.store.fulfilment_done(id).await.unwrap();
    db.store.fulfilment_done(id).await.unwrap();
    db.store.set_status(id, Status::Completed, admin(), any(), NOW).await.unwrap();
    assert_eq!(claim(&db, LEASE * 10).await, []);
    db.assert_invariants(NOW).await;
}

async fn fulfilment_is_leased_and_retried(db: Database) {
    let id = complete(&db).await;
    assert_eq!(claim(&db, Duration::ZERO).await.len(), 1);
    assert_eq!(claim(&db, LEASE / 2).await, [], "leased");
    assert_eq!(claim(&db, LEASE).await[0].attempts, 2, "the worker has died");
    db.store.postpone_fulfilment(id, NOW + LEASE * 5, "no answer".into()).await.unwrap();
    assert_eq!(claim(&db, LEASE * 4).await, []);
    assert_eq!(claim(&db, LEASE * 5).await[0].attempts, 3);
    assert!(db.store.retry_now(id, NOW).await.unwrap());
    assert_eq!(claim(&db, Duration::ZERO).await[0].attempts, 1);
    db.store.fulfilment_done(id).await.unwrap();
    assert!(!db.store.retry_now(id, NOW).await.unwrap());
}

async fn unfinished_fulfilment_is_visible(db: Database) {
    let id = complete(&db).await;
    let pending = async || db.store.saga_statuses(vec![id]).await.unwrap()[0].fulfilment_pending;
    let unfinished = async || db.store.stats(NOW).await.unwrap().unfinished;
    let stuck = async || db.store.stuck(NOW, 5, 10).await.unwrap();
    assert!(pending().await);
    assert_eq!(unfinished().await, [(Status::Completed, 1)]);
    db.store.postpone_fulfilment(id, NOW + LEASE, "no answer".into()).await.unwrap();
    let listed = stuck().await;
    assert_eq!((listed.len(), listed[0].order_id, listed[0].last_error.as_deref()), (1, id, Some("no answer")));
    assert_eq!(db.store.audit(NOW + LEASE * 2, LEASE, None).await.unwrap().findings.len(), 1, "not taken up in time");
    db.store.fulfilment_done(id).await.unwrap();
    assert!(!pending().await);
    assert_eq!((unfinished().await, stuck().await), (vec![], vec![]));
    db.assert_invariants(NOW + LEASE * 2).await;
}

/// Orders that a previous release completed are queued by the migration, and orders that it
/// completes beside the new release by the trigger.
#[tokio::test]
async fn orders_of_the_previous_release_are_queued() {
    const FIRST: i64 = 30;
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/orders.db?mode=rwc", directory.path().display());
    let pool = SqlitePool::connect(&url).await.unwrap();
    let mut before: Migrator = sqlx::migrate!("migrations/sqlite");
    before.migrations = before.migrations.iter().filter(|migration| migration.version < FIRST).cloned().collect();
    before.run(&pool).await.unwrap();
    for (id, status) in [("11", "COMPLETED"), ("22", "CONFIRMED")] {
        let insert = format!(
            "INSERT INTO orders (id, user_id, status, total_minor, version, created_at, updated_at, fence, attempts, saga_deadline, release_pending)
             VALUES (x'{}', 'alice', '{status}', 1, 4, 1, 1, 1, 1, 1, FALSE)",
            id.repeat(16)
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(insert)).execute(&pool).await.unwrap();
    }
    let store = SqliteStore::new(&url).unwrap();
    let store: &dyn Store = &store;
    store.migrate().await.unwrap();
    let far_later = NOW + Duration::from_hours(24 * 36_500);
    assert_eq!(store.claim_fulfilments(far_later, LEASE, 10).await.unwrap().len(), 1);
    sqlx::query("UPDATE orders SET status = 'COMPLETED', version = 5, updated_at = 2 WHERE id = ?")
        .bind([0x22_u8; 16].as_slice())
        .execute(&pool)
        .await
        .unwrap();
    let due = FulfilmentQueue::claim_fulfilments(store, NOW, LEASE, 10).await.unwrap();
    assert_eq!(due.iter().map(|due| due.order_id.as_uuid().as_u128()).collect::<Vec<_>>(), [u128::from_be_bytes([0x22; 16])]);
}
