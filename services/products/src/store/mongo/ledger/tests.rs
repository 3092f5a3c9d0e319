use palisade_middleware::preconditions::{Condition, VersionPreconditions};

use super::*;
use crate::{
    product::{Patch, ValidatedPatch},
    stock_ledger::Entry,
    store::{
        Maintenance, ProductStore, UpdateOutcome,
        mongo::{
            documents::{Stock, domain_id},
            ledger_documents::AdjustmentKeyDocument,
            test_store::{NOW, new_store},
        },
    },
};

fn adjustment(product: Uuid, delta: i64) -> Adjustment {
    Adjustment::new(product, delta, "counted").unwrap()
}

fn key() -> IdempotencyKey {
    IdempotencyKey { subject: "alice".into(), key: "key".into(), fingerprint: [7; 32] }
}

async fn entries(store: &MongoStore, product: Uuid) -> Vec<Entry> {
    store.ledger(LedgerQuery::new(product, 100, None).unwrap()).await.unwrap().unwrap().items
}

async fn stock(store: &MongoStore, product: Uuid) -> Stock {
    stock_marks::find(&store.collections, bson_id(product)).await.unwrap().unwrap()
}

/// Changes the stock without moving the entry to the ledger, like a process that dies.
async fn adjust_and_crash(store: &MongoStore, product: Uuid, delta: i64) -> NewEntry {
    let new = adjustment(product, delta).entry("bob".into(), NOW);
    let mut change = doc! { "quantity": { "$add": ["$quantity", delta] }, "supply": { "$add": ["$supply", delta] } };
    change.extend(record(&new, None, &delta.into(), &doc! { "$add": ["$quantity", delta] }.into()));
    let matched = store.collections.stock.update_one(doc! { "_id": bson_id(product) }, vec![doc! { "$set": change }]).await.unwrap();
    assert_eq!(matched.matched_count, 1);
    new
}

async fn assert_settled(store: &MongoStore, product: Uuid, expected: &[i64]) {
    let deltas: Vec<i64> = entries(store, product).await.iter().map(|entry| entry.delta).collect();
    assert_eq!(deltas, expected);
    let stock = stock(store, product).await;
    assert_eq!((stock.pending_ledger, stock.booked), (vec![], expected.iter().sum()));
    assert_eq!(store.audit(NOW).await.unwrap().violations, []);
}

#[tokio::test]
async fn entry_left_by_a_crash_is_moved_by_any_step() {
    let store = new_store().await;
    for step in ["change", "reader", "job", "repeat of the insert", "removal"] {
        let product = store.add(10).await;
        adjust_and_crash(&store, product, -3).await;
        let pending = stock(&store, product).await.pending_ledger;
        assert_eq!((pending.len(), store.audit(NOW).await.unwrap().violations), (1, vec![]), "it counts before it is moved");
        match step {
            "change" => drop(store.adjust(adjustment(product, 1), None, "bob".into(), NOW).await.unwrap()),
            "reader" => {}
            "job" => assert!(store.reconcile_ledger(None, 100).await.unwrap().is_some()),
            "repeat of the insert" => {
                // The process died after the insert.
                store.collections.ledger.insert_one(&pending[0]).await.unwrap();
                assert_eq!(store.audit(NOW).await.unwrap().violations, [], "it is not counted twice");
            }
            _ => {
                store.remove(product, VersionPreconditions::default(), NOW).await.unwrap();
                assert_eq!(store.collections.ledger.count_documents(doc! { "productId": bson_id(product) }).await.unwrap(), 0);
                continue;
            }
        }
        assert_settled(&store, product, if step == "change" { &[1, -3, 10] } else { &[-3, 10] }).await;
    }
}

