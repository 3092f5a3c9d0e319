//! Status changes by the saga, by users, and by both concurrently.

use std::sync::Arc;

use palisade_middleware::preconditions::{Condition, VersionPreconditions};
use palisade_orders::{
    order::{FailureReason, Order, OrderId, Removal, Status},
    store::{Claimed, InstrumentedStore, List, RemoveResult, SetStatusResult, Store, TransitionResult},
};
use parking_lot::Mutex;
use tokio::join;

use crate::database::{Database, LEASE, NOW, admin, any, confirmed, database_attributes, failed, owner, reserved};

crate::on_both![
    saga_transitions_are_stored,
    failure_reasons_are_stored,
    stale_worker_is_fenced,
    cancellation_fences_the_worker,
    cancelled_order_is_due_for_release,
    set_status_allows_only_legal_transitions,
    concurrent_cancel_and_confirm_are_serialized,
    conditions_guard_status_and_removal,
    remove_requires_a_terminal_status,
    removed_order_is_still_released,
    changed_orders_are_reported_to_the_listener,
];

async fn saga_transitions_are_stored(db: Database) {
    let accepted = db.accept("alice", NOW).await;
    let reserved = db.reserve(&accepted, NOW + LEASE / 2).await;
    let order = &reserved.saga.order;
    assert_eq!((order.status, order.version, order.total_minor), (Status::ProductReserved, 2, Some(600)));
    assert_eq!((order.created_at, order.updated_at), (NOW, NOW + LEASE / 2));
    assert_eq!(order.lines[0].snapshot.as_ref().unwrap().name, "Ünï 2");
    assert_eq!(db.find(order.id).await, *order, "the returned order equals the stored one");

    let confirmed = db.apply(&reserved, confirmed(), NOW + LEASE).await;
    assert_eq!(db.find(order.id).await, confirmed.saga.order);
    assert_eq!(db.store.claim_due(NOW + LEASE * 100, LEASE, 10).await.unwrap(), [], "no work is left");
    db.assert_invariants(NOW + LEASE).await;
}

async fn failure_reasons_are_stored(db: Database) {
    for reason in FailureReason::ALL {
        let accepted = db.accept("alice", NOW).await;
        let after = db.apply(&accepted, failed(reason, reason == FailureReason::ProductsUnavailable), NOW).await;
        assert_eq!(after.saga.order.failure_reason, Some(reason));
        assert_eq!(db.find(after.saga.order.id).await, after.saga.order);
    }
    let due = db.store.claim_due(NOW + LEASE, LEASE, 10).await.unwrap();
    assert_eq!(due.len(), 1, "only the order with a pending release is due after the lease");
    assert!(due[0].saga.release_pending);
    db.assert_invariants(NOW).await;
}

async fn stale_worker_is_fenced(db: Database) {
    let stale = db.accept("alice", NOW).await;
    let fresh = db.store.claim_due(NOW + LEASE, LEASE, 1).await.unwrap().remove(0);
    assert_eq!((fresh.fence, fresh.saga.attempts), (stale.fence + 1, stale.saga.attempts + 1));
    let outcome = db.store.transition(stale, vec![failed(FailureReason::InsufficientStock, false)], None, NOW + LEASE).await.unwrap();
    assert_eq!(outcome, TransitionResult::Fenced(fresh.saga.order.clone()));
    db.reserve(&fresh, NOW + LEASE).await;
    // The lease holder cannot record the same step twice either.
    let repeated = db.store.transition(fresh.clone(), vec![reserved(&fresh.saga.order)], None, NOW + LEASE).await.unwrap();
    assert!(matches!(repeated, TransitionResult::Fenced(order) if order.status == Status::ProductReserved));
    db.assert_invariants(NOW).await;
}

async fn cancellation_fences_the_worker(db: Database) {
    let accepted = db.accept("alice", NOW).await;
    let id = accepted.saga.order.id;
    let SetStatusResult::Changed { order: cancelled, .. } = db.store.set_status(id, Status::Cancelled, owner(), any(), NOW).await.unwrap()
    else {
        panic!("cancellation is legal")
    };
    let outcome = db.store.transition(accepted.clone(), vec![reserved(&accepted.saga.order)], None, NOW).await.unwrap();
    assert_eq!(outcome, TransitionResult::Fenced(cancelled));
    db.assert_invariants(NOW).await;
}

