use palisade_middleware::clock;

use super::*;
use crate::{
    reservation::{Line, Lines, State},
    store::{
        Maintenance, MongoStore, ReservationStore,
        mongo::{
            sweep::ABANDONED_AFTER,
            test_store::{HOLD, NOW, lines, new_store},
        },
    },
};

/// A confirmed reservation of 4 of 10 units of two products, and a third product.
async fn sell(store: &MongoStore) -> (Uuid, [Uuid; 3]) {
    let products = [store.add(10).await, store.add(10).await, store.add(10).await];
    let id = Uuid::now_v7();
    store.reserve_and_confirm(id, lines(&[(products[0], 4), (products[1], 4)]), NOW, HOLD).await.unwrap();
    (id, products)
}

/// One product needs more units, one fewer, one is new.
fn revision([more, less, new]: [Uuid; 3]) -> Revision {
    Revision { number: 4, lines: lines(&[(more, 7), (less, 1), (new, 2)]) }
}

async fn reservation(store: &MongoStore, id: Uuid) -> ReservationDocument {
    find(&store.collections, id).await.unwrap().unwrap()
}

async fn stock(store: &MongoStore, product: Uuid) -> Stock {
    stock_marks::find(&store.collections, bson_id(product)).await.unwrap().unwrap()
}

/// Number of steps of [`run_until_crash`].
const STEPS: usize = 8;

/// Runs the first steps of a revision as if the process crashed afterwards.
async fn run_until_crash(store: &MongoStore, id: Uuid, revision: &Revision, steps: usize) {
    let db = &store.collections;
    for step in 0..steps {
        let document = reservation(store, id).await;
        let current = document.revision.clone();
        let current = current.as_ref();
        match step {
            0 => begin(db, document, revision, NOW).await.unwrap(),
            1 | 2 => {
                let units = &current.unwrap().takes[step - 1];
                take(db, document.id, 4, units, NOW).await.unwrap();
            }
            3 => take_units(db, &document, current.unwrap(), NOW).await.unwrap(),
            4 => give_back(db, document.id, 4, &current.unwrap().gives_back[0], NOW).await.unwrap(),
            5 => {
                let change = doc! { "$set": { "revision.step": RevisionStep::Clearing } };
                advance(db, &document, change, NOW).await.unwrap();
            }
            6 => clear(db, document.id, 4, &current.unwrap().takes[0]).await.unwrap(),
            7 => clear(db, document.id, 4, &current.unwrap().gives_back[0]).await.unwrap(),
            _ => unreachable!("a revision has {STEPS} steps before the last"),
        }
    }
}

async fn assert_revised(store: &MongoStore, id: Uuid, products: [Uuid; 3], context: &str) {
    let document = reservation(store, id).await;
    assert!(document.revision.is_none(), "{context}");
    for (product, quantity, taken) in [(products[0], 3, 7), (products[1], 9, 1), (products[2], 8, 2)] {
        let stock = stock(store, product).await;
        assert_eq!((stock.quantity, stock.taken, stock.supply, stock.revising), (quantity, taken, 10, vec![]), "{context}");
    }
    assert_eq!(store.audit(NOW).await.unwrap().violations, [], "{context}");
}

#[tokio::test]
async fn interrupted_revision_is_finished_by_a_repetition() {
    let store = new_store().await;
    for steps in 0..=STEPS {
        let (id, products) = sell(&store).await;
        run_until_crash(&store, id, &revision(products), steps).await;
        assert_eq!(store.audit(NOW).await.unwrap().violations, [], "{steps} steps");
        let outcome = store.revise(id, revision(products), NOW).await.unwrap();
        assert!(matches!(outcome, ReviseOutcome::Revised(_)), "{steps} steps: {outcome:?}");
        assert_revised(&store, id, products, &format!("{steps} steps")).await;
    }
}

#[tokio::test]
async fn interrupted_revision_is_finished_before_a_release_or_fulfilment() {
    let store = new_store().await;
    for steps in 1..=STEPS {
        for fulfils in [false, true] {
            let (id, products) = sell(&store).await;
            run_until_crash(&store, id, &revision(products), steps).await;
            let state = if fulfils {
                store.fulfil(id, NOW).await.unwrap();
                State::Fulfilled
            } else {
                store.release(id, NOW).await.unwrap();
                State::Released
            };
            let document = reservation(&store, id).await;
            assert!(document.revision.is_none(), "{steps} steps");
            assert_eq!(document.into_reservation().unwrap().unwrap().state, state, "{steps} steps");
            let left = if fulfils { [3, 9, 8] } else { [10, 10, 10] };
            for (product, left) in products.into_iter().zip(left) {
                let stock = stock(&store, product).await;
                assert_eq!((stock.quantity, stock.taken), (left, 0), "{steps} steps, fulfilled: {fulfils}");
            }
            assert_eq!(store.audit(NOW).await.unwrap().violations, [], "{steps} steps");
        }
    }
}