#[tokio::test]
async fn repeated_call_finds_out_what_a_dead_one_decided() {
    for (delta, crash) in [(-4, "before"), (-4, "after"), (-40, "before"), (-40, "after")] {
        let store = new_store().await;
        let product = store.add(10).await;
        let db = &store.collections;
        let first = store.adjust(adjustment(product, delta), Some(key()), "alice".into(), NOW).await.unwrap();
        // As if the process had died before the key got its answer, or before the decision.
        let stored: AdjustmentKeyDocument = db.adjustment_keys.find_one(doc! {}).await.unwrap().unwrap();
        db.adjustment_keys.update_one(doc! {}, doc! { "$unset": { "answer": "" } }).await.unwrap();
        let entry = stored.answer.unwrap().entry;
        if crash == "before" {
            let undo = entry.map_or(0, |entry| entry.delta);
            let change = doc! { "$inc": { "quantity": -undo, "supply": -undo, "booked": -undo } };
            store.tamper(product, change).await;
            db.ledger.delete_many(doc! { "_id": stored.entry_id }).await.unwrap();
        } else {
            let sequence = stock(&store, product).await.ledger_sequence.unwrap();
            let new = NewEntry { id: domain_id(stored.entry_id), ..adjustment(product, delta).entry("alice".into(), NOW) };
            let pending = EntryDocument { key: Some(stored.id), refused: delta == -40, ..EntryDocument::new(&new, sequence, delta, 6) };
            let pending = bson::serialize_to_document(&pending).unwrap();
            db.ledger.delete_many(doc! { "_id": stored.entry_id }).await.unwrap();
            store.tamper(product, doc! { "$push": { "pendingLedger": pending } }).await;
        }
        // Now the refused one would be possible.
        store.adjust(adjustment(product, 100), None, "bob".into(), NOW).await.unwrap();
        let again = store.adjust(adjustment(product, delta), Some(key()), "alice".into(), NOW).await.unwrap();
        match (first, again) {
            (AdjustOutcome::Adjusted { entry: first, .. }, AdjustOutcome::Adjusted { entry, replayed: true }) => {
                assert_eq!(first.id, entry.id);
            }
            (AdjustOutcome::InsufficientStock { .. }, AdjustOutcome::InsufficientStock { replayed: true }) => assert_eq!(crash, "after"),
            (AdjustOutcome::InsufficientStock { .. }, AdjustOutcome::Adjusted { replayed: true, .. }) => assert_eq!(crash, "before"),
            other => panic!("{delta} {crash}: {other:?}"),
        }
        let mut deltas: Vec<i64> = entries(&store, product).await.iter().map(|entry| entry.delta).collect();
        deltas.sort_unstable();
        let expected = if (delta, crash) == (-40, "after") { vec![10, 100] } else { vec![delta, 10, 100] };
        assert_eq!((deltas, store.audit(NOW).await.unwrap().violations), (expected, vec![]), "{delta} {crash}");
    }
}

/// An executor that was suspended between its check and its update, while another one decided.
#[tokio::test]
async fn late_decision_is_stopped() {
    let store = new_store().await;
    let product = store.add(10).await;
    let before = stock(&store, product).await;
    store.adjust(adjustment(product, -4), Some(key()), "alice".into(), NOW).await.unwrap();
    let late = doc! { "_id": bson_id(product), "ledgerSequence": before.ledger_sequence };
    assert_eq!(store.collections.stock.count_documents(late).await.unwrap(), 0);
}

#[tokio::test]
async fn products_without_a_ledger_get_one() {
    let store = new_store().await;
    let (product, sold) = (store.add(10).await, store.add(5).await);
    // As the previous release stores them.
    for product in [product, sold] {
        let unset = doc! { "booked": "", "ledgerSequence": "", "pendingLedger": "", "search.detailsVersion": "" };
        store.tamper(product, doc! { "$unset": unset }).await;
    }
    store.collections.ledger.delete_many(doc! {}).await.unwrap();
    assert_eq!(store.audit(NOW).await.unwrap().violations, [], "the previous release runs beside this one");
    // A change that arrives before the migration.
    store.adjust(adjustment(sold, -2), None, "bob".into(), NOW).await.unwrap();
    let (one, other) = tokio::join!(store.migrate(), store.migrate());
    assert!(one.is_ok() && other.is_ok());
    assert_settled(&store, product, &[10]).await;
    store.reconcile_ledger(None, 100).await.unwrap();
    assert_settled(&store, sold, &[5, -2]).await;
    assert_eq!(entries(&store, product).await[0].kind, Kind::Opening);
}

