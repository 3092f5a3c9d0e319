//! Order creation and idempotency keys.

use std::time::Duration;

use futures_util::future::join_all;
use palisade_orders::{
    order::{FailureReason, MaxTotal, OrderId, Status},
    store::{Create, CreateResult, IdempotencyKey, KEY_LIFETIME, List, TransitionResult},
};
use time::OffsetDateTime;

use crate::database::{Database, LEASE, NOW, create, failed, key, new_order, stored_response};

crate::on_both![
    maximum_total_is_kept_for_the_worker,
    create_stores_the_order,
    create_without_key_stores_no_key,
    create_replays_the_stored_response,
    transition_stores_the_response,
    first_response_is_kept,
    create_rejects_a_reused_key,
    create_reports_a_request_in_progress,
    retried_create_returns_the_existing_order,
    create_returns_the_order_after_creator_lease,
    create_returns_an_order_claimed_by_a_worker,
    key_expires_after_a_day,
    keys_are_unique_per_subject,
    concurrent_creates_with_one_key_create_once,
    expired_keys_are_deleted,
];

fn with_key(key: &IdempotencyKey, now: OffsetDateTime) -> Create {
    Create { key: Some(key.clone()), ..create("alice", now) }
}

async fn created(db: &Database, key: &IdempotencyKey, now: OffsetDateTime) -> OrderId {
    match db.store.create(with_key(key, now), now).await.unwrap() {
        CreateResult::Created(claimed) => claimed.saga.order.id,
        other => panic!("{other:?}"),
    }
}

async fn create_stores_the_order(db: Database) {
    let claimed = db.accept("alice", NOW).await;
    let order = &claimed.saga.order;
    assert_eq!(db.find(order.id).await, *order);
    assert_eq!((order.status, order.version, order.created_at, order.lines.len()), (Status::Pending, 1, NOW, 2));
    assert_eq!((claimed.fence, claimed.saga.attempts, claimed.saga.release_pending), (1, 1, false));
    assert_eq!(db.store.find(OrderId::generate(NOW)).await.unwrap(), None);
    db.assert_invariants(NOW).await;
}

async fn create_without_key_stores_no_key(db: Database) {
    db.accept("alice", NOW).await;
    assert_eq!(db.back_door.count("idempotency_keys").await, 0);
}

async fn create_replays_the_stored_response(db: Database) {
    let key = key("alice", "k");
    let id = created(&db, &key, NOW).await;
    db.store.store_response(id, stored_response(&key, "202")).await.unwrap();
    for _ in 0..2 {
        assert_eq!(db.store.create(with_key(&key, NOW), NOW).await.unwrap(), CreateResult::Replayed { response: "202".into() });
    }
    assert_eq!(db.back_door.count("orders").await, 1);
}

async fn transition_stores_the_response(db: Database) {
    let key = key("alice", "k");
    let CreateResult::Created(claimed) = db.store.create(with_key(&key, NOW), NOW).await.unwrap() else {
        panic!("the order was not created")
    };
    let transition = failed(FailureReason::InsufficientStock, false);
    let result = db.store.transition(claimed, vec![transition], Some(stored_response(&key, "409")), NOW).await.unwrap();
    assert!(matches!(result, TransitionResult::Applied(_)));
    assert_eq!(db.store.create(with_key(&key, NOW), NOW).await.unwrap(), CreateResult::Replayed { response: "409".into() });
}

async fn first_response_is_kept(db: Database) {
    let key = key("alice", "k");
    let id = created(&db, &key, NOW).await;
    for text in ["first", "second"] {
        db.store.store_response(id, stored_response(&key, text)).await.unwrap();
    }
    assert_eq!(db.store.create(with_key(&key, NOW), NOW).await.unwrap(), CreateResult::Replayed { response: "first".into() });
}

async fn create_rejects_a_reused_key(db: Database) {
    let key = key("alice", "k");
    let id = created(&db, &key, NOW).await;
    let other = IdempotencyKey { fingerprint: [8; 32], ..key.clone() };
    assert_eq!(db.store.create(with_key(&other, NOW), NOW).await.unwrap(), CreateResult::KeyReused);
    db.store.store_response(id, stored_response(&key, "201")).await.unwrap();
    assert_eq!(db.store.create(with_key(&other, NOW), NOW).await.unwrap(), CreateResult::KeyReused);
}

async fn create_reports_a_request_in_progress(db: Database) {
    let key = key("alice", "k");
    created(&db, &key, NOW).await;
    let just_before_the_end = NOW + LEASE - Duration::from_millis(1);
    assert_eq!(db.store.create(with_key(&key, NOW), just_before_the_end).await.unwrap(), CreateResult::InProgress);
}

