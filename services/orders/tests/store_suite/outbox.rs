//! Reads of watchers and the relay: the order's state at each status, versions, and the outbox
//! lease.

use std::time::Duration;

use palisade_events::{Destination, Lease};
use palisade_orders::{order::Status, store::redrive_all};
use uuid::Uuid;

use crate::database::{Database, NOW, any, owner};

crate::on_both![
    history_returns_the_order_at_each_status,
    outbox_lease_is_exclusive,
    rejected_event_is_dead_until_redriven,
    events_are_redriven_in_batches,
    outbox_of_a_broker_is_not_drained_in_process
];

async fn history_returns_the_order_at_each_status(db: Database) {
    let accepted = db.accept("alice", NOW).await;
    let id = accepted.saga.order.id;
    let confirmed = db.confirm(&accepted, NOW + Duration::from_secs(1)).await.saga.order;
    let changes = db.store.history_after(id, 0).await.unwrap();
    assert_eq!(changes.iter().map(|order| order.status).collect::<Vec<_>>(), [Status::Pending, Status::ProductReserved, Status::Confirmed]);
    // The first state has no prices, even though the order was priced later.
    assert_eq!(changes[0], accepted.saga.order);
    assert_eq!(changes[2], confirmed);
    assert_eq!(db.store.history_after(id, 2).await.unwrap(), [confirmed]);
    db.store.set_status(id, Status::Cancelled, owner(), any(), NOW + Duration::from_secs(2)).await.unwrap();
    db.store.remove(id, owner(), any(), NOW + Duration::from_secs(3)).await.unwrap();
    // Watchers of a removed order still receive its final status.
    assert_eq!(db.store.history_after(id, 3).await.unwrap()[0].status, Status::Cancelled);
    assert_eq!(db.store.history_after(id, 4).await.unwrap(), []);
    assert_eq!(db.store.versions(vec![id, Uuid::now_v7().into()]).await.unwrap(), [(id, 4)]);
}

async fn outbox_lease_is_exclusive(db: Database) {
    let (first, second, lease) = (Uuid::new_v4(), Uuid::new_v4(), Duration::from_secs(10));
    let lease_at = async |relay, now| db.store.lease_outbox(relay, Destination::InProcess, now, now + lease).await.unwrap() == Lease::Held;
    assert!(lease_at(first, NOW).await);
    assert!(!lease_at(second, NOW + lease / 2).await);
    assert!(lease_at(first, NOW + lease / 2).await, "the holder can extend its lease");
    assert!(!lease_at(second, NOW + lease).await);
    assert!(lease_at(second, NOW + 2 * lease).await, "the lease has expired");
    assert!(!lease_at(first, NOW + 2 * lease).await);
}

async fn rejected_event_is_dead_until_redriven(db: Database) {
    db.confirm(&db.accept("alice", NOW).await, NOW).await;
    let events = db.store.unpublished(10).await.unwrap();
    assert_eq!(events.iter().map(|event| event.version).collect::<Vec<_>>(), [1, 2, 3]);
    let rejected = vec![(events[1].id, "too large\0".to_owned())];
    assert_eq!(db.store.mark_rejected(rejected.clone(), 2, NOW).await.unwrap(), 0);
    assert_eq!(db.store.unpublished(10).await.unwrap(), events);
    assert_eq!(db.store.mark_rejected(rejected, 2, NOW).await.unwrap(), 1);
    assert_eq!(db.store.unpublished(10).await.unwrap(), [events[0].clone(), events[2].clone()]);
    let dead = db.store.dead_events(10).await.unwrap();
    assert_eq!((dead.len(), &dead[0].event, dead[0].dead_lettered_at), (1, &events[1], NOW));
    assert!(dead[0].reason.starts_with("too large"));
    let stats = db.store.stats(NOW).await.unwrap();
    assert_eq!((stats.unpublished, stats.dead), (2, 1));
    // A dead-lettered event cannot be marked as published.
    db.store.mark_published(vec![events[1].id], Destination::InProcess, NOW).await.unwrap_err();
    assert_eq!(redrive_all(&*db.store).await.unwrap(), 1);
    assert_eq!(db.store.unpublished(10).await.unwrap(), events);
}

async fn events_are_redriven_in_batches(db: Database) {
    for _ in 0..5 {
        db.accept("alice", NOW).await;
    }
    let events = db.store.unpublished(10).await.unwrap();
    let rejected = events.iter().map(|event| (event.id, "too large".to_owned())).collect();
    assert_eq!(db.store.mark_rejected(rejected, 1, NOW).await.unwrap(), 5);
    let (mut after, mut sizes) = (i64::MIN, Vec::new());
    loop {
        let batch = db.store.redrive(after, 2).await.unwrap();
        sizes.push(batch.events);
        let Some(last) = batch.last else { break };
        after = last;
        // Rejected again: stays dead-lettered.
        let again = db.store.unpublished(1).await.unwrap().into_iter().map(|event| (event.id, "too large".to_owned())).collect();
        assert_eq!(db.store.mark_rejected(again, 1, NOW).await.unwrap(), 1);
    }
    assert_eq!(sizes, [2, 2, 1, 0]);
    assert_eq!((db.store.unpublished(10).await.unwrap().len(), db.store.dead_events(10).await.unwrap().len()), (2, 3));
}

async fn outbox_of_a_broker_is_not_drained_in_process(db: Database) {
    db.accept("alice", NOW).await;
    let (plain, broker, other, later) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4(), NOW + Duration::from_mins(1));
    let lease = async |relay, destination, now| db.store.lease_outbox(relay, destination, now, later).await.unwrap();
    assert_eq!(lease(plain, Destination::InProcess, NOW).await, Lease::Held);
    let fetched = db.store.unpublished(10).await.unwrap();
    let ids = vec![fetched[0].id];
    // The replica with a broker takes over at once; what the other one fetched is not lost.
    assert_eq!(lease(broker, Destination::Broker, NOW).await, Lease::Held);
    db.store.mark_published(ids.clone(), Destination::InProcess, NOW).await.unwrap();
    assert_eq!(db.store.unpublished(10).await.unwrap(), fetched);
    assert_eq!(lease(plain, Destination::InProcess, later).await, Lease::OtherDestination);
    assert_eq!(lease(other, Destination::Broker, NOW).await, Lease::HeldByAnother);
    db.store.mark_published(ids, Destination::Broker, NOW).await.unwrap();
    assert_eq!(db.store.unpublished(10).await.unwrap(), []);
    db.store.reset_relay().await.unwrap();
    assert_eq!(lease(plain, Destination::InProcess, NOW).await, Lease::Held);
}
