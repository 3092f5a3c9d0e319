//! Leases: claims, fences and postponement.

use std::{collections::HashMap, time::Duration};

use futures_util::future::join_all;
use palisade_orders::{
    order::{FailureReason, OrderId, Status},
    store::Claimed,
};

use crate::database::{DEADLINE, Database, LEASE, NOW, any, failed, owner};

crate::on_both![
    creator_lease_blocks_claims,
    claim_takes_the_longest_due_first,
    concurrent_claims_are_disjoint,
    postponed_order_is_due_later,
    stale_worker_cannot_postpone,
    release_is_recorded_once,
    stuck_orders_are_listed,
    retry_now_makes_the_order_due,
    only_the_creator_lease_can_be_expired,
];

async fn creator_lease_blocks_claims(db: Database) {
    let accepted = db.accept("alice", NOW).await;
    assert_eq!(db.store.claim_due(NOW + LEASE - Duration::from_millis(1), LEASE, 10).await.unwrap(), []);
    let claimed = db.store.claim_due(NOW + LEASE, LEASE, 10).await.unwrap().remove(0);
    assert_eq!(claimed.saga.order, accepted.saga.order);
    assert_eq!((claimed.fence, claimed.saga.attempts, claimed.saga.deadline), (2, 2, NOW + DEADLINE));
    assert_eq!(claimed.trace_parent, accepted.trace_parent);
    assert_eq!(db.store.claim_due(NOW + LEASE, LEASE, 10).await.unwrap(), [], "the order is leased again");
}

async fn claim_takes_the_longest_due_first(db: Database) {
    let mut ids = Vec::new();
    for age in [3, 1, 2] {
        ids.push((age, db.accept("alice", NOW - Duration::from_mins(age)).await.saga.order.id));
    }
    let mut claimed: Vec<OrderId> = Vec::new();
    for _ in 0..2 {
        claimed.extend(db.store.claim_due(NOW, LEASE, 1).await.unwrap().iter().map(|claimed| claimed.saga.order.id));
    }
    assert_eq!(claimed, [ids[0].1, ids[2].1], "the limit applies, and the longest due come first");
}

async fn concurrent_claims_are_disjoint(db: Database) {
    let ids: Vec<OrderId> =
        join_all((0..200).map(|_| db.accept("alice", NOW))).await.into_iter().map(|claimed| claimed.saga.order.id).collect();
    let workers = (0..4).map(|_| {
        let db = db.clone();
        palisade_middleware::task::spawn(async move {
            let mut claims: Vec<Claimed> = Vec::new();
            loop {
                let claimed = db.store.claim_due(NOW + LEASE, LEASE, 7).await.unwrap();
                if claimed.is_empty() {
                    return claims;
                }
                claims.extend(claimed);
            }
        })
    });
    let mut claim_counts: HashMap<OrderId, u32> = HashMap::new();
    for claimed in join_all(workers).await.into_iter().flat_map(Result::unwrap) {
        assert_eq!((claimed.fence, claimed.saga.order.lines.len()), (2, 2));
        *claim_counts.entry(claimed.saga.order.id).or_default() += 1;
    }
    // A worker may have found no order because the others had locked the rest, so the remaining
    // orders are claimed here.
    for claimed in db.store.claim_due(NOW + LEASE, LEASE, 200).await.unwrap() {
        *claim_counts.entry(claimed.saga.order.id).or_default() += 1;
    }
    assert_eq!(claim_counts, ids.into_iter().map(|id| (id, 1)).collect());
}

async fn postponed_order_is_due_later(db: Database) {
    let accepted = db.accept("alice", NOW).await;
    let id = accepted.saga.order.id;
    let due_at = NOW + Duration::from_mins(1);
    assert!(db.store.postpone(id, accepted.fence, due_at, "no\0answer".into()).await.unwrap());
    assert_eq!(db.store.claim_due(due_at - Duration::from_millis(1), LEASE, 10).await.unwrap(), []);
    assert_eq!(db.store.claim_due(due_at, LEASE, 10).await.unwrap()[0].saga.order.id, id);
}

