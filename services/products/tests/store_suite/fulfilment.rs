//! Fulfilment: the units of a delivered reservation leave the stock for good.

use std::sync::Arc;

use futures_util::future::join_all;
use palisade_middleware::{preconditions::VersionPreconditions, task};
use palisade_products::{
    reservation::{ConfirmOutcome, FulfilOutcome, ReserveOutcome, State},
    store::RemoveOutcome,
};
use uuid::Uuid;

use crate::fixtures::{LATER, START, TestStore};

impl TestStore {
    /// Returns a confirmed reservation of these lines.
    pub(crate) async fn sell(&self, lines: &[(Uuid, i64)]) -> Uuid {
        let id = self.hold(lines).await;
        self.store.confirm(id, START).await.unwrap();
        id
    }
}

pub(crate) async fn fulfilled_units_leave_the_stock_once(fixture: TestStore) {
    let (one, other) = (fixture.add_some("Lamp", 10).await, fixture.add_some("Lantern", 10).await);
    let id = fixture.sell(&[(one, 3), (other, 4)]).await;
    let before = fixture.get(one).await;
    for _ in 0..3 {
        let FulfilOutcome::Fulfilled(reservation) = fixture.store.fulfil(id, LATER).await.unwrap() else { panic!("must be fulfilled") };
        assert_eq!((reservation.state, reservation.lines.len()), (State::Fulfilled, 2));
        assert_eq!((fixture.available(one).await, fixture.available(other).await), (7, 6));
        fixture.assert_balanced().await;
    }
    assert_eq!(fixture.get(one).await, before, "no visible field changes");
    let audit = fixture.store.audit(START).await.unwrap();
    assert_eq!((audit.held_units, audit.confirmed_units, audit.available_units), (0, 0, 13));
    assert_eq!(fixture.store.list_reservations(None, 10).await.unwrap(), []);

    // Late calls of the saga have no effect.
    assert_eq!(fixture.store.release(id, LATER).await.unwrap().state, State::Fulfilled);
    assert!(matches!(fixture.store.confirm(id, LATER).await.unwrap(), ConfirmOutcome::Confirmed(_)));
    assert!(matches!(fixture.reserve(id, &[(one, 3), (other, 4)]).await, ReserveOutcome::Held(_)));
    assert_eq!(fixture.reserve(id, &[(one, 1)]).await, ReserveOutcome::DifferentLines);
    assert_eq!((fixture.available(one).await, fixture.available(other).await), (7, 6));
    fixture.assert_balanced().await;

    let held = fixture.hold(&[(other, 1)]).await;
    assert_eq!(fixture.store.remove(one, VersionPreconditions::default(), LATER).await.unwrap(), RemoveOutcome::Removed);
    assert_eq!(fixture.store.remove(other, VersionPreconditions::default(), LATER).await.unwrap(), RemoveOutcome::InUse);
    fixture.store.release(held, LATER).await.unwrap();
    assert_eq!(fixture.store.remove(other, VersionPreconditions::default(), LATER).await.unwrap(), RemoveOutcome::Removed);
    assert!(matches!(fixture.store.fulfil(id, LATER).await.unwrap(), FulfilOutcome::Fulfilled(_)), "the products are gone");
    fixture.assert_balanced().await;
}

pub(crate) async fn only_a_confirmed_reservation_is_fulfilled(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 10).await;
    assert_eq!(fixture.store.fulfil(Uuid::now_v7(), START).await.unwrap(), FulfilOutcome::Unknown);
    let held = fixture.hold(&[(product, 1)]).await;
    assert_eq!(fixture.store.fulfil(held, START).await.unwrap(), FulfilOutcome::NotConfirmed);
    fixture.store.release(held, START).await.unwrap();
    let refused = Uuid::now_v7();
    fixture.reserve(refused, &[(product, 11)]).await;
    let tombstone = Uuid::now_v7();
    fixture.store.release(tombstone, START).await.unwrap();
    let expired = fixture.hold(&[(product, 1)]).await;
    fixture.store.expire_due(LATER, 10).await.unwrap();
    for id in [held, refused, tombstone, expired] {
        assert_eq!(fixture.store.fulfil(id, START).await.unwrap(), FulfilOutcome::NotConfirmed);
    }
    assert_eq!(fixture.available(product).await, 10);
    fixture.assert_balanced().await;
}

pub(crate) async fn concurrent_fulfilments_take_off_once(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 1_000).await;
    let mut sold = Vec::new();
    for _ in 0..10 {
        sold.push(fixture.sell(&[(product, 5)]).await);
    }
    let store = Arc::clone(&fixture.store);
    let calls = sold.iter().flat_map(|id| [*id; 4]).map(|id| {
        let store = store.clone();
        task::spawn(async move { store.fulfil(id, LATER).await.unwrap() })
    });
    // Others reserve and release the same product meanwhile.
    let traffic = (0..20).map(|_| {
        let store = store.clone();
        let lines = crate::fixtures::lines(&[(product, 2)]);
        task::spawn(async move {
            let id = Uuid::now_v7();
            store.reserve(id, lines, START, crate::fixtures::HOLD).await.unwrap();
            store.release(id, START).await.unwrap();
        })
    });
    let (fulfilled, traffic) = tokio::join!(join_all(calls.collect::<Vec<_>>()), join_all(traffic.collect::<Vec<_>>()));
    assert!(fulfilled.into_iter().all(|outcome| matches!(outcome.unwrap(), FulfilOutcome::Fulfilled(_))));
    for done in traffic {
        done.unwrap();
    }
    assert_eq!(fixture.available(product).await, 950);
    fixture.assert_balanced().await;
    assert_eq!(fixture.store.remove(product, VersionPreconditions::default(), LATER).await.unwrap(), RemoveOutcome::Removed);
}