async fn cancelled_order_is_due_for_release(db: Database) {
    let confirmed = db.confirm(&db.accept("alice", NOW).await, NOW).await;
    let id = confirmed.saga.order.id;
    db.store.set_status(id, Status::Cancelled, admin(), any(), NOW).await.unwrap();
    let due = db.store.claim_due(NOW, LEASE, 10).await.unwrap().remove(0);
    assert!(due.saga.release_pending && due.fence > confirmed.fence);
    assert_eq!((due.saga.order.id, due.saga.attempts), (id, 1));
    assert!(db.store.release_done(id, due.fence).await.unwrap());
    assert_eq!(db.store.claim_due(NOW + LEASE, LEASE, 10).await.unwrap(), []);
    db.assert_invariants(NOW).await;
}

/// Creates an order with this status.
async fn with_status(db: &Database, status: Status) -> OrderId {
    let accepted = db.accept("alice", NOW).await;
    let id = accepted.saga.order.id;
    match status {
        Status::Pending => {}
        Status::ProductReserved => drop(db.reserve(&accepted, NOW).await),
        Status::Confirmed => drop(db.confirm(&accepted, NOW).await),
        Status::Failed => drop(db.apply(&accepted, failed(FailureReason::UnknownProduct, false), NOW).await),
        Status::Completed => {
            db.confirm(&accepted, NOW).await;
            db.store.set_status(id, Status::Completed, admin(), any(), NOW).await.unwrap();
        }
        Status::Cancelled => drop(db.store.set_status(id, Status::Cancelled, owner(), any(), NOW).await.unwrap()),
    }
    assert_eq!(db.find(id).await.status, status);
    id
}

async fn set_status_allows_only_legal_transitions(db: Database) {
    for from in Status::ALL {
        for to in Status::ALL {
            for by in [owner(), admin()] {
                let id = with_status(&db, from).await;
                let before = db.find(id).await;
                let outcome = db.store.set_status(id, to, by.clone(), any(), NOW + LEASE).await.unwrap();
                let now = db.find(id).await;
                if from == to {
                    assert_eq!(outcome, SetStatusResult::Unchanged(before));
                } else if from.allowed_transitions(by.role).contains(&to) {
                    assert_eq!(
                        (now.status, now.version, now.updated_at),
                        (to, before.version + 1, NOW + LEASE),
                        "{from} to {to} by {by:?}"
                    );
                    assert_eq!(outcome, SetStatusResult::Changed { from, order: now });
                } else {
                    assert_eq!(now, before);
                    assert_eq!(outcome, SetStatusResult::Illegal { order: before, allowed: from.allowed_transitions(by.role) });
                }
            }
        }
    }
    let missing = db.store.set_status(OrderId::generate(NOW), Status::Cancelled, admin(), any(), NOW).await.unwrap();
    assert_eq!(missing, SetStatusResult::NotFound);
    db.assert_invariants(NOW).await;
}

async fn concurrent_cancel_and_confirm_are_serialized(db: Database) {
    for round in 0..40 {
        let reserved = db.reserve(&db.accept("alice", NOW).await, NOW).await;
        let id = reserved.saga.order.id;
        let cancel = db.store.set_status(id, Status::Cancelled, owner(), any(), NOW);
        let confirm = db.store.transition(reserved, vec![confirmed()], None, NOW);
        // The future that is polled first has a small advantage.
        let (cancelled, confirmed) = if round % 2 == 0 {
            join!(cancel, confirm)
        } else {
            let (confirmed, cancelled) = join!(confirm, cancel);
            (cancelled, confirmed)
        };
        assert!(matches!(cancelled.unwrap(), SetStatusResult::Changed { .. }), "a confirmed order can be cancelled");
        let order: Order = db.find(id).await;
        assert_eq!(order.status, Status::Cancelled);
        match confirmed.unwrap() {
            TransitionResult::Applied(_) => assert_eq!(order.version, 4, "confirmed, then cancelled"),
            TransitionResult::Fenced(_) => assert_eq!(order.version, 3, "cancelled, never confirmed"),
        }
    }
    assert_eq!(db.store.claim_due(NOW, LEASE, 100).await.unwrap().len(), 40, "each order has a pending release");
    db.assert_invariants(NOW).await;
}

