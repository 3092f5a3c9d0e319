//! Transactional outbox: every change is unpublished until its latest version is marked as
//! published.

use std::time::Duration;

use palisade_products::store::{PendingChange, Removed};
use uuid::Uuid;

use crate::fixtures::{HOLD, LATER, START, TestStore, draft, lines};

async fn news(fresh: &TestStore) -> Vec<(Uuid, i64)> {
    fresh.store.unpublished_changes(100).await.unwrap().iter().map(|news| (news.product_id, news.version)).collect()
}

async fn publish_all(fresh: &TestStore) {
    let all = fresh.store.unpublished_changes(100).await.unwrap();
    fresh.store.mark_published(&all).await.unwrap();
    assert_eq!(news(fresh).await, []);
}

pub(crate) async fn changes_are_unpublished_until_marked(fresh: TestStore) {
    let (store, id) = (fresh.store.clone(), fresh.add_some("lamp", 5).await);
    assert_eq!(news(&fresh).await, [(id, 1)]);
    publish_all(&fresh).await;

    store.update(id, draft("lamp", 7), None, LATER).await.unwrap();
    let first = store.unpublished_changes(100).await.unwrap();
    store.update(id, draft("lamp", 8), None, LATER + HOLD).await.unwrap();
    // Only the older version is published: the newer one stays, with the time of the first change.
    store.mark_published(&first).await.unwrap();
    let left = store.unpublished_changes(100).await.unwrap();
    assert_eq!(left, [PendingChange { product_id: id, version: 3, since: first[0].since }]);
    publish_all(&fresh).await;

    // Reservations change the stock.
    let reservation = Uuid::now_v7();
    store.reserve(reservation, lines(&[(id, 2)]), START, HOLD).await.unwrap();
    assert_eq!(news(&fresh).await, [(id, 4)]);
    publish_all(&fresh).await;
    store.release(reservation, START).await.unwrap();
    assert_eq!(news(&fresh).await, [(id, 5)]);
    publish_all(&fresh).await;

    assert_eq!(store.remove(id, Some(1), LATER).await.unwrap(), Removed::VersionMismatch);
    assert_eq!(news(&fresh).await, []);
    assert_eq!(store.remove(id, None, LATER).await.unwrap(), Removed::Removed);
    assert_eq!(news(&fresh).await, [(id, PendingChange::REMOVED)]);
    publish_all(&fresh).await;
}

pub(crate) async fn relay_lease_is_exclusive(fresh: TestStore) {
    let (first, second, lease) = (Uuid::new_v4(), Uuid::new_v4(), Duration::from_secs(10));
    let lease_at = async |relay, now| fresh.store.lease_relay(relay, now, now + lease).await.unwrap();
    assert!(lease_at(first, START).await);
    assert!(!lease_at(second, START + lease / 2).await);
    assert!(lease_at(first, START + lease / 2).await, "the holder renews its lease");
    assert!(!lease_at(second, START + lease).await);
    assert!(lease_at(second, START + 2 * lease).await, "the lease has expired");
    assert!(!lease_at(first, START + 2 * lease).await);
}
