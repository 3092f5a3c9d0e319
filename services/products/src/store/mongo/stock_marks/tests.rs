use mongodb::bson::doc;
use uuid::Uuid;

use super::*;
use crate::store::{
    Maintenance, MongoStore, ReservationStore,
    mongo::{
        documents::{ReservationDocument, bson_id},
        test_store::{HOLD, NOW, lines, new_store},
    },
};

/// Records a reservation of 4 of a product's 10 units. Returns it with the product as it was
/// before.
async fn insert_reserving(store: &MongoStore) -> (ReservationDocument, Stock) {
    let product = store.add(10).await;
    let stock = find(&store.collections, bson_id(product)).await.unwrap().unwrap();
    let id = Uuid::now_v7();
    let (state, held) = lines(&[(product, 4)]).evaluate(&[(product, stock.product_stock())].into());
    let reservation = crate::reservation::Reservation { id, state, lines: held, expires_at: NOW + HOLD };
    let document = ReservationDocument::new(&reservation, NOW);
    store.collections.reservations.insert_one(&document).await.unwrap();
    (document, stock)
}

/// Runs the step of an executor that was suspended since the reservation was recorded.
async fn take_late(store: &MongoStore, document: &ReservationDocument, before: &Stock) -> TakeOutcome {
    take(&store.collections, document.id, &document.lines[0], Some(before.epoch), NOW).await.unwrap()
}

fn id_of(document: &ReservationDocument) -> Uuid {
    Uuid::from_bytes(document.id.bytes())
}

async fn stock(store: &MongoStore, of: &Stock) -> Stock {
    find(&store.collections, of.id).await.unwrap().unwrap()
}

/// Adds marks without an owner up to the threshold, and prunes.
async fn fill_and_prune(store: &MongoStore, of: &Stock) -> Stock {
    let fill: Vec<_> = (0..=PRUNE_THRESHOLD).map(|n| format!("t:{n}")).collect();
    store.tamper(Uuid::from_bytes(of.id.bytes()), doc! { "$push": { "marks": { "$each": fill } } }).await;
    prune(&store.collections, &stock(store, of).await).await.unwrap();
    stock(store, of).await
}

#[tokio::test]
async fn late_take_is_stopped_after_undo() {
    let store = new_store().await;
    let (document, before) = insert_reserving(&store).await;
    store.release(id_of(&document), NOW).await.unwrap();
    assert_eq!(take_late(&store, &document, &before).await, TakeOutcome::Stopped);
    assert_eq!(stock(&store, &before).await.quantity, 10);
}

#[tokio::test]
async fn late_take_is_stopped_after_fence_is_pruned() {
    let store = new_store().await;
    let (document, before) = insert_reserving(&store).await;
    store.release(id_of(&document), NOW).await.unwrap();
    assert!(fill_and_prune(&store, &before).await.marks.is_empty());
    assert_eq!(take_late(&store, &document, &before).await, TakeOutcome::Stopped);
    assert_eq!(stock(&store, &before).await.quantity, 10);
}

#[tokio::test]
async fn late_take_is_not_repeated_after_mark_is_pruned() {
    let store = new_store().await;
    let (document, before) = insert_reserving(&store).await;
    store.confirm(id_of(&document), NOW).await.unwrap();
    assert!(fill_and_prune(&store, &before).await.marks.is_empty());
    assert_eq!(take_late(&store, &document, &before).await, TakeOutcome::Stopped);
    assert_eq!(stock(&store, &before).await.quantity, 6);
    store.release(id_of(&document), NOW).await.unwrap();
    assert_eq!(stock(&store, &before).await.quantity, 10, "given back although the mark is pruned");
}

#[tokio::test]
async fn give_back_is_idempotent_after_prune() {
    let store = new_store().await;
    for held in [false, true] {
        let (document, before) = insert_reserving(&store).await;
        if held {
            store.confirm(id_of(&document), NOW).await.unwrap();
        } else {
            assert_eq!(take_late(&store, &document, &before).await, TakeOutcome::Taken);
        }
        store.release(id_of(&document), NOW).await.unwrap();
        give_back(&store.collections, document.id, &document.lines[0], held, NOW).await.unwrap();
        assert_eq!(stock(&store, &before).await.quantity, 10);
        fill_and_prune(&store, &before).await;
        give_back(&store.collections, document.id, &document.lines[0], held, NOW).await.unwrap();
        assert_eq!(stock(&store, &before).await.quantity, 10);
    }
    assert_eq!(store.audit(NOW).await.unwrap().violations, []);
}

