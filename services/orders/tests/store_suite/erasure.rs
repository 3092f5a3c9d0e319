//! Erasure: a subject is replaced everywhere, and nothing else is changed.

use std::{fs, sync::Arc, time::Duration};

use palisade_events::Destination;
use palisade_middleware::clock::ManualClock;
use palisade_orders::{
    archive::Archive,
    erasure::{self, Erased, Error},
    order::{Actor, FailureReason, OrderId, Status},
    retention::{Lifetimes, Retention},
    store::{Create, CreateResult, ErasedKeys},
};
use sqlx::AssertSqlSafe;
use tempfile::TempDir;

use crate::database::{BackDoor, Database, NOW, admin, any, create, failed, key, owner, stored_response};

crate::on_both![
    subject_is_replaced_everywhere,
    orders_in_progress_prevent_an_erasure,
    orders_are_erased_in_batches,
    keys_are_erased_in_batches,
    archive_is_rewritten,
    schema_allows_no_other_change_of_a_subject,
];

/// A subject that needs escapes in JSON.
const SUBJECT: &str = "idp|carla \\ \"q\" é";
const PSEUDONYM: &str = "erased:00112233445566778899aabbccddeeff";
const DAY: Duration = Duration::from_hours(24);

/// The subject as an actor.
fn subject() -> Actor {
    actor(SUBJECT)
}

fn actor(subject: &'static str) -> Actor {
    Actor { subject: Some(subject.into()), ..owner() }
}

impl BackDoor {
    /// Returns the content of all tables that may name a subject.
    async fn all_text(&self) -> String {
        let columns = [
            ("orders", "user_id || ' ' || coalesce(deleted_by, '')"),
            ("order_history", "coalesce(reason, '') || coalesce(actor_subject, '')"),
            ("outbox", "payload"),
            ("idempotency_keys", "subject || key"),
        ];
        let mut text = String::new();
        for (table, column) in columns {
            let rows = self.pairs(&format!("SELECT {column}, '{table}' FROM {table}")).await;
            text.extend(rows.into_iter().map(|(row, table)| format!("{table}: {row}\n")));
        }
        text
    }

    async fn answers(&self) -> i64 {
        let sql = AssertSqlSafe("SELECT count(answer) FROM idempotency_keys");
        match self {
            Self::Sqlite { pool, .. } => sqlx::query_scalar(sql).fetch_one(pool).await.unwrap(),
            Self::Postgres { pool } => sqlx::query_scalar(sql).fetch_one(pool).await.unwrap(),
        }
    }
}

impl Database {
    async fn failed_order(&self, owner: &'static str) -> OrderId {
        let transition = failed(FailureReason::UnknownProduct, false);
        self.apply(&self.accept(owner, NOW).await, transition, NOW).await.saga.order.id
    }

    /// Creates an order of `owner` on behalf of `caller`, and stores a response.
    async fn keyed_order(&self, owner: &'static str, caller: &'static str) -> OrderId {
        let key = key(caller, "k");
        let create = Create { key: Some(key.clone()), by: actor(caller), ..create(owner, NOW) };
        let CreateResult::Created(claimed) = self.store.create(create, NOW).await.unwrap() else { panic!("the key is new") };
        let id = claimed.saga.order.id;
        self.apply(&claimed, failed(FailureReason::UnknownProduct, false), NOW).await;
        self.store.store_response(id, stored_response(&key, owner)).await.unwrap();
        id
    }

    async fn erase(&self, archive: Option<&Archive>) -> Result<Erased, Error> {
        erasure::erase(&*self.store, archive, &SUBJECT.into(), &PSEUDONYM.into()).await
    }
}

async fn subject_is_replaced_everywhere(db: Database) {
    let own = db.keyed_order(SUBJECT, SUBJECT).await;
    let by_admin = db.keyed_order(SUBJECT, "admin").await;
    let other = db.keyed_order("bob", "bob").await;
    db.store.remove(own, subject(), any(), NOW).await.unwrap();
    let removed_for_bob = db.failed_order("bob").await;
    db.store.remove(removed_for_bob, subject(), any(), NOW).await.unwrap();
    // Events of all kinds: published, dead-lettered and waiting.
    let events = db.store.unpublished(10).await.unwrap();
    db.store.mark_published(vec![events[0].id], Destination::InProcess, NOW).await.unwrap();
    db.store.mark_rejected(vec![(events[1].id, "too large".into())], 1, NOW).await.unwrap();
    let bob_before = (db.find(other).await, db.store.history_after(other, 0).await.unwrap());

    let erased = db.erase(None).await.unwrap();
    let expected = Erased { orders: 2, removals: 2, history: 1, events: 4, keys: 1, responses: 1, archived: 0 };
    assert_eq!(erased, expected);
    let text = db.back_door.all_text().await;
    assert!(!text.contains("carla"), "{text}");
    assert_eq!(text.matches(PSEUDONYM).count(), 2 + 2 + 4 + 1, "{text}");
    for id in [own, by_admin] {
        assert_eq!(db.find(id).await.user_id, PSEUDONYM);
    }
    assert_eq!(db.find(own).await.removed.unwrap().by, Some(PSEUDONYM.into()));
    assert_eq!((db.find(other).await, db.store.history_after(other, 0).await.unwrap()), bob_before);
    assert_eq!(db.back_door.answers().await, 1, "that of bob");
    // Consumers can read the events.
    for event in db.store.unpublished(10).await.unwrap() {
        let payload: serde_json::Value = serde_json::from_str(&event.payload).unwrap();
        assert!([PSEUDONYM, "bob"].contains(&payload["userId"].as_str().unwrap()), "{payload}");
    }
    // The key of the administrator still stands for its order, without the old response.
    let repeated = Create { key: Some(key("admin", "k")), ..create(SUBJECT, NOW) };
    let CreateResult::Existing(order) = db.store.create(repeated, NOW).await.unwrap() else { panic!("the key exists") };
    assert_eq!(order.id, by_admin);
    assert_eq!(db.erase(None).await.unwrap(), Erased::default(), "a repetition finds nothing");
    db.assert_invariants(NOW).await;
}