async fn retried_create_returns_the_existing_order(db: Database) {
    let key = key("alice", "k");
    let id = created(&db, &key, NOW).await;
    let retry = Create { is_retry: true, ..with_key(&key, NOW) };
    let CreateResult::Existing(order) = db.store.create(retry.clone(), NOW).await.unwrap() else {
        panic!("no existing order was returned")
    };
    assert_eq!(order, db.find(id).await);
    db.store.store_response(id, stored_response(&key, "202")).await.unwrap();
    assert_eq!(db.store.create(retry, NOW).await.unwrap(), CreateResult::Replayed { response: "202".into() });
}

async fn create_returns_the_order_after_creator_lease(db: Database) {
    let key = key("alice", "k");
    let id = created(&db, &key, NOW).await;
    let later = NOW + LEASE;
    let CreateResult::Existing(order) = db.store.create(with_key(&key, later), later).await.unwrap() else {
        panic!("no existing order was returned")
    };
    assert_eq!(order, db.find(id).await);
    db.store.store_response(id, stored_response(&key, "202")).await.unwrap();
    assert_eq!(db.store.create(with_key(&key, later), later).await.unwrap(), CreateResult::Replayed { response: "202".into() });
    assert_eq!(db.back_door.count("orders").await, 1);
}

async fn create_returns_an_order_claimed_by_a_worker(db: Database) {
    let key = key("alice", "k");
    let id = created(&db, &key, NOW).await;
    let later = NOW + LEASE;
    assert_eq!(db.store.claim_due(later, LEASE, 10).await.unwrap().len(), 1);
    let existing = db.store.create(with_key(&key, later), later).await.unwrap();
    assert!(matches!(existing, CreateResult::Existing(order) if order.id == id));
}

async fn key_expires_after_a_day(db: Database) {
    let key = key("alice", "k");
    let first = created(&db, &key, NOW).await;
    db.store.store_response(first, stored_response(&key, "201")).await.unwrap();
    let almost = NOW + KEY_LIFETIME - Duration::from_millis(1);
    assert!(matches!(db.store.create(with_key(&key, almost), almost).await.unwrap(), CreateResult::Replayed { .. }));
    let second = created(&db, &key, NOW + KEY_LIFETIME).await;
    assert_ne!(first, second);
    db.store.store_response(first, stored_response(&key, "late")).await.unwrap();
    let at = NOW + KEY_LIFETIME;
    assert_eq!(
        db.store.create(with_key(&key, at), at).await.unwrap(),
        CreateResult::InProgress,
        "the response of the first order does not belong to the second"
    );
}

async fn keys_are_unique_per_subject(db: Database) {
    let alices = created(&db, &key("alice", "k"), NOW).await;
    let bobs = created(&db, &key("bob", "k"), NOW).await;
    assert_ne!(alices, bobs);
}

async fn concurrent_creates_with_one_key_create_once(db: Database) {
    let key = key("alice", "k");
    let creates = (0..50).map(|_| {
        let (db, create) = (db.clone(), with_key(&key, NOW));
        palisade_middleware::task::spawn(async move { db.store.create(create, NOW).await.unwrap() })
    });
    let outcomes: Vec<CreateResult> = join_all(creates).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, CreateResult::Created(_))).count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, CreateResult::InProgress)).count(), 49);
    let list = List { user_id: Some("alice".into()), limit: 100, ..List::default() };
    assert_eq!(db.store.list(list).await.unwrap().orders.len(), 1);
    db.assert_invariants(NOW).await;
}

async fn expired_keys_are_deleted(db: Database) {
    created(&db, &key("alice", "old"), NOW).await;
    created(&db, &key("alice", "young"), NOW + Duration::from_secs(1)).await;
    assert_eq!(db.store.delete_expired_keys(NOW + KEY_LIFETIME, 10).await.unwrap(), 1);
    assert_eq!(db.back_door.count("idempotency_keys").await, 1);
}

async fn maximum_total_is_kept_for_the_worker(db: Database) {
    for max_total in [None, Some(0), Some(MaxTotal::MAX)].map(|minor| minor.map(|minor| MaxTotal::new(minor).unwrap())) {
        let new = Create { order: new_order("alice").with_max_total(max_total), ..create("alice", NOW) };
        let CreateResult::Created(created) = db.store.create(new, NOW).await.unwrap() else { panic!("the order was not created") };
        assert_eq!(created.saga.max_total, max_total);
        let resumed = db.store.claim_due(NOW + LEASE, LEASE, 1).await.unwrap().remove(0);
        assert_eq!((resumed.saga.order.id, resumed.saga.max_total), (created.saga.order.id, max_total));
        let after = db.apply(&resumed, failed(FailureReason::PriceChanged, true), NOW + LEASE).await;
        assert_eq!(after.saga.order.failure_reason, Some(FailureReason::PriceChanged));
        assert!(db.store.release_done(after.saga.order.id, after.fence).await.unwrap());
    }
    assert!(db.back_door.execute("UPDATE orders SET max_total_minor = -1").await.is_err());
    db.assert_invariants(NOW + LEASE).await;
}
