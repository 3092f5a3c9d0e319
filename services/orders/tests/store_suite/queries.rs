//! Order lists, saga statuses and statistics.

use std::{collections::HashSet, time::Duration};

use palisade_middleware::{
    auth::Subject,
    context::{MAX_PREFIX_CHARS, MAX_SUB_CHARS},
};
use palisade_orders::{
    order::{FailureReason, OrderId, Status},
    store::{Create, IdempotencyKey, List, Stats},
};
use time::OffsetDateTime;

use crate::database::{Database, NOW, any, create, failed, owner};

crate::on_both![
    list_is_newest_first_and_filtered,
    longest_subject_owns_orders_and_keys,
    removed_orders_are_listed_in_order,
    pages_are_stable_during_inserts,
    saga_statuses_skip_unknown_orders,
    stats_count_unfinished_work,
    migrate_is_idempotent,
];

fn all() -> List {
    List { limit: 100, ..List::default() }
}

async fn ids(db: &Database, list: List) -> Vec<OrderId> {
    db.store.list(list).await.unwrap().orders.into_iter().map(|order| order.id).collect()
}

async fn removed_orders_are_listed_in_order(db: Database) {
    let mut all_ids = Vec::new();
    for number in 0..10 {
        let claimed = db.accept("alice", NOW + Duration::from_millis(number)).await;
        let id = claimed.saga.order.id;
        if number % 2 == 0 {
            db.apply(&claimed, failed(FailureReason::UnknownProduct, false), NOW).await;
            db.store.remove(id, owner(), any(), NOW).await.unwrap();
        }
        all_ids.insert(0, id);
    }
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = db.store.list(List { user_id: Some("alice".into()), with_removed: true, limit: 3, after, ..all() }).await.unwrap();
        found.extend(page.orders.iter().map(|order| order.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, all_ids);
    assert_eq!(ids(&db, List { with_removed: true, status: Some(Status::Failed), ..all() }).await.len(), 5);
}

async fn longest_subject_owns_orders_and_keys(db: Database) {
    let user = Subject::of_issuer(&"p".repeat(MAX_PREFIX_CHARS), &"\u{1F600}".repeat(MAX_SUB_CHARS)).unwrap();
    let key = IdempotencyKey { subject: user.clone(), key: "k".repeat(255), fingerprint: [7; 32] };
    db.store.create(Create { key: Some(key), ..create(user.clone(), NOW) }, NOW).await.unwrap();
    let order = db.store.list(List { user_id: Some(user.clone()), ..all() }).await.unwrap().orders.remove(0);
    assert_eq!(order.user_id, user);
}

async fn list_is_newest_first_and_filtered(db: Database) {
    let oldest = db.accept("alice", NOW).await;
    let middle = db.accept("bob", NOW + Duration::from_millis(1)).await;
    let newest = db.accept("alice", NOW + Duration::from_millis(2)).await;
    db.apply(&newest, failed(FailureReason::UnknownProduct, false), NOW).await;
    let [oldest, middle, newest] = [oldest, middle, newest].map(|claimed| claimed.saga.order.id);

    assert_eq!(ids(&db, all()).await, [newest, middle, oldest]);
    assert_eq!(ids(&db, List { user_id: Some("alice".into()), ..all() }).await, [newest, oldest]);
    assert_eq!(ids(&db, List { status: Some(Status::Pending), ..all() }).await, [middle, oldest]);
    assert_eq!(ids(&db, List { user_id: Some("alice".into()), status: Some(Status::Pending), ..all() }).await, [oldest]);
    assert_eq!(ids(&db, List { user_id: Some("' OR 1=1 --".into()), ..all() }).await, []);
    assert_eq!(db.store.list(all()).await.unwrap().orders[2], db.find(oldest).await, "including its lines");
}

async fn pages_are_stable_during_inserts(db: Database) {
    let mut first = HashSet::new();
    for n in 0..23_u64 {
        // Three orders per millisecond, so that the id is the tie-breaker.
        first.insert(db.accept("alice", NOW + Duration::from_millis(n / 3)).await.saga.order.id);
    }
    let mut listed: Vec<(OffsetDateTime, OrderId)> = Vec::new();
    let mut after = None;
    loop {
        let page = db.store.list(List { limit: 5, after, ..all() }).await.unwrap();
        assert!(page.orders.len() <= 5);
        listed.extend(page.orders.iter().map(|order| (order.created_at, order.id)));
        db.accept("alice", NOW + Duration::from_secs(1)).await;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert!(listed.is_sorted_by(|a, b| a > b), "newest first, without duplicates");
    assert_eq!(listed.into_iter().map(|(_, id)| id).collect::<HashSet<_>>(), first);
    let exactly = db.store.list(List { status: Some(Status::Pending), limit: 28, ..all() }).await.unwrap();
    assert_eq!((exactly.orders.len(), exactly.next), (28, None), "a full last page has no next page");
}

async fn saga_statuses_skip_unknown_orders(db: Database) {
    let pending = db.accept("alice", NOW).await.saga.order.id;
    let cancelled = db.accept("alice", NOW).await.saga.order.id;
    db.store.set_status(cancelled, Status::Cancelled, owner(), any(), NOW).await.unwrap();
    let mut statuses = db.store.saga_statuses(vec![cancelled, OrderId::generate(NOW), pending]).await.unwrap();
    statuses.sort_by_key(|status| status.status);
    let actual: Vec<_> = statuses.iter().map(|status| (status.order_id, status.status, status.release_pending)).collect();
    assert_eq!(actual, [(pending, Some(Status::Pending), false), (cancelled, Some(Status::Cancelled), true)]);
    assert_eq!(db.store.saga_statuses(vec![]).await.unwrap(), []);
}

async fn stats_count_unfinished_work(db: Database) {
    let nothing = Stats {
        unfinished: vec![],
        oldest_unfinished: Duration::ZERO,
        unpublished: 0,
        oldest_unpublished: Duration::ZERO,
        dead: 0,
        quarantined: 0,
    };
    assert_eq!(db.store.stats(NOW).await.unwrap(), nothing);
    db.accept("alice", NOW).await;
    db.accept("alice", NOW + Duration::from_secs(1)).await;
    db.reserve(&db.accept("alice", NOW).await, NOW + Duration::from_secs(2)).await;
    db.confirm(&db.accept("alice", NOW).await, NOW).await;
    let mut stats = db.store.stats(NOW + Duration::from_secs(5)).await.unwrap();
    stats.unfinished.sort();
    assert_eq!(stats.unfinished, [(Status::Pending, 2), (Status::ProductReserved, 1)]);
    assert_eq!((stats.oldest_unfinished, stats.unpublished, stats.oldest_unpublished), (Duration::from_secs(5), 7, Duration::from_secs(5)));
}

async fn migrate_is_idempotent(db: Database) {
    db.store.ping().await.unwrap();
    db.store.migrate().await.unwrap();
    db.store.ping().await.unwrap();
}