async fn orders_in_progress_prevent_an_erasure(db: Database) {
    db.keyed_order(SUBJECT, SUBJECT).await;
    db.accept(SUBJECT, NOW).await;
    let confirm = async || db.confirm(&db.accept(SUBJECT, NOW).await, NOW).await.saga.order.id;
    let (cancelled, completed, _) = (confirm().await, confirm().await, confirm().await);
    db.store.set_status(cancelled, Status::Cancelled, owner(), any(), NOW).await.unwrap();
    db.store.remove(cancelled, subject(), any(), NOW).await.unwrap();
    db.store.set_status(completed, Status::Completed, admin(), any(), NOW).await.unwrap();
    let before = db.back_door.all_text().await;
    let error = db.erase(None).await.unwrap_err().to_string();
    assert!(error.contains("orders in progress, 4 in all (1 CANCELLED, 1 COMPLETED, 1 CONFIRMED, 1 PENDING)"), "{error}");
    assert_eq!(db.back_door.all_text().await, before);
    // An order that is accepted during an erasure keeps its owner.
    let batch = db.store.erase_orders(SUBJECT.into(), PSEUDONYM.into(), uuid::Uuid::nil().into(), 100).await.unwrap();
    assert_eq!((batch.orders, batch.events), (1, 2));
    assert_eq!(db.find(completed).await.user_id, SUBJECT);
}

async fn orders_are_erased_in_batches(db: Database) {
    for owner in [SUBJECT, "bob", SUBJECT, "bob", SUBJECT] {
        db.failed_order(owner).await;
    }
    let (mut after, mut erased, mut batches) = (uuid::Uuid::nil().into(), 0, 0);
    loop {
        let batch = db.store.erase_orders(SUBJECT.into(), PSEUDONYM.into(), after, 2).await.unwrap();
        erased += batch.orders;
        let Some(last) = batch.last else { break };
        (after, batches) = (last, batches + 1);
    }
    assert_eq!((erased, batches), (3, 3));
}

async fn keys_are_erased_in_batches(db: Database) {
    for caller in [SUBJECT, "admin", "operator", "auditor"] {
        db.keyed_order(SUBJECT, caller).await;
    }
    db.keyed_order("bob", "bob").await;
    let mut batches = Vec::new();
    loop {
        let ErasedKeys { keys, responses } = db.store.erase_keys(SUBJECT.into(), 2).await.unwrap();
        batches.push((keys, responses));
        if (keys, responses) == (0, 0) {
            break;
        }
    }
    assert_eq!(batches, [(1, 2), (0, 1), (0, 0)]);
    assert_eq!(db.back_door.answers().await, 1, "that of bob");
}

async fn archive_is_rewritten(db: Database) {
    let directory = TempDir::new().unwrap();
    for owner in [SUBJECT, "bob", SUBJECT] {
        db.failed_order(owner).await;
    }
    let events = db.store.unpublished(10).await.unwrap().iter().map(|event| event.id).collect();
    db.store.mark_published(events, Destination::InProcess, NOW).await.unwrap();
    let lifetimes = Lifetimes { events: DAY, failed: Some(DAY), ended: None };
    let clock = Arc::new(ManualClock::new(NOW + DAY));
    Retention::new(db.store.clone(), clock, lifetimes, Some(directory.path())).clean(|| {}).await.unwrap();
    let archive = Archive::new(directory.path());
    assert_eq!(db.erase(Some(&archive)).await.unwrap(), Erased { archived: 2, ..Erased::default() });
    let text = fs::read_to_string(directory.path().join("orders-2026-11-23.ndjson")).unwrap();
    assert!(!text.contains("carla") && text.lines().count() == 3, "{text}");
    // The owner of two orders, and the actor that created them.
    assert_eq!(text.matches(PSEUDONYM).count(), 4, "{text}");
    assert_eq!(db.erase(Some(&archive)).await.unwrap(), Erased::default());
}

async fn schema_allows_no_other_change_of_a_subject(db: Database) {
    db.failed_order("alice").await;
    db.confirm(&db.accept("bob", NOW).await, NOW).await;
    for sql in [
        "UPDATE orders SET user_id = 'mallory'",
        "UPDATE orders SET user_id = 'erased:1' WHERE status = 'CONFIRMED'",
        "UPDATE orders SET user_id = 'erased:1', updated_at = saga_deadline WHERE status = 'FAILED'",
    ] {
        assert!(db.back_door.execute(sql).await.is_err(), "{sql}");
    }
    db.back_door.execute("UPDATE orders SET user_id = 'erased:1' WHERE status = 'FAILED'").await.unwrap();
    for sql in [
        "UPDATE order_history SET actor_subject = 'mallory'",
        "UPDATE order_history SET actor_subject = NULL",
        "UPDATE order_history SET reason = 'because'",
        "UPDATE order_history SET actor_subject = 'erased:1', reason = 'because'",
        "UPDATE order_history SET actor_subject = 'erased:1', actor_service = 'somebody'",
    ] {
        assert!(db.back_door.execute(sql).await.is_err(), "{sql}");
    }
    db.back_door.execute("UPDATE order_history SET actor_subject = 'erased:1'").await.unwrap();
}
