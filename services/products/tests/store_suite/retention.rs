//! Retention: reservations that own no units are deleted, and nothing else is.

use palisade_products::reservation::{FulfilOutcome, ReserveOutcome};
use uuid::Uuid;

use crate::fixtures::{LATER, START, TestStore};

pub(crate) async fn settled_reservations_are_deleted_after_their_retention(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 100).await;
    let store = &fixture.store;
    let [held, confirmed, released, fulfilled] = [
        fixture.hold(&[(product, 1)]).await,
        fixture.hold(&[(product, 2)]).await,
        fixture.hold(&[(product, 3)]).await,
        fixture.hold(&[(product, 4)]).await,
    ];
    for id in [confirmed, fulfilled] {
        store.confirm(id, START).await.unwrap();
    }
    store.release(released, LATER).await.unwrap();
    store.fulfil(fulfilled, LATER).await.unwrap();
    let (refused, tombstone) = (Uuid::now_v7(), Uuid::now_v7());
    fixture.reserve(refused, &[(product, 1_000)]).await;
    store.release(tombstone, LATER).await.unwrap();

    // The refused one has not changed since START.
    let almost = LATER - std::time::Duration::from_millis(1);
    assert_eq!(store.stats(LATER, almost).await.unwrap().overdue_reservations, 1);
    assert_eq!(store.delete_settled(almost, 10).await.unwrap(), 1);
    assert_eq!(store.stats(LATER, LATER).await.unwrap().overdue_reservations, 3);
    assert_eq!(store.delete_settled(LATER, 10).await.unwrap(), 3);
    assert_eq!(store.delete_settled(LATER, 10).await.unwrap(), 0);

    let open: Vec<_> = store.list_reservations(None, 10).await.unwrap().into_iter().map(|reservation| reservation.id).collect();
    assert_eq!(open, [held, confirmed]);
    assert_eq!(fixture.available(product).await, 100 - 1 - 2 - 4);
    fixture.assert_balanced().await;

    // A deleted reservation gives nothing back twice, and takes nothing off twice.
    for id in [released, fulfilled, tombstone] {
        assert_eq!(store.fulfil(id, LATER).await.unwrap(), FulfilOutcome::Unknown);
        store.release(id, LATER).await.unwrap();
        assert_eq!(fixture.reserve(id, &[(product, 1)]).await, ReserveOutcome::Released);
    }
    assert_eq!(fixture.available(product).await, 100 - 1 - 2 - 4);
    fixture.assert_balanced().await;
}

pub(crate) async fn deletion_is_bounded(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 100).await;
    for _ in 0..5 {
        fixture.store.release(fixture.hold(&[(product, 1)]).await, START).await.unwrap();
        fixture.reserve(Uuid::now_v7(), &[(product, 1_000)]).await;
    }
    let mut deleted = Vec::new();
    for _ in 0..4 {
        deleted.push(fixture.store.delete_settled(LATER, 4).await.unwrap());
    }
    assert_eq!(deleted, [4, 4, 2, 0]);
    fixture.assert_balanced().await;
}
