//! Revisions: the lines of a confirmed reservation are replaced, and only the difference moves.

use std::{collections::HashMap, sync::Arc};

use futures_util::future::join_all;
use palisade_middleware::{preconditions::VersionPreconditions, task};
use palisade_products::{
    product::ValidatedProduct,
    reservation::{Refusal, Reservation, ReviseOutcome, Revision, State},
    store::RemoveOutcome,
};
use uuid::Uuid;

use crate::fixtures::{LATER, START, TestStore, input, lines};

fn revision(number: i64, requested: &[(Uuid, i64)]) -> Revision {
    Revision { number, lines: lines(requested) }
}

impl TestStore {
    async fn revise(&self, id: Uuid, number: i64, requested: &[(Uuid, i64)]) -> ReviseOutcome {
        self.store.revise(id, revision(number, requested), START).await.unwrap()
    }

    /// Replaces the price of a product.
    async fn reprice(&self, product: Uuid, price_minor: i64) {
        let quantity = self.available(product).await;
        let draft = ValidatedProduct::new(palisade_products::product::Input { price_minor, ..input("Dearer", quantity) }).unwrap();
        self.store.update(product, draft, VersionPreconditions::default(), "seller".into(), START).await.unwrap();
    }

    async fn stored(&self, id: Uuid) -> Reservation {
        let open = self.store.list_reservations(None, 100).await.unwrap();
        open.into_iter().find(|reservation| reservation.id == id).expect("the reservation owns units")
    }
}

fn quantities(reservation: &Reservation) -> HashMap<Uuid, i64> {
    reservation.lines.iter().map(|line| (line.product_id, line.quantity)).collect()
}

pub(crate) async fn difference_is_taken_and_given_back_once(fixture: TestStore) {
    let [kept, more, less, gone, new] = [
        fixture.add_some("A", 10).await,
        fixture.add_some("B", 10).await,
        fixture.add_some("C", 10).await,
        fixture.add_some("D", 10).await,
        fixture.add_some("E", 10).await,
    ];
    let id = fixture.sell(&[(kept, 2), (more, 2), (less, 5), (gone, 3)]).await;
    for product in [kept, more, less, new] {
        fixture.reprice(product, 5_000).await;
    }
    let requested = [(kept, 2), (more, 6), (less, 1), (new, 4)];
    for _ in 0..3 {
        let ReviseOutcome::Revised(reservation) = fixture.revise(id, 4, &requested).await else { panic!("must be revised") };
        assert_eq!((reservation.state, quantities(&reservation)), (State::Confirmed, HashMap::from(requested)));
        assert_eq!(reservation, fixture.stored(id).await);
        let prices: HashMap<Uuid, i64> = reservation.lines.iter().map(|line| (line.product_id, line.unit_price_minor)).collect();
        assert_eq!(prices, HashMap::from([(kept, 1999), (more, 5_000), (less, 5_000), (new, 5_000)]), "an unchanged line keeps its price");
        let available = [
            fixture.available(kept).await,
            fixture.available(more).await,
            fixture.available(less).await,
            fixture.available(gone).await,
            fixture.available(new).await,
        ];
        assert_eq!(available, [8, 4, 9, 10, 6]);
        fixture.assert_balanced().await;
    }
    assert_eq!(fixture.revise(id, 4, &[(kept, 1)]).await, ReviseOutcome::DifferentLines);
    assert_eq!(fixture.store.remove(gone, VersionPreconditions::default(), START).await.unwrap(), RemoveOutcome::Removed);
    assert_eq!(fixture.store.remove(new, VersionPreconditions::default(), START).await.unwrap(), RemoveOutcome::InUse);

    // A release gives back the lines of the revision.
    fixture.store.release(id, LATER).await.unwrap();
    assert_eq!((fixture.available(more).await, fixture.available(less).await, fixture.available(new).await), (10, 10, 10));
    fixture.assert_balanced().await;
}

