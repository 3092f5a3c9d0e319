//! Retention: settled orders are archived and deleted, and no other row of any order is.

use std::{fs, path::Path, sync::Arc, time::Duration};

use palisade_events::Destination;
use palisade_middleware::clock::ManualClock;
use palisade_orders::{
    archive::Archive,
    order::{FailureReason, OrderId, Status},
    retention::{Lifetimes, Retention},
    store::{Overdue, PastRetention},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use time::OffsetDateTime;

use crate::database::{Database, NOW, admin, any, create, failed, key, owner};

crate::on_both![
    only_settled_orders_are_deleted,
    settled_orders_are_paginated,
    rows_of_orders_that_stay_are_protected,
    orders_are_deleted_after_their_lifetime,
    deleted_orders_are_in_the_archive,
    unwritable_archive_keeps_the_orders,
];

const DAY: Duration = Duration::from_hours(24);
const LIFETIMES: Lifetimes = Lifetimes { events: DAY, failed: Some(DAY.saturating_mul(30)), ended: Some(DAY.saturating_mul(730)) };

fn number<T>(items: &[T]) -> i64 {
    i64::try_from(items.len()).unwrap()
}

impl Database {
    /// Creates one order in each situation and returns their ids: those that are settled, and those
    /// that are not.
    async fn orders_in_every_situation(&self) -> (Vec<OrderId>, Vec<OrderId>) {
        let accept = async || self.accept("alice", NOW).await;
        let confirm = async || self.confirm(&accept().await, NOW).await.saga.order.id;
        let set = async |id, to, by| drop(self.store.set_status(id, to, by, any(), NOW).await.unwrap());
        let refused = self.apply(&accept().await, failed(FailureReason::InsufficientStock, false), NOW).await.saga.order.id;
        let fulfilled = confirm().await;
        set(fulfilled, Status::Completed, admin()).await;
        self.store.fulfilment_done(fulfilled).await.unwrap();
        let to_fulfil = confirm().await;
        set(to_fulfil, Status::Completed, admin()).await;
        let cancelled = confirm().await;
        set(cancelled, Status::Cancelled, owner()).await;
        let claimed = self.store.claim_due(NOW, DAY, 1).await.unwrap().remove(0);
        assert!(self.store.release_done(cancelled, claimed.fence).await.unwrap());
        self.store.remove(cancelled, owner(), any(), NOW).await.unwrap();
        let to_release = confirm().await;
        set(to_release, Status::Cancelled, owner()).await;
        let (pending, reserved, confirmed) = (accept().await.saga.order.id, accept().await, confirm().await);
        let reserved = self.reserve(&reserved, NOW).await.saga.order.id;
        (vec![refused, fulfilled, cancelled], vec![to_fulfil, to_release, pending, reserved, confirmed])
    }

    async fn publish_all(&self) {
        let events = self.store.unpublished(1_000).await.unwrap().iter().map(|event| event.id).collect();
        self.store.mark_published(events, Destination::InProcess, NOW).await.unwrap();
    }

    async fn settled(&self, status: Status, before: OffsetDateTime) -> Vec<OrderId> {
        let page = self.store.settled_orders(status, before, None, 100).await.unwrap();
        page.orders.iter().map(|settled| settled.order.id).collect()
    }

    fn retention(&self, now: OffsetDateTime, archive: Option<&Path>) -> Retention {
        Retention::new(self.store.clone(), Arc::new(ManualClock::new(now)), LIFETIMES, archive)
    }

    async fn rows(&self) -> [i64; 4] {
        let count = |table| self.back_door.count(table);
        [count("orders").await, count("order_lines").await, count("order_history").await, count("outbox").await]
    }
}

async fn only_settled_orders_are_deleted(db: Database) {
    let (settled, living) = db.orders_in_every_situation().await;
    let all: Vec<OrderId> = settled.iter().chain(&living).copied().collect();
    // Events that are not published keep their order.
    assert_eq!(db.settled(Status::Failed, NOW).await, []);
    assert_eq!(db.store.delete_settled(all.clone()).await.unwrap(), 0);
    db.publish_all().await;
    for (status, id) in [Status::Failed, Status::Completed, Status::Cancelled].into_iter().zip(&settled) {
        assert_eq!(db.settled(status, NOW).await, [*id], "{status}");
        assert_eq!(db.settled(status, NOW - Duration::from_millis(1)).await, [], "{status} has changed since");
    }
    for status in [Status::Pending, Status::ProductReserved, Status::Confirmed] {
        assert_eq!(db.settled(status, NOW).await, []);
    }
    assert_eq!(db.store.delete_settled(all.clone()).await.unwrap(), 3);
    assert_eq!(db.store.delete_settled(all).await.unwrap(), 0, "a repetition deletes nothing");
    for id in settled {
        assert_eq!(db.store.find(id).await.unwrap(), None);
        assert_eq!(db.store.history_after(id, 0).await.unwrap(), []);
    }
    for id in &living {
        assert_eq!(number(&db.store.history_after(*id, 0).await.unwrap()), db.find(*id).await.version);
    }
    let lines = 2 * number(&living);
    // Histories of 4, 4, 1, 2 and 3 rows; each has an event.
    assert_eq!(db.rows().await, [number(&living), lines, 14, 14]);
    db.assert_invariants(NOW).await;
}

async fn settled_orders_are_paginated(db: Database) {
    let mut ids = Vec::new();
    for n in 0..5 {
        let at = NOW + Duration::from_millis(n / 2);
        ids.push(db.apply(&db.accept("alice", at).await, failed(FailureReason::UnknownProduct, false), at).await.saga.order.id);
    }
    db.publish_all().await;
    let (mut after, mut found, mut pages) = (None, Vec::new(), 0);
    loop {
        let page = db.store.settled_orders(Status::Failed, NOW + DAY, after, 2).await.unwrap();
        found.extend(page.orders.iter().map(|settled| settled.order.id));
        pages += 1;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(pages, 3);
    found.sort();
    ids.sort();
    assert_eq!(found, ids);
    let page = db.store.settled_orders(Status::Failed, NOW + DAY, None, 1).await.unwrap();
    let history: Vec<_> = page.orders[0].history.iter().map(|entry| (entry.version, entry.to.as_str(), entry.actor.as_deref())).collect();
    assert_eq!(history, [(1, "PENDING", None), (2, "FAILED", Some("saga"))]);
}

async fn rows_of_orders_that_stay_are_protected(db: Database) {
    db.orders_in_every_situation().await;
    let before = db.rows().await;
    for sql in [
        "DELETE FROM orders",
        "DELETE FROM order_lines",
        "DELETE FROM order_history",
        "DELETE FROM order_lines WHERE order_id IN (SELECT id FROM orders WHERE status = 'FAILED')",
        "DELETE FROM orders WHERE status = 'CONFIRMED'",
        "DELETE FROM orders WHERE status = 'CANCELLED'",
    ] {
        assert!(db.back_door.execute(sql).await.is_err(), "{sql}");
    }
    assert_eq!(db.rows().await, before);
}

async fn orders_are_deleted_after_their_lifetime(db: Database) {
    let keyed = db.store.create(palisade_orders::store::Create { key: Some(key("alice", "k")), ..create("alice", NOW) }, NOW);
    keyed.await.unwrap();
    let (_, living) = db.orders_in_every_situation().await;
    db.publish_all().await;
    let past = |now| LIFETIMES.past(now);
    let orders = |rows| 1 + number(&living) + rows;
    for (now, overdue, left) in [(NOW + DAY * 30 - DAY, 0, 3), (NOW + DAY * 30, 1, 2), (NOW + DAY * 729, 0, 2), (NOW + DAY * 730, 2, 0)] {
        assert_eq!(db.store.overdue(NOW, past(now)).await.unwrap().orders, overdue + u64::from(overdue > 1));
        db.retention(now, None).clean(|| {}).await.unwrap();
        assert_eq!(db.back_door.count("orders").await, orders(left));
    }
    // One completed order still has to be fulfilled, which the gauge shows.
    let overdue = db.store.overdue(NOW + DAY, past(NOW + DAY * 730)).await.unwrap();
    assert_eq!((overdue.keys, overdue.orders), (1, 1));
    let for_ever = PastRetention { failed: OffsetDateTime::UNIX_EPOCH, ended: OffsetDateTime::UNIX_EPOCH, ..past(NOW) };
    assert_eq!(db.store.overdue(NOW, for_ever).await.unwrap(), Overdue { keys: 0, events: 0, orders: 0 });
    // The key of a deleted order is only a key.
    assert_eq!(db.store.delete_expired_keys(NOW + DAY, 10).await.unwrap(), 1);
    db.assert_invariants(NOW).await;
}

fn lines(directory: &Path) -> Vec<Value> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "ndjson"));
    let text: String = files.map(|path| fs::read_to_string(path).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn deleted_orders_are_in_the_archive(db: Database) {
    let directory = TempDir::new().unwrap();
    let (settled, _) = db.orders_in_every_situation().await;
    db.publish_all().await;
    let later = NOW + DAY * 730;
    // Another process uses the archive.
    let other = Archive::new(directory.path()).try_lock().await.unwrap().unwrap();
    let retention = db.retention(later, Some(directory.path()));
    retention.clean(|| {}).await.unwrap();
    assert_eq!(db.back_door.count("orders").await, 8);
    drop(other);
    retention.clean(|| {}).await.unwrap();
    assert_eq!(db.back_door.count("orders").await, 5);
    let archived = lines(directory.path());
    let find = |id: OrderId| archived.iter().find(|line| line["id"] == id.to_string()).unwrap();
    assert_eq!(archived.len(), settled.len());
    let refused = find(settled[0]);
    assert_eq!((&refused["failureReason"], &refused["reservation"]), (&json!("insufficient_stock"), &json!("REFUSED")));
    let completed = find(settled[1]);
    assert_eq!((&completed["status"], &completed["reservation"]), (&json!("COMPLETED"), &json!("FULFILLED")));
    let item = json!({ "productId": "00000000-0000-0000-0000-000000000002", "quantity": 3, "name": "Ünï 2", "unitPriceMinor": 150 });
    assert!(completed["items"].as_array().unwrap().contains(&item), "{completed}");
    assert_eq!(completed["history"].as_array().unwrap().len(), 4);
    let cancelled = find(settled[2]);
    assert_eq!((&cancelled["removedBy"], &cancelled["reservation"]), (&json!("alice"), &json!("RELEASED")));
    assert_eq!(cancelled["createdAt"], "2026-11-22T12:00:00.123Z");
}

async fn unwritable_archive_keeps_the_orders(db: Database) {
    let directory = TempDir::new().unwrap();
    let (settled, _) = db.orders_in_every_situation().await;
    db.publish_all().await;
    let later = NOW + DAY * 730;
    let file = directory.path().join(format!("orders-{}.ndjson", later.date()));
    // Every write to this device fails like one to a full disk.
    std::os::unix::fs::symlink("/dev/full", &file).unwrap();
    let error = db.retention(later, Some(directory.path())).clean(|| {}).await.unwrap_err().to_string();
    assert!(error.contains("cannot use the archive") && error.contains(file.to_str().unwrap()), "{error}");
    db.retention(later, Some(&directory.path().join("missing"))).clean(|| {}).await.unwrap_err();
    assert_eq!(db.back_door.count("orders").await, 8);
    // It recovers when the disk has space again.
    fs::remove_file(&file).unwrap();
    db.retention(later, Some(directory.path())).clean(|| {}).await.unwrap();
    assert_eq!(lines(directory.path()).len(), settled.len());
}
