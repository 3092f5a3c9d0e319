//! Group commit: writes that meet in one batch have the results that they would have alone.

use std::collections::HashSet;

use futures_util::future::join_all;
use palisade_middleware::preconditions::VersionPreconditions;
use palisade_orders::{
    order::{FailureReason, Status},
    store::{Create, CreateResult, Error, SetStatusResult, TransitionResult},
};

use crate::database::{Database, NOW, confirmed, create, failed, key, owner, reserved, stored_response};

crate::on_both![
    concurrent_creates_are_all_stored,
    one_rejected_create_fails_alone,
    concurrent_changes_of_one_order_are_serialized,
    mixed_batch_stores_each_change,
    two_transitions_are_stored_in_one_step,
    illegal_pair_of_transitions_is_rejected,
];

async fn concurrent_creates_are_all_stored(db: Database) {
    let creates = (0..200).map(|n| {
        // Every second order has a key, and each key is used by two orders.
        let key = (n % 2 == 0).then(|| key("alice", &(n / 4).to_string()));
        db.store.create(Create { key, ..create("alice", NOW) }, NOW)
    });
    let results: Vec<_> = join_all(creates).await.into_iter().map(Result::unwrap).collect();
    let ids: HashSet<_> = results
        .iter()
        .filter_map(|result| if let CreateResult::Created(claimed) = result { Some(claimed.saga.order.id) } else { None })
        .collect();
    let in_progress = results.iter().filter(|result| **result == CreateResult::InProgress).count();
    assert_eq!((ids.len(), in_progress), (150, 50));
    for result in &results {
        if let CreateResult::Created(claimed) = result {
            assert_eq!(db.find(claimed.saga.order.id).await, claimed.saga.order);
        }
    }
    db.assert_invariants(NOW).await;
}

async fn one_rejected_create_fails_alone(db: Database) {
    let taken = db.accept("alice", NOW).await.saga.order.id;
    let creates = (0..60).map(|n| {
        let order = create("alice", NOW);
        db.store.create(if n == 30 { Create { id: taken, ..order } } else { order }, NOW)
    });
    for (n, result) in join_all(creates).await.into_iter().enumerate() {
        match result {
            Err(Error::Corrupt(_)) => assert_eq!(n, 30),
            Ok(CreateResult::Created(_)) => assert_ne!(n, 30),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(db.back_door.count("orders").await, 60);
    db.assert_invariants(NOW).await;
}

async fn concurrent_changes_of_one_order_are_serialized(db: Database) {
    let accepted = db.accept("alice", NOW).await;
    let id = accepted.saga.order.id;
    let cancels = join_all((0..20).map(|_| db.store.set_status(id, Status::Cancelled, owner(), VersionPreconditions::default(), NOW)));
    let reserves = join_all((0..20).map(|_| db.store.transition(accepted.clone(), vec![reserved(&accepted.saga.order)], None, NOW)));
    let (cancels, reserves) = tokio::join!(cancels, reserves);
    let cancelled = cancels.iter().filter(|result| matches!(result, Ok(SetStatusResult::Changed { .. }))).count();
    let unchanged = cancels.iter().filter(|result| matches!(result, Ok(SetStatusResult::Unchanged(_)))).count();
    let applied = reserves.iter().filter(|result| matches!(result, Ok(TransitionResult::Applied(_)))).count();
    let fenced = reserves.iter().filter(|result| matches!(result, Ok(TransitionResult::Fenced(_)))).count();
    assert_eq!((cancelled, unchanged), (1, 19));
    assert!(applied <= 1 && applied + fenced == 20, "{applied} applied, {fenced} fenced");
    assert_eq!(db.find(id).await.status, Status::Cancelled);
    db.assert_invariants(NOW).await;
}

async fn mixed_batch_stores_each_change(db: Database) {
    let mut orders = Vec::new();
    for n in 0..90 {
        let key = key("alice", &n.to_string());
        let CreateResult::Created(claimed) = db.store.create(Create { key: Some(key.clone()), ..create("alice", NOW) }, NOW).await.unwrap()
        else {
            panic!("the key is new")
        };
        orders.push((key, claimed));
    }
    let changes = orders.iter().enumerate().map(|(n, (key, claimed))| {
        let transitions = match n % 3 {
            0 => vec![reserved(&claimed.saga.order)],
            1 => vec![failed(FailureReason::InsufficientStock, false)],
            _ => vec![reserved(&claimed.saga.order), confirmed()],
        };
        db.store.transition(claimed.clone(), transitions, Some(stored_response(key, &n.to_string())), NOW)
    });
    for (n, result) in join_all(changes).await.into_iter().enumerate() {
        let TransitionResult::Applied(after) = result.unwrap() else { panic!("order {n} has its lease") };
        let (key, claimed) = &orders[n];
        assert_eq!(db.find(claimed.saga.order.id).await, after.saga.order);
        let expected = [Status::ProductReserved, Status::Failed, Status::Confirmed][n % 3];
        assert_eq!(after.saga.order.status, expected);
        let repeated = db.store.create(Create { key: Some(key.clone()), ..create("alice", NOW) }, NOW).await.unwrap();
        assert_eq!(repeated, CreateResult::Replayed { response: n.to_string().into_bytes() });
    }
    db.assert_invariants(NOW).await;
}

async fn two_transitions_are_stored_in_one_step(db: Database) {
    let accepted = db.accept("alice", NOW).await;
    let transitions = vec![reserved(&accepted.saga.order), confirmed()];
    let TransitionResult::Applied(after) = db.store.transition(accepted.clone(), transitions.clone(), None, NOW).await.unwrap() else {
        panic!("the lease is valid")
    };
    let order = &after.saga.order;
    assert_eq!((order.status, order.version, order.total_minor), (Status::Confirmed, 3, Some(600)));
    assert_eq!(db.find(order.id).await, *order);
    let history = db.store.history_after(order.id, 0).await.unwrap();
    let statuses: Vec<_> = history.iter().map(|order| (order.version, order.status)).collect();
    assert_eq!(statuses, [(1, Status::Pending), (2, Status::ProductReserved), (3, Status::Confirmed)]);
    let events: Vec<_> = db.store.unpublished(10).await.unwrap().into_iter().map(|event| event.version).collect();
    assert_eq!(events, [1, 2, 3]);
    let repeated = db.store.transition(accepted, transitions, None, NOW).await.unwrap();
    assert_eq!(repeated, TransitionResult::Fenced(order.clone()));
    db.assert_invariants(NOW).await;
}

async fn illegal_pair_of_transitions_is_rejected(db: Database) {
    let accepted = db.accept("alice", NOW).await;
    let transitions = vec![failed(FailureReason::InsufficientStock, false), confirmed()];
    let result = db.store.transition(accepted.clone(), transitions, None, NOW).await;
    assert!(matches!(result, Err(Error::Corrupt(_))), "{result:?}");
    assert_eq!(db.find(accepted.saga.order.id).await, accepted.saga.order);
    db.assert_invariants(NOW).await;
}
