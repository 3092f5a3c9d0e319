use mongodb::bson::RawDocumentBuf;
use palisade_events::Destination;

use super::*;
use crate::{
    product::{Filter, Query, Sort},
    store::{
        mongo::{
            outbox,
            test_store::{HOLD, NOW, lines, new_store},
        },
        roles::{OutboxStore, PendingChange, ProductStore, RemoveOutcome, ReservationStore},
    },
};

#[tokio::test]
async fn unreadable_documents_do_not_block_the_others() {
    let store = new_store().await;
    let (good, bad) = (store.add(10).await, store.add(10).await);
    let (held, broken) = (Uuid::now_v7(), Uuid::now_v7());
    store.reserve(broken, lines(&[(good, 1)]), NOW, HOLD).await.unwrap();
    store.reserve(held, lines(&[(good, 2)]), NOW, HOLD).await.unwrap();
    let change = doc! { "$set": { "lines": "none" } };
    store.collections.reservations.update_one(doc! { "_id": bson_id(broken) }, change).await.unwrap();
    store.tamper(bad, doc! { "$set": { "priceMinor": "free", "news": bson_time(NOW) } }).await;

    let later = NOW + HOLD;
    assert_eq!(store.expire_due(later, 10).await.unwrap(), 1);
    assert_eq!(store.available(good).await, 9, "the readable hold is released");
    let quarantined = store.quarantined(10).await.unwrap();
    assert_eq!(quarantined.iter().map(|entry| (entry.reservation_id, entry.since)).collect::<Vec<_>>(), [(broken, later)]);
    assert_eq!(store.expire_due(later, 10).await.unwrap(), 0, "it is left alone");
    assert_eq!(store.stats(later, NOW).await.unwrap().quarantined, 1);

    let page = store.list(Query::new(Filter::default(), Sort::Newest, 20, None).unwrap()).await.unwrap();
    assert_eq!(page.items.iter().map(|product| product.id).collect::<Vec<_>>(), [good]);
    assert!(store.unpublished_changes(10).await.unwrap().iter().any(|change| change.product_id == good));
    assert!(store.audit(NOW).await.unwrap().unreadable > 0, "not audited is not in order");
    assert!(store.end_quarantine(broken).await.unwrap());
    assert!(store.quarantined(10).await.unwrap().is_empty());
}

#[tokio::test]
async fn any_number_of_unreadable_reservations_hides_no_other() {
    const UNREADABLE: usize = 1_100;
    let store = new_store().await;
    let good = store.add(10).await;
    let reservations = store.collections.reservations.clone_with_type::<Document>();
    let broken = |_| doc! { "_id": bson_id(Uuid::now_v7()), "state": "HELD", "expiresAt": bson_time(NOW), "lines": "none" };
    reservations.insert_many((0..UNREADABLE).map(broken)).await.unwrap();
    let later = NOW + HOLD;
    assert_eq!(store.expire_due(later, u32::try_from(UNREADABLE).unwrap()).await.unwrap(), 0);
    store.reserve(Uuid::now_v7(), lines(&[(good, 2)]), NOW, HOLD).await.unwrap();
    assert_eq!(store.expire_due(later, 1).await.unwrap(), 1);
    assert_eq!(store.available(good).await, 10);
}

#[tokio::test]
async fn unreadable_reservation_does_not_end_an_audit() {
    let store = new_store().await;
    let (good, bad) = (store.add(10).await, store.add(10).await);
    let broken = Uuid::now_v7();
    store.reserve(broken, lines(&[(bad, 1)]), NOW, HOLD).await.unwrap();
    // Seems unbalanced, so its reservations are read.
    store.collections.reservations.update_one(doc! { "_id": bson_id(broken) }, doc! { "$set": { "expiresAt": "soon" } }).await.unwrap();
    store.tamper(bad, doc! { "$set": { "quantity": 5 } }).await;
    store.tamper(good, doc! { "$set": { "quantity": 5 } }).await;
    let audit = store.audit(NOW).await.unwrap();
    assert_eq!(audit.violations.iter().map(|of| of.product_id).collect::<Vec<_>>(), [good], "the others are judged");
    assert_eq!(audit.unreadable, 1);
}

#[tokio::test]
async fn stale_removal_markers_do_not_hide_later_removals() {
    let store = new_store().await;
    let (existing, removed) = (store.add(1).await, store.add(1).await);
    // Markers of removals that did not happen, more than one page, all older than the removal.
    for n in 0..300 {
        let id = if n == 0 { existing } else { store.add(0).await };
        outbox::record_removal(&store.collections, id, NOW).await.unwrap();
    }
    let later = NOW + HOLD;
    assert_eq!(
        store.remove(removed, palisade_middleware::preconditions::VersionPreconditions::default(), later).await.unwrap(),
        RemoveOutcome::Removed
    );
    let is_removal = |change: &&PendingChange| change.version == PendingChange::REMOVED;
    let mut found = Vec::new();
    // One call or two: the scan starts over at the end.
    for _ in 0..2 {
        found.extend(store.unpublished_changes(1).await.unwrap().iter().filter(is_removal).copied());
    }
    assert_eq!(found.first().map(|change| (change.product_id, change.since)), Some((removed, later)));
    store.mark_published(found, Destination::InProcess).await.unwrap();
    let again = store.unpublished_changes(1).await.unwrap();
    assert_eq!(again.iter().filter(is_removal).count(), 0);
}

/// Figures of `docs/scaling.md`.
#[tokio::test]
async fn settled_reservations_take_bounded_space_and_none_when_deleted() {
    const RESERVATIONS: usize = 20;
    let store = new_store().await;
    let product = store.add(1_000).await;
    let bytes_each = async || {
        let all = store.collections.reservations.clone_with_type::<RawDocumentBuf>().find(doc! {}).await.unwrap();
        let all: Vec<RawDocumentBuf> = all.try_collect().await.unwrap();
        assert!(all.is_empty() || all.len() == RESERVATIONS);
        all.iter().map(|document| document.as_bytes().len()).sum::<usize>() / RESERVATIONS
    };
    for (quantity, fulfil, limit) in [(1_001, false, 300), (1, true, 320)] {
        for _ in 0..RESERVATIONS {
            let id = Uuid::now_v7();
            store.reserve_and_confirm(id, lines(&[(product, quantity)]), NOW, HOLD).await.unwrap();
            if fulfil {
                store.fulfil(id, NOW).await.unwrap();
            }
        }
        let bytes = bytes_each().await;
        eprintln!("{bytes} bytes of BSON per reservation of {quantity} units");
        assert!((100..=limit).contains(&bytes), "{bytes}");
        assert_eq!(store.delete_settled(NOW + HOLD, 100).await.unwrap(), RESERVATIONS as u64);
        assert_eq!(bytes_each().await, 0);
    }
}