#[tokio::test]
async fn prune_keeps_marks_of_unsettled_reservations() {
    let store = new_store().await;
    let (document, before) = insert_reserving(&store).await;
    take_late(&store, &document, &before).await;
    let pruned = fill_and_prune(&store, &before).await;
    assert_eq!((pruned.marks, pruned.epoch), (vec![taken(document.id)], 1));
}

#[tokio::test]
async fn prune_keeps_marks_added_since_the_read() {
    let store = new_store().await;
    let (document, before) = insert_reserving(&store).await;
    store.confirm(id_of(&document), NOW).await.unwrap();
    let fill: Vec<_> = (0..=PRUNE_THRESHOLD).map(|n| format!("t:{n}")).collect();
    store.tamper(Uuid::from_bytes(before.id.bytes()), doc! { "$push": { "marks": { "$each": fill } } }).await;
    let read = stock(&store, &before).await;
    // A release that began meanwhile.
    store.tamper(Uuid::from_bytes(before.id.bytes()), doc! { "$push": { "marks": given_back(document.id) } }).await;
    prune(&store.collections, &read).await.unwrap();
    assert_eq!(stock(&store, &before).await.marks, [given_back(document.id)]);
}

#[tokio::test]
async fn marks_per_product_are_bounded() {
    let store = new_store().await;
    let product = store.add(1_000).await;
    let mut max_marks = 0;
    for _ in 0..150 {
        store.reserve(Uuid::now_v7(), lines(&[(product, 1)]), NOW, HOLD).await.unwrap();
        max_marks = max_marks.max(find(&store.collections, bson_id(product)).await.unwrap().unwrap().marks.len());
    }
    assert!(max_marks <= PRUNE_THRESHOLD + 2, "{max_marks} marks");
    assert_eq!(store.available(product).await, 850);
    assert_eq!(store.audit(NOW).await.unwrap().violations, []);
}

/// Product recalled: every order of it is cancelled and no new one is placed.
#[tokio::test]
async fn marks_are_bounded_when_all_are_released() {
    let store = new_store().await;
    let product = store.add(1_000).await;
    let marks = async || find(&store.collections, bson_id(product)).await.unwrap().unwrap().marks.len();
    let mut max_marks = 0;
    let mut reservations = Vec::new();
    for _ in 0..220 {
        let id = Uuid::now_v7();
        store.reserve(id, lines(&[(product, 1)]), NOW, HOLD).await.unwrap();
        store.confirm(id, NOW).await.unwrap();
        reservations.push(id);
    }
    for id in reservations {
        store.release(id, NOW).await.unwrap();
        max_marks = max_marks.max(marks().await);
    }
    assert!(max_marks <= PRUNE_THRESHOLD + 2, "{max_marks} marks");
    // Refused reservations fence their lines: each leaves a mark, too.
    let scarce = store.add(0).await;
    for _ in 0..150 {
        let id = Uuid::now_v7();
        let (state, held) = lines(&[(product, 1), (scarce, 1)]).evaluate(&std::collections::HashMap::default());
        assert!(matches!(state, crate::reservation::State::Refused { .. }));
        let reservation =
            crate::reservation::Reservation { id, state: crate::reservation::State::Held, lines: held, expires_at: NOW + HOLD };
        store.collections.reservations.insert_one(ReservationDocument::new(&reservation, NOW)).await.unwrap();
        store.release(id, NOW).await.unwrap();
        max_marks = max_marks.max(marks().await);
    }
    assert!(max_marks <= PRUNE_THRESHOLD + 2, "{max_marks} marks");
    assert_eq!(store.available(product).await, 1_000);
    assert_eq!(store.audit(NOW).await.unwrap().violations, []);
}
