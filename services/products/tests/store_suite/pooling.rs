//! Connection pool metrics: used, pending and timed-out requests.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use palisade_middleware::task;
use palisade_products::store::{Error, InstrumentedStore, Maintenance, MongoStore, ProductStore, SqliteStore};
use palisade_tests::{
    fault_proxy::{FaultProxy, Mode},
    metrics_recorder::MetricsRecorder,
    servers,
};
use sqlx::{Connection, Executor, SqliteConnection};
use uuid::Uuid;

use crate::fixtures::{START, draft, test_database};

/// Exceeds the duration of every call here.
const LONG_TIMEOUT: Duration = Duration::from_secs(30);
const SHORT_TIMEOUT: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn mongo_pool_metrics() {
    let server = servers::mongo();
    let proxy = FaultProxy::connect_to((Ipv4Addr::LOCALHOST, server.port()).into()).await;
    // No heartbeat during the test: a failed one makes the driver close its connections.
    let options = "directConnection=true&maxPoolSize=1&minPoolSize=0&heartbeatFrequencyMS=60000";
    let url = format!("mongodb://{}/products?{options}", proxy.address());
    let recorded = MetricsRecorder::new();
    let _recording = recorded.install();
    let store = MongoStore::new(&url).await.unwrap();
    let database = store.database();
    assert_eq!((database.system, &*database.namespace), ("mongodb", "products"));
    assert_eq!(database.server, Some(("127.0.0.1".into(), proxy.address().port())));
    let pool = recorded.pool("products-mongodb");
    assert_eq!(pool.values(["limit", "pending_requests", "timeouts_total", "wait_time_count"]), ["1", "0", "0", "0"]);
    let store = Arc::new(store);
    let short_timeout_store = InstrumentedStore::new(store.clone(), test_database(), SHORT_TIMEOUT);
    let store = Arc::new(InstrumentedStore::new(store, database, LONG_TIMEOUT));
    store.ping().await.unwrap();
    pool.wait_for_count("used", "0").await;
    pool.wait_for_count("idle", "1").await;
    let waits_at_first: u32 = pool.values(["wait_time_count"])[0].parse().unwrap();

    proxy.set(Mode::Blackhole);
    let find = |store: Arc<InstrumentedStore<_>>| async move { store.find(Uuid::nil()).await };
    let first = task::spawn(find(store.clone()));
    pool.wait_for_count("used", "1").await;
    let second = task::spawn(find(store));
    pool.wait_for_pending().await;
    assert!(matches!(short_timeout_store.find(Uuid::nil()).await, Err(Error::Timeout)));
    assert_eq!(pool.values(["pending_requests", "timeouts_total"]), ["1", "1"], "the timed-out call no longer waits");
    proxy.set(Mode::Pass);
    for call in [first, second] {
        call.await.unwrap().unwrap();
    }
    pool.wait_for_count("used", "0").await;
    pool.wait_for_count("idle", "1").await;
    let [pending, timeouts, waits, waited] = pool.values(["pending_requests", "timeouts_total", "wait_time_count", "wait_time_sum"]);
    assert_eq!([pending, timeouts, waits], ["0".into(), "1".into(), (waits_at_first + 2).to_string()]);
    assert!(waited.parse::<f64>().unwrap() > SHORT_TIMEOUT.as_secs_f64(), "the second call waited longer than the short timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_are_not_counted() {
    let mut server = servers::mongo();
    let recorded = MetricsRecorder::new();
    let _recording = recorded.install();
    let store = MongoStore::new(&format!("{}&minPoolSize=0", server.url("products"))).await.unwrap();
    let pool = recorded.pool("products-mongodb");
    store.find(Uuid::nil()).await.unwrap();
    pool.wait_for_count("idle", "1").await;
    server.kill();
    store.find(Uuid::nil()).await.unwrap_err();
    pool.wait_for_count("idle", "0").await;
    pool.wait_for_count("used", "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_pool_metrics() {
    let files = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/products.db", files.path().display());
    let recorded = MetricsRecorder::new();
    let _recording = recorded.install();
    let store = SqliteStore::open(&url).await.unwrap();
    assert_eq!((store.database().system, &*store.database().namespace, store.database().server), ("sqlite", "products.db", None));
    let pool = recorded.pool("products-sqlite");
    assert_eq!(
        pool.values(["limit", "pending_requests", "timeouts_total", "wait_time_count"]),
        ["5", "0", "0", "1"],
        "the migration used one"
    );
    let store = Arc::new(store);
    let short_timeout_store = InstrumentedStore::new(store.clone(), test_database(), SHORT_TIMEOUT);
    let store = Arc::new(InstrumentedStore::new(store, test_database(), LONG_TIMEOUT));

    // There is only one writer.
    let mut other = SqliteConnection::connect(&url).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let add =
        |store: Arc<InstrumentedStore<_>>| async move { store.create(Uuid::now_v7(), draft("Lamp", 1), None, "alice".into(), START).await };
    let first = task::spawn(add(store.clone()));
    pool.wait_for_count("used", "1").await;
    let second = task::spawn(add(store));
    pool.wait_for_pending().await;
    assert!(matches!(short_timeout_store.create(Uuid::now_v7(), draft("Lamp", 1), None, "alice".into(), START).await, Err(Error::Timeout)));
    assert_eq!(pool.values(["pending_requests", "timeouts_total"]), ["1", "1"], "the timed-out call no longer waits");
    other.execute("COMMIT").await.unwrap();
    for call in [first, second] {
        call.await.unwrap().unwrap();
    }
    pool.wait_for_count("used", "0").await;
    assert_eq!(pool.values(["pending_requests", "timeouts_total", "wait_time_count"]), ["0", "1", "3"]);
}