pub(crate) async fn refused_revision_changes_nothing_and_is_final(fixture: TestStore) {
    let (one, other) = (fixture.add_some("A", 10).await, fixture.add_some("B", 5).await);
    let id = fixture.sell(&[(one, 4)]).await;
    let before = (fixture.stored(id).await, fixture.get(one).await, fixture.get(other).await);
    let refused = ReviseOutcome::Refused { reason: Refusal::InsufficientStock, product_id: other };
    assert_eq!(fixture.revise(id, 4, &[(one, 1), (other, 6)]).await, refused);
    assert_eq!((fixture.stored(id).await, fixture.get(one).await, fixture.get(other).await), before);
    // The stored outcome, although there is stock by now.
    let full = fixture.add_some("C", 10).await;
    let draft = ValidatedProduct::new(input("B", 100)).unwrap();
    fixture.store.update(other, draft, VersionPreconditions::default(), "seller".into(), START).await.unwrap();
    assert_eq!(fixture.revise(id, 4, &[(one, 1), (other, 6)]).await, refused);
    let unknown = Uuid::now_v7();
    assert_eq!(
        fixture.revise(id, 6, &[(one, 4), (unknown, 1)]).await,
        ReviseOutcome::Refused { reason: Refusal::UnknownProduct, product_id: unknown }
    );
    let inactive = palisade_products::product::Input { is_active: false, ..input("C", 10) };
    fixture
        .store
        .update(full, ValidatedProduct::new(inactive).unwrap(), VersionPreconditions::default(), "seller".into(), START)
        .await
        .unwrap();
    assert_eq!(
        fixture.revise(id, 8, &[(one, 4), (full, 1)]).await,
        ReviseOutcome::Refused { reason: Refusal::ProductInactive, product_id: full }
    );
    fixture.assert_balanced().await;
    assert!(matches!(fixture.revise(id, 10, &[(one, 1), (other, 6)]).await, ReviseOutcome::Revised(_)));
    assert_eq!((fixture.available(one).await, fixture.available(other).await), (9, 94));
    fixture.assert_balanced().await;
}

pub(crate) async fn only_a_confirmed_reservation_is_revised(fixture: TestStore) {
    let product = fixture.add_some("A", 10).await;
    assert_eq!(fixture.revise(Uuid::now_v7(), 4, &[(product, 1)]).await, ReviseOutcome::Unknown);
    let held = fixture.hold(&[(product, 1)]).await;
    assert_eq!(fixture.revise(held, 4, &[(product, 2)]).await, ReviseOutcome::NotConfirmed);
    let released = fixture.sell(&[(product, 1)]).await;
    fixture.store.release(released, START).await.unwrap();
    assert_eq!(fixture.revise(released, 4, &[(product, 2)]).await, ReviseOutcome::NotConfirmed);
    let fulfilled = fixture.sell(&[(product, 1)]).await;
    assert!(matches!(fixture.revise(fulfilled, 4, &[(product, 3)]).await, ReviseOutcome::Revised(_)));
    fixture.store.fulfil(fulfilled, START).await.unwrap();
    assert_eq!(fixture.revise(fulfilled, 6, &[(product, 2)]).await, ReviseOutcome::NotConfirmed);
    assert_eq!(fixture.available(product).await, 6, "3 units left for good, 1 is held");
    fixture.assert_balanced().await;
}

pub(crate) async fn earlier_revision_is_rejected(fixture: TestStore) {
    let product = fixture.add_some("A", 10).await;
    let id = fixture.sell(&[(product, 1)]).await;
    assert!(matches!(fixture.revise(id, 6, &[(product, 3)]).await, ReviseOutcome::Revised(_)));
    assert_eq!(fixture.revise(id, 4, &[(product, 9)]).await, ReviseOutcome::Superseded);
    assert_eq!(fixture.available(product).await, 7);
    fixture.assert_balanced().await;
}

pub(crate) async fn concurrent_revisions_and_releases_balance(fixture: TestStore) {
    let products = [fixture.add_some("A", 60).await, fixture.add_some("B", 60).await, fixture.add_some("C", 60).await];
    let mut sold = Vec::new();
    for _ in 0..8 {
        sold.push(fixture.sell(&[(products[0], 3), (products[1], 2)]).await);
    }
    let mut calls = Vec::new();
    for (n, id) in (0_i64..).zip(&sold) {
        for number in 1..=5 {
            // Each revision is called twice at once; some reservations are released meanwhile.
            let requested = [(products[0], 1 + (n + number) % 7), (products[2], 1 + (n * number) % 9)];
            for _ in 0..2 {
                let (store, id) = (Arc::clone(&fixture.store), *id);
                calls.push(task::spawn(async move {
                    if number == 4 && n % 3 == 0 {
                        store.release(id, START).await.unwrap();
                    } else {
                        store.revise(id, revision(number, &requested), START).await.unwrap();
                    }
                }));
            }
        }
    }
    for done in join_all(calls).await {
        done.unwrap();
    }
    fixture.assert_balanced().await;
    let open = fixture.store.list_reservations(None, 100).await.unwrap();
    let owned = |product| open.iter().filter_map(|reservation| quantities(reservation).get(&product).copied()).sum::<i64>();
    for product in products {
        assert_eq!(fixture.available(product).await + owned(product), 60);
    }
    assert_eq!(open.len(), 5, "3 of 8 were released");
}