async fn stale_worker_cannot_postpone(db: Database) {
    let stale = db.accept("alice", NOW).await;
    let id = stale.saga.order.id;
    let fresh = db.store.claim_due(NOW + LEASE, LEASE, 10).await.unwrap().remove(0);
    assert!(!db.store.postpone(id, stale.fence, NOW + DEADLINE, "late".into()).await.unwrap());
    assert!(!db.store.release_done(id, fresh.fence).await.unwrap(), "no release is pending");
    db.confirm(&fresh, NOW + LEASE).await;
    assert!(!db.store.postpone(id, fresh.fence, NOW + DEADLINE, "done".into()).await.unwrap(), "a finished order is never due again");
    db.assert_invariants(NOW).await;
}

async fn release_is_recorded_once(db: Database) {
    let id = db.accept("alice", NOW).await.saga.order.id;
    db.store.set_status(id, Status::Cancelled, owner(), any(), NOW).await.unwrap();
    let stale = db.store.claim_due(NOW, LEASE, 1).await.unwrap().remove(0);
    let fresh = db.store.claim_due(NOW + LEASE, LEASE, 1).await.unwrap().remove(0);
    assert!(!db.store.release_done(id, stale.fence).await.unwrap());
    assert!(db.store.saga_statuses(vec![id]).await.unwrap()[0].release_pending);
    assert!(db.store.release_done(id, fresh.fence).await.unwrap());
    assert!(!db.store.release_done(id, fresh.fence).await.unwrap());
    assert!(!db.store.saga_statuses(vec![id]).await.unwrap()[0].release_pending);
}

async fn stuck_orders_are_listed(db: Database) {
    let old = db.accept("alice", NOW - Duration::from_hours(1)).await;
    let poison = db.accept("bob", NOW - LEASE).await;
    db.accept("carol", NOW).await;
    db.confirm(&db.accept("dave", NOW - Duration::from_hours(2)).await, NOW - Duration::from_hours(2)).await;
    for _ in 0..5 {
        for claimed in db.store.claim_due(NOW, Duration::ZERO, 10).await.unwrap() {
            assert!(db.store.postpone(claimed.saga.order.id, claimed.fence, NOW, "poison".into()).await.unwrap());
        }
    }
    let stuck = db.store.stuck(NOW - Duration::from_mins(30), 6, 10).await.unwrap();
    let ids: Vec<OrderId> = stuck.iter().map(|stuck| stuck.order_id).collect();
    assert_eq!(ids, [old.saga.order.id, poison.saga.order.id]);
    assert_eq!((stuck[1].attempts, stuck[1].last_error.as_deref(), stuck[1].status), (6, Some("poison"), Status::Pending));
    assert_eq!(db.store.stuck(NOW, 100, 1).await.unwrap().len(), 1, "the limit applies");
}

async fn only_the_creator_lease_can_be_expired(db: Database) {
    let id = db.accept("alice", NOW).await.saga.order.id;
    assert!(db.store.claim_due(NOW, LEASE, 10).await.unwrap().is_empty(), "leased to its creator");
    assert!(db.store.expire_creator_lease(id, NOW).await.unwrap());
    let claimed = db.store.claim_due(NOW, LEASE, 10).await.unwrap().remove(0);
    assert_eq!((claimed.saga.order.id, claimed.saga.attempts), (id, 2));
    assert!(!db.store.expire_creator_lease(id, NOW).await.unwrap(), "leased to a worker");
    assert!(db.store.claim_due(NOW, LEASE, 10).await.unwrap().is_empty());
    db.assert_invariants(NOW).await;
}

async fn retry_now_makes_the_order_due(db: Database) {
    let accepted = db.accept("alice", NOW).await;
    let id = accepted.saga.order.id;
    db.store.postpone(id, accepted.fence, NOW + DEADLINE, "later".into()).await.unwrap();
    assert!(db.store.retry_now(id, NOW).await.unwrap());
    let claimed = db.store.claim_due(NOW, LEASE, 10).await.unwrap().remove(0);
    assert_eq!(claimed.saga.attempts, 1, "the backoff starts over");
    db.apply(&claimed, failed(FailureReason::ProductInactive, false), NOW).await;
    assert!(!db.store.retry_now(id, NOW).await.unwrap(), "no work is left");
    assert!(!db.store.retry_now(OrderId::generate(NOW), NOW).await.unwrap());
    db.assert_invariants(NOW).await;
}
