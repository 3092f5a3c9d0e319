//! Stock ledger: one entry per change of the supply, whose sum is the supply.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::future::join_all;
use palisade_middleware::{preconditions::VersionPreconditions, task};
use palisade_products::{
    product::{MAX_QUANTITY, ValidatedProduct},
    reservation::FulfilOutcome,
    stock_ledger::{AdjustOutcome, Adjustment, Entry, Kind, LedgerQuery},
    store::{IdempotencyKey, KEY_TTL, RemoveOutcome},
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::fixtures::{LATER, START, TestStore, draft, input};

fn adjustment(product: Uuid, delta: i64) -> Adjustment {
    Adjustment::new(product, delta, "counted $again").unwrap()
}

fn key(fingerprint: u8) -> IdempotencyKey {
    IdempotencyKey { subject: "alice".into(), key: "key".into(), fingerprint: [fingerprint; 32] }
}

impl TestStore {
    async fn adjust(&self, product: Uuid, delta: i64) -> AdjustOutcome {
        self.store.adjust(adjustment(product, delta), None, "bob".into(), LATER).await.unwrap()
    }

    async fn adjust_once(&self, product: Uuid, delta: i64, fingerprint: u8, at: OffsetDateTime) -> AdjustOutcome {
        self.store.adjust(adjustment(product, delta), Some(key(fingerprint)), "alice".into(), at).await.unwrap()
    }

    /// Returns the whole ledger, newest entry first, in pages of `limit`.
    async fn ledger(&self, product: Uuid, limit: u32) -> Vec<Entry> {
        let (mut entries, mut before) = (Vec::new(), None);
        loop {
            let page = self.store.ledger(LedgerQuery::new(product, limit, before).unwrap()).await.unwrap().expect("the product exists");
            entries.extend(page.items);
            before = page.next;
            if before.is_none() {
                return entries;
            }
        }
    }

    /// Asserts the kinds and deltas of the ledger, newest first, and that their sum is `supply`.
    async fn assert_ledger(&self, product: Uuid, expected: &[(Kind, i64)], supply: i64) {
        let ledger = self.ledger(product, 2).await;
        assert_eq!(ledger.iter().map(|entry| (entry.kind, entry.delta)).collect::<Vec<_>>(), expected);
        assert_eq!(ledger.iter().map(|entry| entry.delta).sum::<i64>(), supply);
        assert!(ledger.is_sorted_by(|newer, older| newer.sequence > older.sequence && newer.created_at >= older.created_at));
        self.assert_balanced().await;
    }
}

fn adjusted(outcome: AdjustOutcome) -> Entry {
    match outcome {
        AdjustOutcome::Adjusted { entry, replayed: false } => entry,
        other => panic!("not adjusted: {other:?}"),
    }
}

pub(crate) async fn every_change_of_the_supply_is_recorded(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 10).await;
    fixture.store.update(product, draft("Lamp", 12), VersionPreconditions::default(), "carol".into(), LATER).await.unwrap();
    // The quantity is unchanged.
    fixture.store.update(product, draft("Lantern", 12), VersionPreconditions::default(), "carol".into(), LATER).await.unwrap();
    let before = fixture.get(product).await;
    let entry = adjusted(fixture.adjust(product, -5).await);
    assert_eq!((entry.product_id, entry.kind, entry.delta, entry.quantity_after), (product, Kind::Adjustment, -5, 7));
    assert_eq!((entry.reason.as_str(), entry.actor.clone(), entry.order_id), ("counted $again", Some("bob".into()), None));
    assert_eq!((entry.created_at, entry.id.get_version_num()), (LATER, 7));
    let after = fixture.get(product).await;
    assert_eq!((after.quantity, after.version, after.updated_at), (7, before.version + 1, LATER));

    // Holds and releases move units, and change no supply.
    let order = fixture.hold(&[(product, 3)]).await;
    fixture.store.release(fixture.hold(&[(product, 1)]).await, LATER).await.unwrap();
    fixture.store.confirm(order, START).await.unwrap();
    assert!(matches!(fixture.store.fulfil(order, LATER).await.unwrap(), FulfilOutcome::Fulfilled(_)));
    fixture.store.fulfil(order, LATER).await.unwrap();
    let expected = [(Kind::Fulfilment, -3), (Kind::Adjustment, -5), (Kind::Set, 2), (Kind::Opening, 10)];
    fixture.assert_ledger(product, &expected, 4).await;
    let ledger = fixture.ledger(product, 100).await;
    assert_eq!(ledger[1], entry);
    let [fulfilment, _, set, opening] = ledger.as_slice() else { panic!("{ledger:?}") };
    assert_eq!((fulfilment.order_id, &fulfilment.actor, fulfilment.quantity_after), (Some(order), &None, 4));
    assert_eq!((&set.actor, set.quantity_after, set.reason.as_str()), (&Some("carol".into()), 12, ""));
    assert_eq!((&opening.actor, opening.quantity_after, opening.created_at), (&Some("alice".into()), 10, START));

    let empty = fixture.add_some("Nothing", 0).await;
    fixture.assert_ledger(empty, &[(Kind::Opening, 0)], 0).await;
}