#[tokio::test]
async fn sweeper_finishes_an_abandoned_revision() {
    let store = new_store().await;
    let (id, products) = sell(&store).await;
    run_until_crash(&store, id, &revision(products), 2).await;
    assert_eq!(store.expire_due(NOW, 10).await.unwrap(), 0, "it may still be under way");
    assert_eq!(store.expire_due(clock::after(NOW, ABANDONED_AFTER), 10).await.unwrap(), 1);
    assert_revised(&store, id, products, "abandoned").await;
}

/// A product sells out between the decision and its step.
#[tokio::test]
async fn units_that_were_taken_are_given_back_if_a_line_is_unavailable() {
    let store = new_store().await;
    for steps in 1..=2 {
        let (id, products) = sell(&store).await;
        let [more, less, new] = products;
        run_until_crash(&store, id, &revision(products), steps).await;
        let sold_out = if bson_id(more).bytes() < bson_id(new).bytes() { (new, 10) } else { (more, 6) };
        store.reserve(Uuid::now_v7(), lines(&[sold_out]), NOW, HOLD).await.unwrap();
        assert_eq!(
            store.revise(id, revision(products), NOW).await.unwrap(),
            ReviseOutcome::Refused { reason: Refusal::InsufficientStock, product_id: sold_out.0 }
        );
        let document = reservation(&store, id).await;
        assert!(document.revision.is_none());
        let held = document.into_reservation().unwrap().unwrap();
        let unchanged = Lines::new([more, less].map(|product_id| Line { product_id, quantity: 4 }).to_vec()).unwrap();
        assert!(held.has_lines(&unchanged), "{held:?}");
        for product in products {
            assert_eq!(stock(&store, product).await.revising, Vec::<String>::new());
        }
        assert_eq!(store.available(less).await, 6);
        assert_eq!(store.audit(NOW).await.unwrap().violations, []);
    }
}

/// An executor that was suspended between its check and its update, while others finished.
#[tokio::test]
async fn late_steps_are_stopped_after_the_revision() {
    let store = new_store().await;
    let db = &store.collections;
    let (id, products) = sell(&store).await;
    run_until_crash(&store, id, &revision(products), 1).await;
    let before = [stock(&store, products[0]).await, stock(&store, products[2]).await];
    let begun = reservation(&store, id).await;
    store.revise(id, revision(products), NOW).await.unwrap();
    for product in &before {
        let entry = taken(begun.id, 4);
        assert_eq!(db.stock.update_one(guard(product, &entry), move_units(-1, &entry, NOW)).await.unwrap().matched_count, 0);
    }
    for units in &begun.revision.as_ref().unwrap().takes {
        assert_eq!(take(db, begun.id, 4, units, NOW).await.unwrap(), TakeOutcome::Stopped);
    }
    for units in &begun.revision.as_ref().unwrap().gives_back {
        give_back(db, begun.id, 4, units, NOW).await.unwrap();
    }
    assert_revised(&store, id, products, "after late steps").await;
}

/// A replica of the previous release knows no revisions: it releases the lines that it reads.
#[tokio::test]
async fn release_by_the_previous_release_is_completed() {
    let store = new_store().await;
    for (steps, ends) in [1, 2, 3, 4, 5, 6].into_iter().flat_map(|steps| [(steps, false), (steps, true)]) {
        let (id, products) = sell(&store).await;
        run_until_crash(&store, id, &revision(products), steps).await;
        let document = reservation(&store, id).await;
        let undoing = doc! { "$set": { "state": Phase::Undoing, "undo": { "to": Phase::Released, "sure": true } } };
        let db = &store.collections;
        db.reservations.update_one(doc! { "_id": document.id }, undoing).await.unwrap();
        let undoing = reservation(&store, id).await;
        for line in &undoing.lines {
            stock_marks::give_back(db, document.id, line, true, NOW).await.unwrap();
        }
        // It may also crash before that.
        if ends {
            let released = doc! { "$set": { "state": Phase::Released, "undo": Bson::Null } };
            db.reservations.update_one(doc! { "_id": document.id }, released).await.unwrap();
        }
        assert_eq!(store.expire_due(clock::after(NOW, ABANDONED_AFTER), 10).await.unwrap(), 1, "{steps} steps");
        assert_eq!(reservation(&store, id).await.state, Phase::Released, "{steps} steps");
        for product in products {
            let stock = stock(&store, product).await;
            assert_eq!((stock.quantity, stock.taken, stock.revising), (10, 0, vec![]), "{steps} steps");
        }
        assert_eq!(store.audit(NOW).await.unwrap().violations, [], "{steps} steps");
    }
}
