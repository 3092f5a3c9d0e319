//! Creates repeated with one idempotency key.

use std::{collections::HashSet, time::Duration};

use futures_util::future::join_all;
use palisade_middleware::preconditions::VersionPreconditions;
use palisade_products::{
    product::{Filter, Product, Query, Sort},
    store::{CreateOutcome, IdempotencyKey, KEY_TTL, RemoveOutcome},
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::fixtures::{LATER, START, TestStore, draft};

fn key(subject: &'static str, fingerprint: u8) -> IdempotencyKey {
    IdempotencyKey { subject: subject.into(), key: "key".into(), fingerprint: [fingerprint; 32] }
}

async fn create(fixture: &TestStore, key: IdempotencyKey, at: OffsetDateTime) -> CreateOutcome {
    fixture.store.create(Uuid::now_v7(), draft("Lamp", 3), Some(key), "alice".into(), at).await.unwrap()
}

fn new_product(created: CreateOutcome) -> Product {
    match created {
        CreateOutcome::Created { product, replayed: false } => product,
        other => panic!("not created: {other:?}"),
    }
}

async fn count(fixture: &TestStore) -> usize {
    fixture.store.list(Query::new(Filter::default(), Sort::Newest, 100, None).unwrap()).await.unwrap().items.len()
}

pub(crate) async fn repeated_key_replays_the_first_response(fixture: TestStore) {
    let first = new_product(create(&fixture, key("alice", 1), START).await);
    fixture.store.update(first.id, draft("Lantern", 9), VersionPreconditions::default(), "alice".into(), LATER).await.unwrap();
    assert_eq!(create(&fixture, key("alice", 1), LATER).await, CreateOutcome::Created { product: first.clone(), replayed: true });
    assert_eq!(create(&fixture, key("alice", 2), LATER).await, CreateOutcome::KeyReused);
    assert_ne!(new_product(create(&fixture, key("bob", 1), LATER).await).id, first.id);
    assert_eq!(count(&fixture).await, 2);
}

pub(crate) async fn replay_does_not_recreate_a_removed_product(fixture: TestStore) {
    let first = new_product(create(&fixture, key("alice", 1), START).await);
    assert_eq!(fixture.store.remove(first.id, VersionPreconditions::default(), LATER).await.unwrap(), RemoveOutcome::Removed);
    assert_eq!(create(&fixture, key("alice", 1), LATER).await, CreateOutcome::Created { product: first, replayed: true });
    assert_eq!(count(&fixture).await, 0);
}

pub(crate) async fn key_expires_after_its_ttl(fixture: TestStore) {
    let first = new_product(create(&fixture, key("alice", 1), START).await);
    let last_moment = START + KEY_TTL - Duration::from_millis(1);
    assert!(matches!(create(&fixture, key("alice", 1), last_moment).await, CreateOutcome::Created { replayed: true, .. }));
    assert_eq!(fixture.store.delete_expired_keys(last_moment, 10).await.unwrap(), 0);
    // Expired even before the sweeper runs, and also for another body.
    let second = new_product(create(&fixture, key("alice", 2), START + KEY_TTL).await);
    assert_ne!(second.id, first.id);
    assert_eq!(fixture.store.delete_expired_keys(START + 2 * KEY_TTL, 10).await.unwrap(), 1);
    assert_eq!(fixture.store.delete_expired_keys(START + 2 * KEY_TTL, 10).await.unwrap(), 0);
}

pub(crate) async fn concurrent_creates_with_one_key_create_one_product(fixture: TestStore) {
    let outcomes = join_all((0..50).map(|_| create(&fixture, key("alice", 1), START))).await;
    let mut ids = HashSet::new();
    let mut created_count = 0;
    for outcome in outcomes {
        let CreateOutcome::Created { product, replayed } = outcome else { panic!("{outcome:?}") };
        ids.insert(product.id);
        created_count += u32::from(!replayed);
    }
    assert_eq!((ids.len(), created_count, count(&fixture).await), (1, 1, 1));
}

pub(crate) async fn keys_of_a_subject_are_erased(fixture: TestStore) {
    let of_alice = new_product(create(&fixture, key("alice", 1), START).await);
    let other_key = IdempotencyKey { key: "other".into(), ..key("alice", 1) };
    new_product(create(&fixture, other_key, START).await);
    let of_bob = new_product(create(&fixture, key("bob", 1), START).await);
    for expected in [1, 1, 0] {
        assert_eq!(fixture.store.erase_keys("alice".into(), 1).await.unwrap(), expected);
    }
    // Products have no owner, and other keys remain.
    assert_eq!(count(&fixture).await, 3);
    assert_eq!(create(&fixture, key("bob", 1), START).await, CreateOutcome::Created { product: of_bob, replayed: true });
    assert_ne!(new_product(create(&fixture, key("alice", 1), START).await).id, of_alice.id);
}