pub(crate) async fn impossible_adjustment_changes_nothing(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 10).await;
    fixture.hold(&[(product, 4)]).await;
    let before = fixture.get(product).await;
    assert_eq!(fixture.adjust(product, -7).await, AdjustOutcome::InsufficientStock { replayed: false }, "held units are not available");
    assert_eq!(fixture.adjust(product, MAX_QUANTITY).await, AdjustOutcome::AboveMaximum);
    assert_eq!(fixture.adjust_once(product, MAX_QUANTITY, 1, LATER).await, AdjustOutcome::AboveMaximum);
    assert_eq!(fixture.adjust(Uuid::now_v7(), 1).await, AdjustOutcome::NotFound);
    assert_eq!(fixture.adjust_once(Uuid::now_v7(), 1, 2, LATER).await, AdjustOutcome::NotFound);
    assert_eq!(fixture.get(product).await, before);
    fixture.assert_ledger(product, &[(Kind::Opening, 10)], 10).await;
    // Neither has used the key.
    adjusted(fixture.adjust_once(product, -6, 3, LATER).await);
    adjusted(fixture.adjust(product, MAX_QUANTITY).await);
    assert_eq!(fixture.available(product).await, MAX_QUANTITY);
    fixture.assert_balanced().await;
}

pub(crate) async fn repeated_adjustment_replays_the_first_answer(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 10).await;
    let entry = adjusted(fixture.adjust_once(product, -4, 1, LATER).await);
    assert_eq!(fixture.adjust_once(product, -4, 1, LATER).await, AdjustOutcome::Adjusted { entry: entry.clone(), replayed: true });
    assert_eq!(fixture.adjust_once(product, -3, 2, LATER).await, AdjustOutcome::KeyReused);
    assert_eq!(fixture.available(product).await, 6);
    fixture.assert_ledger(product, &[(Kind::Adjustment, -4), (Kind::Opening, 10)], 6).await;

    let expired = LATER + KEY_TTL;
    assert_eq!(fixture.store.stats(expired, START).await.unwrap().overdue_keys, 1);
    assert_eq!(fixture.adjust_once(product, -7, 3, expired).await, AdjustOutcome::InsufficientStock { replayed: false });
    // What was decided stays, also once it would be possible.
    adjusted(fixture.store.adjust(adjustment(product, 5), None, "bob".into(), expired).await.unwrap());
    assert_eq!(fixture.adjust_once(product, -7, 3, expired).await, AdjustOutcome::InsufficientStock { replayed: true });
    fixture.assert_ledger(product, &[(Kind::Adjustment, 5), (Kind::Adjustment, -4), (Kind::Opening, 10)], 11).await;

    // The answer outlives the product.
    let last = adjusted(fixture.adjust_once(product, -1, 4, expired + KEY_TTL).await);
    let none = VersionPreconditions::default();
    assert_eq!(fixture.store.remove(product, none, LATER).await.unwrap(), RemoveOutcome::Removed);
    assert_eq!(fixture.adjust_once(product, -1, 4, expired + KEY_TTL).await, AdjustOutcome::Adjusted { entry: last, replayed: true });
    assert_eq!(fixture.store.delete_expired_keys(expired + 2 * KEY_TTL, 10).await.unwrap(), 1);
    assert_eq!(fixture.store.delete_expired_keys(expired + 2 * KEY_TTL, 10).await.unwrap(), 0);
}

