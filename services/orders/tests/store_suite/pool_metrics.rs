//! Pool metrics of the stores: used connections, pending requests and timeouts.

use std::{sync::Arc, time::Duration};

use palisade_middleware::task;
use palisade_orders::{
    order::OrderId,
    store::{Error, InstrumentedStore, Maintenance, OrderStore, PostgresStore, SagaQueue, SqliteStore},
};
use palisade_tests::{metrics_recorder::MetricsRecorder, servers};
use sqlx::{Connection, Executor, PgConnection, SqliteConnection};
use tempfile::TempDir;

use crate::database::{NOW, create, database_attributes};

/// Longer than any call of these tests.
const LONG: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn postgres() {
    let server = servers::postgres();
    let url = server.url("orders");
    let recorded = MetricsRecorder::new();
    let _recording = recorded.install();
    let store = PostgresStore::new(&url, 1).unwrap();
    let database = store.database();
    assert_eq!((database.system, &*database.namespace), ("postgresql", "orders"));
    assert_eq!(database.server, Some(("127.0.0.1".into(), server.port())));
    let pool = recorded.pool("orders-postgresql");
    assert_eq!(pool.values(["limit", "pending_requests", "timeouts_total", "wait_time_count"]), ["1", "0", "0", "0"]);
    store.migrate().await.unwrap();
    let store = Arc::new(InstrumentedStore::new(Arc::new(store), database, LONG));
    store.ping().await.unwrap();

    let mut other = PgConnection::connect(&url).await.unwrap();
    other.execute("BEGIN; LOCK TABLE orders").await.unwrap();
    let first = task::spawn(create_order(store.clone()));
    pool.wait_for_count("used", "1").await;
    let second = task::spawn(create_order(store.clone()));
    pool.wait_for_pending().await;
    other.execute("COMMIT").await.unwrap();
    for call in [first, second] {
        call.await.unwrap().unwrap();
    }
    pool.wait_for_count("used", "0").await;
    pool.wait_for_count("idle", "1").await;
    let [pending, timeouts, waits, waited] = pool.values(["pending_requests", "timeouts_total", "wait_time_count", "wait_time_sum"]);
    assert_eq!([pending, timeouts, waits], ["0", "0", "3"]);
    assert_ne!(waited, "0");

    // The only connection is in use and will not be returned.
    other.execute("BEGIN; LOCK TABLE orders").await.unwrap();
    let first = task::spawn(create_order(store.clone()));
    pool.wait_for_count("used", "1").await;
    server.pause();
    assert!(matches!(store.ping().await, Err(Error::Unavailable(_))));
    assert_eq!(pool.values(["pending_requests", "timeouts_total"]), ["0", "1"]);
    server.resume();
    other.execute("COMMIT").await.unwrap();
    // Fails or succeeds, depending on the server's time limits.
    drop(first.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite() {
    let directory = TempDir::new().unwrap();
    let url = format!("sqlite://{}/orders.db", directory.path().display());
    let recorded = MetricsRecorder::new();
    let _recording = recorded.install();
    let store = SqliteStore::new(&url).unwrap();
    assert_eq!((store.database().system, &*store.database().namespace, store.database().server), ("sqlite", "orders.db", None));
    let pool = recorded.pool("orders-sqlite");
    assert_eq!(pool.values(["limit", "pending_requests", "timeouts_total", "wait_time_count"]), ["5", "0", "0", "0"]);
    store.migrate().await.unwrap();
    let store = Arc::new(store);
    let short_timeout_store = InstrumentedStore::new(store.clone(), database_attributes(), Duration::from_millis(300));
    let store = Arc::new(InstrumentedStore::new(store, database_attributes(), LONG));

    // SQLite has a single writer.
    let mut other = SqliteConnection::connect(&url).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let first = task::spawn(create_order(store.clone()));
    pool.wait_for_count("used", "1").await;
    // Not a write of a batch, which would wait for its batch instead.
    let id = OrderId::generate(NOW);
    let second = task::spawn(async move { store.release_done(id, 1).await.map(drop) });
    pool.wait_for_pending().await;
    assert!(matches!(short_timeout_store.release_done(id, 1).await, Err(Error::Timeout)));
    assert_eq!(pool.values(["pending_requests", "timeouts_total"]), ["1", "1"], "the call with the short timeout has stopped waiting");
    other.execute("COMMIT").await.unwrap();
    for call in [first, second] {
        call.await.unwrap().unwrap();
    }
    pool.wait_for_count("used", "0").await;
    // One of the waits is that of the migration.
    assert_eq!(pool.values(["pending_requests", "timeouts_total", "wait_time_count"]), ["0", "1", "3"]);
}

async fn create_order(store: Arc<impl OrderStore>) -> Result<(), Error> {
    store.create(create("alice", NOW), NOW).await.map(drop)
}
