//! Transactional outbox: every change is unpublished until its latest version is marked as
//! published.

use std::time::Duration;

use palisade_events::{Destination, Lease};
use palisade_middleware::preconditions::VersionPreconditions;
use palisade_products::store::{PendingChange, RemoveOutcome};
use uuid::Uuid;

use crate::fixtures::{HOLD, LATER, START, TestStore, draft, lines};

async fn unpublished(fixture: &TestStore) -> Vec<(Uuid, i64)> {
    fixture.store.unpublished_changes(100).await.unwrap().iter().map(|change| (change.product_id, change.version)).collect()
}

async fn publish_all(fixture: &TestStore) {
    let all = fixture.store.unpublished_changes(100).await.unwrap();
    fixture.store.mark_published(all, Destination::InProcess).await.unwrap();
    assert_eq!(unpublished(fixture).await, []);
}

pub(crate) async fn changes_are_unpublished_until_marked(fixture: TestStore) {
    let (store, id) = (fixture.store.clone(), fixture.add_some("lamp", 5).await);
    assert_eq!(unpublished(&fixture).await, [(id, 1)]);
    publish_all(&fixture).await;

    store.update(id, draft("lamp", 7), VersionPreconditions::default(), "alice".into(), LATER).await.unwrap();
    let first = store.unpublished_changes(100).await.unwrap();
    store.update(id, draft("lamp", 8), VersionPreconditions::default(), "alice".into(), LATER + HOLD).await.unwrap();
    // Only the older version is published: the newer one stays, with the time of the first change.
    store.mark_published(first.clone(), Destination::InProcess).await.unwrap();
    let remaining = store.unpublished_changes(100).await.unwrap();
    assert_eq!(remaining, [PendingChange { product_id: id, version: 3, since: first[0].since }]);
    publish_all(&fixture).await;

    // Reservations change the stock.
    let reservation = Uuid::now_v7();
    store.reserve(reservation, lines(&[(id, 2)]), START, HOLD).await.unwrap();
    assert_eq!(unpublished(&fixture).await, [(id, 4)]);
    publish_all(&fixture).await;
    store.release(reservation, START).await.unwrap();
    assert_eq!(unpublished(&fixture).await, [(id, 5)]);
    publish_all(&fixture).await;

    assert_eq!(store.remove(id, VersionPreconditions::expect(1), LATER).await.unwrap(), RemoveOutcome::VersionMismatch);
    assert_eq!(unpublished(&fixture).await, []);
    assert_eq!(store.remove(id, VersionPreconditions::default(), LATER).await.unwrap(), RemoveOutcome::Removed);
    assert_eq!(unpublished(&fixture).await, [(id, PendingChange::REMOVED)]);
    publish_all(&fixture).await;
}

pub(crate) async fn relay_lease_is_exclusive(fixture: TestStore) {
    let (first, second, lease) = (Uuid::new_v4(), Uuid::new_v4(), Duration::from_secs(10));
    let lease_at =
        async |relay, now| fixture.store.lease_relay(relay, Destination::InProcess, now, now + lease).await.unwrap() == Lease::Held;
    assert!(lease_at(first, START).await);
    assert!(!lease_at(second, START + lease / 2).await);
    assert!(lease_at(first, START + lease / 2).await, "the holder renews its lease");
    assert!(!lease_at(second, START + lease).await);
    assert!(lease_at(second, START + 2 * lease).await, "the lease has expired");
    assert!(!lease_at(first, START + 2 * lease).await);
}

pub(crate) async fn outbox_of_a_broker_is_not_drained_in_process(fixture: TestStore) {
    let (store, id, later) = (&fixture.store, fixture.add_some("lamp", 5).await, START + Duration::from_mins(1));
    let (plain, broker, other) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    assert_eq!(store.lease_relay(plain, Destination::InProcess, START, later).await.unwrap(), Lease::Held);
    let fetched = store.unpublished_changes(100).await.unwrap();
    // The replica with a broker takes over at once; what the other one fetched is not lost.
    assert_eq!(store.lease_relay(broker, Destination::Broker, START, later).await.unwrap(), Lease::Held);
    store.mark_published(fetched.clone(), Destination::InProcess).await.unwrap();
    assert_eq!(unpublished(&fixture).await, [(id, 1)]);
    assert_eq!(store.lease_relay(plain, Destination::InProcess, LATER, LATER).await.unwrap(), Lease::OtherDestination);
    assert_eq!(store.lease_relay(other, Destination::Broker, START, later).await.unwrap(), Lease::HeldByAnother);
    store.mark_published(fetched, Destination::Broker).await.unwrap();
    assert_eq!(unpublished(&fixture).await, []);
    store.reset_relay().await.unwrap();
    assert_eq!(store.lease_relay(plain, Destination::InProcess, START, later).await.unwrap(), Lease::Held);
}
