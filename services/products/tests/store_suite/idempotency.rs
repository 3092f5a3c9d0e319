//! Creates repeated with one idempotency key.

use std::{collections::HashSet, time::Duration};

use futures_util::future::join_all;
use palisade_products::{
    product::{Filter, Product, Query, Sort},
    store::{Created, IdempotencyKey, KEY_TTL, Removed},
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::fixtures::{LATER, START, TestStore, draft};

fn key(subject: &str, fingerprint: u8) -> IdempotencyKey {
    IdempotencyKey { subject: subject.into(), key: "key".into(), fingerprint: [fingerprint; 32] }
}

async fn create(fresh: &TestStore, key: IdempotencyKey, at: OffsetDateTime) -> Created {
    fresh.store.create(Uuid::now_v7(), draft("Lamp", 3), Some(key), at).await.unwrap()
}

fn new_product(created: Created) -> Product {
    match created {
        Created::Created { product, replayed: false } => product,
        other => panic!("not created: {other:?}"),
    }
}

async fn count(fresh: &TestStore) -> usize {
    fresh.store.list(Query::new(Filter::default(), Sort::Newest, 100, None).unwrap()).await.unwrap().items.len()
}

pub(crate) async fn repeated_key_replays_the_first_response(fresh: TestStore) {
    let first = new_product(create(&fresh, key("alice", 1), START).await);
    fresh.store.update(first.id, draft("Lantern", 9), None, LATER).await.unwrap();
    assert_eq!(create(&fresh, key("alice", 1), LATER).await, Created::Created { product: first.clone(), replayed: true });
    assert_eq!(create(&fresh, key("alice", 2), LATER).await, Created::KeyReused);
    assert_ne!(new_product(create(&fresh, key("bob", 1), LATER).await).id, first.id);
    assert_eq!(count(&fresh).await, 2);
}

pub(crate) async fn replay_does_not_recreate_a_removed_product(fresh: TestStore) {
    let first = new_product(create(&fresh, key("alice", 1), START).await);
    assert_eq!(fresh.store.remove(first.id, None, crate::fixtures::LATER).await.unwrap(), Removed::Removed);
    assert_eq!(create(&fresh, key("alice", 1), LATER).await, Created::Created { product: first, replayed: true });
    assert_eq!(count(&fresh).await, 0);
}

pub(crate) async fn key_expires_after_its_ttl(fresh: TestStore) {
    let first = new_product(create(&fresh, key("alice", 1), START).await);
    let last_moment = START + KEY_TTL - Duration::from_millis(1);
    assert!(matches!(create(&fresh, key("alice", 1), last_moment).await, Created::Created { replayed: true, .. }));
    assert_eq!(fresh.store.delete_expired_keys(last_moment).await.unwrap(), 0);
    // Expired even before the sweeper runs, and also for another body.
    let second = new_product(create(&fresh, key("alice", 2), START + KEY_TTL).await);
    assert_ne!(second.id, first.id);
    assert_eq!(fresh.store.delete_expired_keys(START + 2 * KEY_TTL).await.unwrap(), 1);
    assert_eq!(fresh.store.delete_expired_keys(START + 2 * KEY_TTL).await.unwrap(), 0);
}

pub(crate) async fn concurrent_creates_with_one_key_create_one_product(fresh: TestStore) {
    let answers = join_all((0..50).map(|_| create(&fresh, key("alice", 1), START))).await;
    let mut ids = HashSet::new();
    let mut fresh_ones = 0;
    for answer in answers {
        let Created::Created { product, replayed } = answer else { panic!("{answer:?}") };
        ids.insert(product.id);
        fresh_ones += u32::from(!replayed);
    }
    assert_eq!((ids.len(), fresh_ones, count(&fresh).await), (1, 1, 1));
}