pub(crate) async fn concurrent_repeats_adjust_once(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 100).await;
    let same = (0..20).map(|_| fixture.adjust_once(product, -1, 1, LATER));
    // Others change the stock of the product meanwhile.
    let others = (0..10).map(|_| fixture.adjust(product, -2));
    let (same, others) = tokio::join!(join_all(same), join_all(others));
    let mut ids = HashSet::new();
    let mut first = 0;
    for outcome in same {
        let AdjustOutcome::Adjusted { entry, replayed } = outcome else { panic!("{outcome:?}") };
        ids.insert(entry.id);
        first += u32::from(!replayed);
    }
    assert_eq!((ids.len(), first), (1, 1));
    assert!(others.into_iter().all(|outcome| matches!(outcome, AdjustOutcome::Adjusted { .. })));
    assert_eq!((fixture.available(product).await, fixture.ledger(product, 100).await.len()), (79, 12));
    fixture.assert_balanced().await;

    // A refusal is decided once, too: with few units, some win and all repeats agree.
    let scarce = fixture.add_some("Scarce", 3).await;
    let calls = (0..8_u8).flat_map(|n| [n; 3]).map(|n| {
        let key = IdempotencyKey { subject: "alice".into(), key: format!("scarce-{n}"), fingerprint: [n; 32] };
        let (store, adjustment) = (Arc::clone(&fixture.store), adjustment(scarce, -1));
        task::spawn(async move { (n, store.adjust(adjustment, Some(key), "alice".into(), LATER).await.unwrap()) })
    });
    let mut adjusted = HashSet::new();
    let mut refused = HashSet::new();
    for call in join_all(calls.collect::<Vec<_>>()).await {
        match call.unwrap() {
            (n, AdjustOutcome::Adjusted { .. }) => drop(adjusted.insert(n)),
            (n, AdjustOutcome::InsufficientStock { .. }) => drop(refused.insert(n)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((adjusted.len(), refused.len(), adjusted.intersection(&refused).count()), (3, 5, 0));
    assert_eq!((fixture.available(scarce).await, fixture.ledger(scarce, 100).await.len()), (0, 4));
    fixture.assert_balanced().await;
}

pub(crate) async fn adjustments_never_oversell(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 40).await;
    let store = &fixture.store;
    let adjust = (0..30).map(|n| {
        let (store, adjustment) = (Arc::clone(store), adjustment(product, if n % 3 == 0 { 1 } else { -2 }));
        task::spawn(async move { drop(store.adjust(adjustment, None, "bob".into(), LATER).await.unwrap()) })
    });
    let sell = (0..30).map(|n| {
        let (store, requested) = (Arc::clone(store), crate::fixtures::lines(&[(product, 2)]));
        task::spawn(async move {
            let id = Uuid::now_v7();
            store.reserve_and_confirm(id, requested, START, crate::fixtures::HOLD).await.unwrap();
            if n % 2 == 0 {
                store.fulfil(id, LATER).await.unwrap();
            }
        })
    });
    for done in join_all(adjust.chain(sell).collect::<Vec<_>>()).await {
        done.unwrap();
    }
    let audit = fixture.store.audit(START).await.unwrap();
    assert_eq!(audit.violations, []);
    let supply: i64 = fixture.ledger(product, 100).await.iter().map(|entry| entry.delta).sum();
    assert_eq!(supply, audit.available_units + audit.held_units + audit.confirmed_units);
}

pub(crate) async fn ledger_ends_with_its_product(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 3).await;
    fixture.adjust(product, -1).await;
    let query = LedgerQuery::new(product, 0, None).unwrap();
    assert_eq!(fixture.store.ledger(query).await.unwrap().unwrap().items.len(), 2);
    fixture.store.remove(product, VersionPreconditions::default(), LATER).await.unwrap();
    assert_eq!(fixture.store.ledger(query).await.unwrap(), None);
    assert_eq!(fixture.store.ledger(LedgerQuery::new(Uuid::now_v7(), 0, None).unwrap()).await.unwrap(), None);
    assert_eq!(fixture.store.fold_ledger(LATER + KEY_TTL, 10).await.unwrap(), 0, "no entry is left");
    fixture.assert_balanced().await;
}

