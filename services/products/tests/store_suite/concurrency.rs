//! Concurrent and cancelled calls.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use palisade_middleware::preconditions::VersionPreconditions;
use palisade_middleware::task;
use palisade_products::{
    reservation::{Refusal, ReserveOutcome},
    stock_ledger::Adjustment,
    store::{Error, IdempotencyKey, InstrumentedStore, Store},
};
use palisade_tests::random::Random;
use tokio::time::timeout;
use uuid::Uuid;

use crate::fixtures::{HOLD, LATER, START, TestStore, draft, lines, test_database};

async fn all(tasks: impl IntoIterator<Item = impl Future<Output = ()> + Send + 'static>) {
    for done in join_all(tasks.into_iter().map(task::spawn)).await {
        done.unwrap();
    }
}

async fn products(fixture: &TestStore, count: u32, quantity: i64) -> Vec<Uuid> {
    let mut ids = Vec::new();
    for n in 0..count {
        ids.push(fixture.add_some(&format!("Lamp {n}"), quantity).await);
    }
    ids
}

pub(crate) async fn concurrent_reserves_never_oversell(fixture: TestStore) {
    let ids = products(&fixture, 3, 37).await;
    let held = Arc::new(AtomicUsize::new(0));
    all((0..32).map(|worker| {
        let (store, ids, held) = (Arc::clone(&fixture.store), ids.clone(), Arc::clone(&held));
        async move {
            for n in 0..8 {
                let first = (worker + n) % 3;
                let requested = [(ids[first], 1), (ids[(first + 1) % 3], 1)];
                match store.reserve(Uuid::now_v7(), lines(&requested), START, HOLD).await.unwrap() {
                    ReserveOutcome::Held(_) => drop(held.fetch_add(1, Ordering::Relaxed)),
                    ReserveOutcome::Refused { reason: Refusal::InsufficientStock, .. } => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }))
    .await;
    let audit = fixture.store.audit(START).await.unwrap();
    assert_eq!((audit.violations, audit.held_units + audit.available_units), (vec![], 111));
    let open = fixture.store.list_reservations(None, 1_000).await.unwrap();
    assert!(open.iter().all(|reservation| reservation.lines.len() == 2));
    assert_eq!(open.len(), held.load(Ordering::Relaxed));
    assert_eq!(i64::try_from(open.len()).unwrap() * 2, audit.held_units);
    for reservation in open {
        fixture.store.release(reservation.id, START).await.unwrap();
    }
    for id in ids {
        assert_eq!(fixture.available(id).await, 37);
    }
}

pub(crate) async fn concurrent_calls_of_one_reservation_take_once(fixture: TestStore) {
    let ids = products(&fixture, 2, 10).await;
    for _ in 0..10 {
        let id = Uuid::now_v7();
        let calls = (0..8).map(|_| {
            let (store, requested) = (Arc::clone(&fixture.store), lines(&[(ids[0], 1), (ids[1], 1)]));
            task::spawn(async move { store.reserve(id, requested, START, HOLD).await.unwrap() })
        });
        for reserved in join_all(calls).await {
            assert!(matches!(reserved.unwrap(), ReserveOutcome::Held(_)));
        }
    }
    assert_eq!((fixture.available(ids[0]).await, fixture.available(ids[1]).await), (0, 0));
    fixture.assert_balanced().await;
}

fn random_ids(random: &mut Random, count: usize) -> Vec<Uuid> {
    let mut bits = || random.choose_index(0..u64::MAX);
    (0..count).map(|_| Uuid::from_u64_pair(bits(), bits())).collect()
}

/// Runs one random call. Few reservation ids, so that calls collide.
async fn random_call(store: &dyn Store, random: &mut Random, products: &[Uuid], reservations: &[Uuid]) -> Result<(), Error> {
    let id = *random.choose(reservations);
    // The lines are a function of the id.
    let first = usize::from(id.as_bytes()[15]) % products.len();
    let requested = lines(&[(products[first], 2), (products[(first + 1) % products.len()], 1)]);
    match random.choose_index(0..10) {
        0..=4 => drop(store.reserve(id, requested, START, HOLD).await?),
        5 => drop(store.confirm(id, START).await?),
        6 => drop(store.confirm(id, START + HOLD).await?),
        7 => drop(store.release(id, START).await?),
        8 if random.choose_index(0..2) == 0 => {
            let key = IdempotencyKey { subject: "alice".into(), key: id.to_string(), fingerprint: [1; 32] };
            let adjustment = Adjustment::new(products[first], if first == 0 { -3 } else { 2 }, "counted").unwrap();
            drop(store.adjust(adjustment, Some(key), "alice".into(), START).await?);
        }
        8 => drop(store.expire_due(if random.choose_index(0..4) == 0 { LATER } else { START }, 3).await?),
        _ => {
            let quantity = i64::try_from(random.choose_index(0..30)).unwrap_or_default();
            drop(
                store
                    .update(*random.choose(products), draft("Lamp", quantity), VersionPreconditions::default(), "alice".into(), START)
                    .await?,
            );
        }
    }
    Ok(())
}

pub(crate) async fn random_interleavings_balance(fixture: TestStore) {
    let mut random = Random::from_environment();
    for _ in 0..6 {
        let ids = products(&fixture, 3, 20).await;
        let reservations = random_ids(&mut random, 20);
        all((0..12).map(|_| {
            let (store, ids, reservations) = (Arc::clone(&fixture.store), ids.clone(), reservations.clone());
            let mut random = random.fork();
            async move {
                for _ in 0..15 {
                    random_call(&*store, &mut random, &ids, &reservations).await.unwrap();
                }
            }
        }))
        .await;
        fixture.assert_balanced().await;
        release_all(&fixture).await;
    }
}

/// Releases everything: afterwards no reservation is held or unfinished.
async fn release_all(fixture: &TestStore) {
    let release = async {
        loop {
            // Reservations updated at LATER count as abandoned by then.
            while fixture.store.expire_due(LATER + HOLD, 100).await.unwrap() > 0 {}
            for reservation in fixture.store.list_reservations(None, 1_000).await.unwrap() {
                fixture.store.release(reservation.id, LATER).await.unwrap();
            }
            let audit = fixture.store.audit(LATER).await.unwrap();
            assert_eq!(audit.violations, vec![]);
            // A call whose caller has left may still reserve.
            if (audit.held_units, audit.confirmed_units) == (0, 0) {
                return;
            }
        }
    };
    timeout(Duration::from_mins(1), release).await.expect("nothing stays reserved");
}

/// Runs concurrent calls and cancels each after a random time, some immediately.
async fn cancelled_calls(store: Arc<dyn Store>, ids: &[Uuid], max_micros: u64) {
    let mut random = Random::from_environment();
    let reservations = random_ids(&mut random, 40);
    all((0..16).map(|_| {
        let (store, ids, reservations) = (Arc::clone(&store), ids.to_vec(), reservations.clone());
        let mut random = random.fork();
        async move {
            for _ in 0..20 {
                let timeout_after = Duration::from_micros(random.choose_index(0..max_micros));
                if let Ok(result) = timeout(timeout_after, random_call(&*store, &mut random, &ids, &reservations)).await {
                    result.unwrap();
                }
            }
        }
    }))
    .await;
}

pub(crate) async fn cancelled_callers_do_not_interrupt_writes(fixture: TestStore) {
    let ids = products(&fixture, 3, 20).await;
    let instrumented = InstrumentedStore::new(Arc::clone(&fixture.store), test_database(), Duration::from_secs(20));
    cancelled_calls(Arc::new(instrumented), &ids, 20_000).await;
    // Started calls continue in the background; the audit stays clean meanwhile.
    fixture.assert_balanced().await;
    release_all(&fixture).await;
}

pub(crate) async fn interrupted_calls_are_finished_or_undone(fixture: TestStore) {
    let ids = products(&fixture, 3, 20).await;
    cancelled_calls(Arc::clone(&fixture.store), &ids, 40_000).await;
    fixture.assert_balanced().await;
    release_all(&fixture).await;
}

pub(crate) async fn audit_has_no_false_violations(fixture: TestStore) {
    let ids = products(&fixture, 3, 50).await;
    let mut random = Random::from_environment();
    let reservations = random_ids(&mut random, 60);
    let traffic = all((0..6).map(|_| {
        let (store, ids, reservations) = (Arc::clone(&fixture.store), ids.clone(), reservations.clone());
        let mut random = random.fork();
        async move {
            for _ in 0..40 {
                random_call(&*store, &mut random, &ids, &reservations).await.unwrap();
            }
        }
    }));
    let mut traffic = std::pin::pin!(traffic);
    let mut audits = 0;
    while futures_util::poll!(&mut traffic).is_pending() {
        fixture.assert_balanced().await;
        audits += 1;
    }
    assert!(audits > 3, "the traffic ended after only {audits} audits");
    fixture.assert_balanced().await;
}
