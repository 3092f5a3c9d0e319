//! Database outages: down or unresponsive.

use std::{sync::Arc, time::Duration};

use palisade_products::store::{Error, InstrumentedStore, Maintenance, MongoStore, ProductStore};
use palisade_tests::servers;
use uuid::Uuid;

use crate::fixtures::test_database;

#[tokio::test(flavor = "multi_thread")]
async fn dead_database_is_unavailable_until_restart() {
    let mut server = servers::mongo();
    let store = MongoStore::new(&server.url("products")).await.unwrap();
    server.kill();
    assert!(matches!(store.find(Uuid::nil()).await, Err(Error::Unavailable(_))));
    assert!(matches!(store.ping().await, Err(Error::Unavailable(_))));
    server.restart();
    while store.ping().await.is_err() {}
    assert_eq!(store.find(Uuid::nil()).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn unresponsive_database_is_a_timeout() {
    let server = servers::mongo();
    let store = MongoStore::new(&server.url("products")).await.unwrap();
    let store = InstrumentedStore::new(Arc::new(store), test_database(), Duration::from_secs(2));
    store.ping().await.unwrap();
    server.pause();
    assert!(matches!(store.find(Uuid::nil()).await, Err(Error::Timeout)));
    server.resume();
    while store.ping().await.is_err() {}
}