pub(crate) async fn old_entries_are_folded(fixture: TestStore) {
    let (busy, quiet) = (fixture.add_some("Busy", 100).await, fixture.add_some("Quiet", 7).await);
    let at = |minute: u64| START + Duration::from_secs(60 * minute);
    for minute in 1..=6 {
        fixture.store.adjust(adjustment(busy, -1), None, "bob".into(), at(minute)).await.unwrap();
    }
    fixture.store.adjust(adjustment(quiet, 1), None, "bob".into(), at(6)).await.unwrap();
    assert_eq!(fixture.store.fold_ledger(at(1), 10).await.unwrap(), 0);
    // Bounded: three entries at once.
    while fixture.store.fold_ledger(at(5), 3).await.unwrap() > 0 {
        fixture.assert_balanced().await;
    }
    fixture.assert_ledger(busy, &[(Kind::Adjustment, -1), (Kind::Adjustment, -1), (Kind::Opening, 96)], 94).await;
    fixture.assert_ledger(quiet, &[(Kind::Adjustment, 1), (Kind::Opening, 7)], 8).await;
    let opening = fixture.ledger(busy, 100).await.pop().unwrap();
    assert_eq!((opening.created_at, opening.quantity_after, opening.actor, opening.reason.as_str()), (at(4), 96, None, ""));

    fixture.store.adjust(adjustment(busy, 10), None, "bob".into(), at(8)).await.unwrap();
    while fixture.store.fold_ledger(at(7), 100).await.unwrap() > 0 {}
    fixture.assert_ledger(busy, &[(Kind::Adjustment, 10), (Kind::Opening, 94)], 104).await;
    fixture.assert_ledger(quiet, &[(Kind::Opening, 8)], 8).await;
}

pub(crate) async fn concurrent_folds_keep_the_sum(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 1_000).await;
    for minute in 0..12 {
        let at = START + Duration::from_secs(60 * minute);
        fixture.store.adjust(adjustment(product, -1), None, "bob".into(), at).await.unwrap();
    }
    let folds = (1..=12_u64).map(|minute| {
        let store = Arc::clone(&fixture.store);
        task::spawn(async move { store.fold_ledger(START + Duration::from_secs(60 * minute), 5).await.unwrap() })
    });
    let audits = async {
        for _ in 0..5 {
            fixture.assert_balanced().await;
        }
    };
    let (folds, ()) = tokio::join!(join_all(folds.collect::<Vec<_>>()), audits);
    assert!(folds.into_iter().all(|fold| fold.is_ok()));
    while fixture.store.fold_ledger(LATER, 100).await.unwrap() > 0 {}
    fixture.assert_ledger(product, &[(Kind::Opening, 988)], 988).await;
}

pub(crate) async fn settled_ledger_needs_no_upkeep(fixture: TestStore) {
    let mut products = Vec::new();
    for n in 0..5 {
        products.push(fixture.add(ValidatedProduct::new(input("Lamp", n)).unwrap(), START).await);
    }
    let mut after = None;
    while let Some(last) = fixture.store.reconcile_ledger(after, 2).await.unwrap() {
        after = Some(last);
    }
    for product in products {
        assert_eq!(fixture.get(product.id).await, product, "no visible field changes");
        fixture.assert_ledger(product.id, &[(Kind::Opening, product.quantity)], product.quantity).await;
    }
}