#[tokio::test]
async fn change_of_the_previous_release_is_reconciled() {
    let store = new_store().await;
    let product = store.add(10).await;
    store.tamper(product, doc! { "$inc": { "quantity": 5_i64, "supply": 5_i64, "version": 1_i64 } }).await;
    assert_eq!(store.audit(NOW).await.unwrap().violations, []);
    for _ in 0..3 {
        let (one, other) = tokio::join!(store.reconcile_ledger(None, 100), store.reconcile_ledger(None, 100));
        assert!(one.is_ok() && other.is_ok());
    }
    assert_settled(&store, product, &[5, 10]).await;
    assert_eq!(entries(&store, product).await[0].kind, Kind::Reconciled);

    // An error that is no such change is found.
    store.collections.ledger.update_many(doc! { "kind": "reconciled" }, doc! { "$inc": { "delta": 1_i64 } }).await.unwrap();
    let violations = store.audit(NOW).await.unwrap().violations;
    assert_eq!(violations.iter().map(|violation| (violation.supply, violation.ledger)).collect::<Vec<_>>(), [(15, 16)]);
}

#[tokio::test]
async fn interrupted_fold_keeps_the_sum() {
    let store = new_store().await;
    let product = store.add(10).await;
    for _ in 0..3 {
        store.adjust(adjustment(product, -1), None, "bob".into(), NOW).await.unwrap();
    }
    // The process died before it deleted the folded entries.
    let third = doc! { "productId": bson_id(product), "sequence": 3_i64 };
    store.collections.ledger.update_one(third, doc! { "$set": { "kind": "opening", "delta": 8_i64 } }).await.unwrap();
    assert_settled(&store, product, &[-1, 8]).await;
    let later = NOW + std::time::Duration::from_secs(1);
    while store.fold_ledger(later, 10).await.unwrap() > 0 {}
    assert_settled(&store, product, &[7]).await;
    assert_eq!(store.collections.ledger.count_documents(doc! {}).await.unwrap(), 1);
    assert!(entries(&store, product).await[0].created_at <= NOW);
}

/// A replica of the previous release replaces the texts and their search data.
#[tokio::test]
async fn edit_by_the_previous_release_fails_older_conditions() {
    let store = new_store().await;
    let product = store.add(10).await;
    let patch = |name: &str| ValidatedPatch::new(Patch { name: Some(name.into()), ..Patch::default() }, &[]).unwrap();
    let if_match = |version: i64| VersionPreconditions { if_match: Some(Condition::Listed(vec![version])), if_none_match: None };
    store.adjust(adjustment(product, -1), None, "bob".into(), NOW).await.unwrap();
    let edit = async |name: &str, version| store.patch(product, patch(name), if_match(version), "bob".into(), NOW).await.unwrap();
    assert!(matches!(edit("Lantern", 1).await, UpdateOutcome::Updated(_)));
    let search = doc! { "text": "candle\n", "grams": ["c"] };
    store.tamper(product, doc! { "$set": { "name": "Candle", "search": search }, "$inc": { "version": 1_i64 } }).await;
    assert_eq!(edit("Lamp", 3).await, UpdateOutcome::VersionMismatch);
    store.reconcile_ledger(None, 100).await.unwrap();
    assert_eq!(edit("Lamp", 3).await, UpdateOutcome::VersionMismatch);
    store.adjust(adjustment(product, -1), None, "bob".into(), NOW).await.unwrap();
    assert!(matches!(edit("Lamp", 4).await, UpdateOutcome::Updated(_)), "known again since the reconciliation");
}