async fn conditions_guard_status_and_removal(db: Database) {
    let none_match = |condition| VersionPreconditions { if_match: None, if_none_match: Some(condition) };
    let id = with_status(&db, Status::Confirmed).await;
    for conditions in [
        VersionPreconditions::expect(2),
        VersionPreconditions { if_match: Some(Condition::Listed(vec![])), if_none_match: None },
        none_match(Condition::Any),
        none_match(Condition::Listed(vec![1, 3])),
    ] {
        let outcome = db.store.set_status(id, Status::Cancelled, owner(), conditions.clone(), NOW).await.unwrap();
        assert_eq!(outcome, SetStatusResult::VersionMismatch, "{conditions:?}");
        assert_eq!(db.store.remove(id, owner(), conditions.clone(), NOW).await.unwrap(), RemoveResult::VersionMismatch, "{conditions:?}");
        assert_eq!(db.find(id).await.status, Status::Confirmed);
    }
    let cancel = async |conditions| db.store.set_status(id, Status::Cancelled, owner(), conditions, NOW).await.unwrap();
    assert!(matches!(cancel(VersionPreconditions::expect(3)).await, SetStatusResult::Changed { .. }));
    assert!(matches!(cancel(VersionPreconditions::expect(3)).await, SetStatusResult::Unchanged(_)), "a repeated call");
    assert!(matches!(cancel(VersionPreconditions::expect(4)).await, SetStatusResult::Unchanged(_)));
    assert_eq!(cancel(VersionPreconditions::expect(2)).await, SetStatusResult::VersionMismatch);
    assert_eq!(db.store.remove(id, owner(), none_match(Condition::Listed(vec![3])), NOW).await.unwrap(), RemoveResult::Removed);
    assert!(matches!(cancel(VersionPreconditions::expect(4)).await, SetStatusResult::Unchanged(_)), "hidden from its owner only");
    db.assert_invariants(NOW).await;
}

async fn remove_requires_a_terminal_status(db: Database) {
    for status in Status::ALL {
        let id = with_status(&db, status).await;
        let outcome = db.store.remove(id, owner(), any(), NOW).await.unwrap();
        if status.is_terminal() {
            assert_eq!(outcome, RemoveResult::Removed);
            let removed = db.find(id).await;
            assert_eq!(removed.removed, Some(Removal { at: NOW, by: Some("alice".into()), service: Some("gateway".into()) }));
            assert_eq!(db.store.remove(id, owner(), any(), NOW).await.unwrap(), RemoveResult::NotFound);
            let unchanged = SetStatusResult::Unchanged(removed.clone());
            assert_eq!(db.store.set_status(id, status, admin(), any(), NOW).await.unwrap(), unchanged);
            let list = List { status: Some(status), limit: 10, ..List::default() };
            assert_eq!(db.store.list(list.clone()).await.unwrap().orders, []);
            for user_id in [None, Some(removed.user_id.clone())] {
                let list = List { user_id, with_removed: true, ..list.clone() };
                assert_eq!(db.store.list(list).await.unwrap().orders, std::slice::from_ref(&removed));
            }
            assert_eq!(db.store.saga_statuses(vec![id]).await.unwrap()[0].status, Some(status), "the order is hidden, not deleted");
        } else {
            assert_eq!(outcome, RemoveResult::InProgress(status));
            assert_eq!(db.find(id).await.status, status);
        }
    }
    assert_eq!(db.store.remove(OrderId::generate(NOW), owner(), any(), NOW).await.unwrap(), RemoveResult::NotFound);
    db.assert_invariants(NOW).await;
}

async fn removed_order_is_still_released(db: Database) {
    let id = with_status(&db, Status::Cancelled).await;
    db.store.remove(id, owner(), any(), NOW).await.unwrap();
    let due: Vec<Claimed> = db.store.claim_due(NOW, LEASE, 10).await.unwrap();
    assert_eq!(due[0].saga.order.id, id);
    assert!(db.store.release_done(id, due[0].fence).await.unwrap());
    db.assert_invariants(NOW).await;
}

async fn changed_orders_are_reported_to_the_listener(db: Database) {
    let reported = Arc::new(Mutex::new(Vec::new()));
    let listener = reported.clone();
    let store = InstrumentedStore::new(db.store.clone(), database_attributes(), LEASE);
    let store: Arc<dyn Store> = Arc::new(store.on_change(move |order| listener.lock().push((order.id, order.version))));
    let instrumented = Database { store, back_door: db.back_door };
    let accepted = instrumented.accept("alice", NOW).await;
    let id = accepted.saga.order.id;
    instrumented.reserve(&accepted, NOW).await;
    for _ in 0..2 {
        instrumented.store.set_status(id, Status::Cancelled, owner(), any(), NOW).await.unwrap();
    }
    instrumented.store.transition(accepted, vec![confirmed()], None, NOW).await.unwrap();
    assert_eq!(*reported.lock(), [(id, 1), (id, 2), (id, 3)], "neither the unchanged order nor the fenced transition");
}
