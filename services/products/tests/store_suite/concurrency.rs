//! Concurrent and cancelled calls.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use palisade_middleware::task;
use palisade_products::{
    reservation::{Refusal, ReserveOutcome},
    store::{Error, InstrumentedStore, Store},
};
use tokio::time::timeout;
use uuid::Uuid;

use crate::fixtures::{HOLD, LATER, Rng, START, TestStore, draft, lines, test_database};

async fn all(tasks: impl IntoIterator<Item = impl Future<Output = ()> + Send + 'static>) {
    for done in join_all(tasks.into_iter().map(task::spawn)).await {
        done.unwrap();
    }
}

async fn products(fresh: &TestStore, count: u32, quantity: i64) -> Vec<Uuid> {
    let mut ids = Vec::new();
    for n in 0..count {
        ids.push(fresh.add_some(&format!("Lamp {n}"), quantity).await);
    }
    ids
}

pub(crate) async fn concurrent_reserves_never_oversell(fresh: TestStore) {
    let ids = products(&fresh, 3, 37).await;
    let held = Arc::new(AtomicUsize::new(0));
    all((0..32).map(|worker| {
        let (store, ids, held) = (Arc::clone(&fresh.store), ids.clone(), Arc::clone(&held));
        async move {
            for n in 0..8 {
                let first = (worker + n) % 3;
                let wanted = [(ids[first], 1), (ids[(first + 1) % 3], 1)];
                match store.reserve(Uuid::now_v7(), lines(&wanted), START, HOLD).await.unwrap() {
                    ReserveOutcome::Held(_) => drop(held.fetch_add(1, Ordering::Relaxed)),
                    ReserveOutcome::Refused { reason: Refusal::InsufficientStock, .. } => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }))
    .await;
    let audit = fresh.store.audit(START).await.unwrap();
    assert_eq!((audit.violations, audit.held_units + audit.available_units), (vec![], 111));
    let open = fresh.store.list_reservations(None, 1_000).await.unwrap();
    assert!(open.iter().all(|reservation| reservation.lines.len() == 2));
    assert_eq!(open.len(), held.load(Ordering::Relaxed));
    assert_eq!(i64::try_from(open.len()).unwrap() * 2, audit.held_units);
    for reservation in open {
        fresh.store.release(reservation.id, START).await.unwrap();
    }
    for id in ids {
        assert_eq!(fresh.available(id).await, 37);
    }
}

pub(crate) async fn concurrent_calls_of_one_reservation_take_once(fresh: TestStore) {
    let ids = products(&fresh, 2, 10).await;
    for _ in 0..10 {
        let id = Uuid::now_v7();
        let calls = (0..8).map(|_| {
            let (store, wanted) = (Arc::clone(&fresh.store), lines(&[(ids[0], 1), (ids[1], 1)]));
            task::spawn(async move { store.reserve(id, wanted, START, HOLD).await.unwrap() })
        });
        for reserved in join_all(calls).await {
            assert!(matches!(reserved.unwrap(), ReserveOutcome::Held(_)));
        }
    }
    assert_eq!((fresh.available(ids[0]).await, fresh.available(ids[1]).await), (0, 0));
    fresh.assert_balanced().await;
}

/// Runs one random call. Few reservation ids, so that calls collide.
async fn random_call(store: &dyn Store, dice: &mut Rng, products: &[Uuid], reservations: &[Uuid]) -> Result<(), Error> {
    let id = dice.pick(reservations);
    // The lines are a function of the id.
    let first = usize::from(id.as_bytes()[15]) % products.len();
    let wanted = lines(&[(products[first], 2), (products[(first + 1) % products.len()], 1)]);
    match dice.below(10) {
        0..=4 => drop(store.reserve(id, wanted, START, HOLD).await?),
        5 => drop(store.confirm(id, START).await?),
        6 => drop(store.confirm(id, START + HOLD).await?),
        7 => drop(store.release(id, START).await?),
        8 => drop(store.expire_due(if dice.below(4) == 0 { LATER } else { START }, 3).await?),
        _ => {
            let quantity = i64::try_from(dice.below(30)).unwrap_or_default();
            drop(store.update(dice.pick(products), draft("Lamp", quantity), None, START).await?);
        }
    }
    Ok(())
}

pub(crate) async fn random_interleavings_balance(fresh: TestStore) {
    let seed = u64::from_be_bytes(Uuid::new_v4().as_bytes()[..8].try_into().unwrap());
    eprintln!("seed {seed}");
    for round in 0..6 {
        let ids = products(&fresh, 3, 20).await;
        let reservations: Vec<_> = (0..20).map(|_| Uuid::new_v4()).collect();
        all((0..12).map(|worker| {
            let (store, ids, reservations) = (Arc::clone(&fresh.store), ids.clone(), reservations.clone());
            let mut dice = Rng::new(seed ^ ((round * 100 + worker + 1) << 20));
            async move {
                for _ in 0..15 {
                    random_call(&*store, &mut dice, &ids, &reservations).await.unwrap();
                }
            }
        }))
        .await;
        fresh.assert_balanced().await;
        release_all(&fresh).await;
    }
}

/// Releases everything: afterwards no reservation is held or unsettled.
async fn release_all(fresh: &TestStore) {
    // Reservations updated at LATER count as abandoned by then.
    while fresh.store.expire_due(LATER + HOLD, 100).await.unwrap() > 0 {}
    for reservation in fresh.store.list_reservations(None, 1_000).await.unwrap() {
        fresh.store.release(reservation.id, LATER).await.unwrap();
    }
    let audit = fresh.store.audit(LATER).await.unwrap();
    assert_eq!((audit.violations, audit.held_units, audit.confirmed_units), (vec![], 0, 0));
}

/// Runs concurrent calls and cancels each after a random time, some immediately.
async fn cancelled_calls(store: Arc<dyn Store>, ids: &[Uuid], longest_micros: u64) {
    let seed = u64::from_be_bytes(Uuid::new_v4().as_bytes()[..8].try_into().unwrap());
    eprintln!("seed {seed}");
    let reservations: Vec<_> = (0..40).map(|_| Uuid::new_v4()).collect();
    all((0..16).map(|worker| {
        let (store, ids, reservations) = (Arc::clone(&store), ids.to_vec(), reservations.clone());
        let mut dice = Rng::new(seed ^ ((worker + 1) << 20));
        async move {
            for _ in 0..20 {
                let timeout_after = Duration::from_micros(dice.below(longest_micros));
                if let Ok(answer) = timeout(timeout_after, random_call(&*store, &mut dice, &ids, &reservations)).await {
                    answer.unwrap();
                }
            }
        }
    }))
    .await;
}

pub(crate) async fn cancelled_callers_do_not_interrupt_writes(fresh: TestStore) {
    let ids = products(&fresh, 3, 20).await;
    let bounded = InstrumentedStore::new(Arc::clone(&fresh.store), test_database(), Duration::from_secs(20));
    cancelled_calls(Arc::new(bounded), &ids, 20_000).await;
    // Started calls continue in the background; the audit stays clean meanwhile.
    fresh.assert_balanced().await;
    release_all(&fresh).await;
}

pub(crate) async fn interrupted_calls_are_finished_or_undone(fresh: TestStore) {
    let ids = products(&fresh, 3, 20).await;
    cancelled_calls(Arc::clone(&fresh.store), &ids, 40_000).await;
    fresh.assert_balanced().await;
    release_all(&fresh).await;
}

pub(crate) async fn audit_has_no_false_violations(fresh: TestStore) {
    let ids = products(&fresh, 3, 50).await;
    let reservations: Vec<_> = (0..60).map(|_| Uuid::new_v4()).collect();
    let traffic = all((0..6).map(|worker| {
        let (store, ids, reservations) = (Arc::clone(&fresh.store), ids.clone(), reservations.clone());
        async move {
            let mut dice = Rng::new(worker + 1);
            for _ in 0..40 {
                random_call(&*store, &mut dice, &ids, &reservations).await.unwrap();
            }
        }
    }));
    let mut traffic = std::pin::pin!(traffic);
    let mut audits = 0;
    while futures_util::poll!(&mut traffic).is_pending() {
        fresh.assert_balanced().await;
        audits += 1;
    }
    assert!(audits > 3, "the traffic ended after only {audits} audits");
    fresh.assert_balanced().await;
}
