//! Outbox events, schema guards, and the audit that finds violations of both.

use std::time::Duration;

use palisade_orders::{
    order::{OrderId, Status},
    store::{Audit, Finding, Invariant, Overdue, PastRetention},
};

use crate::database::{BackDoor, Database, LEASE, NOW, any, owner};

crate::on_both![
    each_change_writes_one_event,
    published_events_are_pruned,
    schema_transitions_match_the_contract,
    schema_rejects_illegal_writes,
    audit_of_consistent_store_is_empty,
    audit_finds_each_violation,
];

const SECOND: Duration = Duration::from_secs(1);

async fn each_change_writes_one_event(db: Database) {
    let confirmed = db.confirm(&db.accept("alice", NOW).await, NOW + SECOND).await;
    let id = confirmed.saga.order.id;
    db.store.set_status(id, Status::Cancelled, owner(), any(), NOW + SECOND * 2).await.unwrap();
    let events = db.store.unpublished(10).await.unwrap();
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    let expected = ["pending", "product_reserved", "confirmed", "cancelled"].map(|status| format!("palisade.orders.v1.{status}"));
    assert_eq!(kinds, expected);
    assert!(events.iter().all(|event| event.order_id == id && event.trace_parent == confirmed.trace_parent));
    let payload: serde_json::Value = serde_json::from_str(&events[2].payload).unwrap();
    let expected = serde_json::json!({
        "orderId": id.to_string(), "userId": "alice", "status": "CONFIRMED", "failureReason": null, "totalMinor": 600, "version": 3,
        "occurredAt": "2026-11-22T12:00:01.123Z",
    });
    assert_eq!(payload, expected);
    assert_eq!(db.store.unpublished(2).await.unwrap(), events[..2], "the limit applies");
}

async fn published_events_are_pruned(db: Database) {
    db.confirm(&db.accept("alice", NOW).await, NOW).await;
    let ids = db.store.unpublished(2).await.unwrap().iter().map(|event| event.id).collect();
    db.store.mark_published(ids, palisade_events::Destination::InProcess, NOW + SECOND).await.unwrap();
    assert_eq!(db.store.unpublished(10).await.unwrap().len(), 1);
    assert_eq!(db.store.prune_published(NOW + SECOND, 10).await.unwrap(), 0, "the bound is exclusive");
    let past = PastRetention { events: NOW + SECOND * 2, failed: NOW, ended: NOW };
    assert_eq!(db.store.overdue(NOW, past).await.unwrap(), Overdue { keys: 0, events: 2, orders: 0 });
    assert_eq!(db.store.prune_published(NOW + SECOND * 2, 1).await.unwrap(), 1, "the limit applies");
    assert_eq!(db.store.prune_published(NOW + SECOND * 2, 10).await.unwrap(), 1);
    assert_eq!(db.store.prune_published(NOW, 10).await.unwrap(), 0);
    assert_eq!(db.store.unpublished(10).await.unwrap().len(), 1, "unpublished events remain");
    db.assert_invariants(NOW).await;
}

async fn schema_transitions_match_the_contract(db: Database) {
    let mut stored = db.back_door.pairs("SELECT from_status, to_status FROM legal_moves").await;
    let transitions = Status::ALL.into_iter().flat_map(|from| Status::ALL.map(|to| (from, to))).filter(|(from, to)| from.can_become(*to));
    let mut legal: Vec<_> = transitions.map(|(from, to)| (from.to_string(), to.to_string())).collect();
    // A revision.
    legal.push((Status::Confirmed.to_string(), Status::Confirmed.to_string()));
    stored.sort();
    legal.sort();
    assert_eq!(stored, legal);
}

async fn schema_rejects_illegal_writes(db: Database) {
    db.confirm(&db.accept("alice", NOW).await, NOW).await;
    let illegal = [
        "UPDATE orders SET status = 'PENDING', version = version + 1, due_at = created_at",
        "UPDATE orders SET status = 'NONSENSE', version = version + 1",
        "UPDATE orders SET status = 'COMPLETED'",
        "UPDATE orders SET status = 'FAILED', version = version + 1, failure_reason = 'unknown_product'",
        "UPDATE orders SET total_minor = 1",
        "UPDATE orders SET version = version + 1",
        "UPDATE orders SET user_id = 'mallory'",
        "UPDATE orders SET fence = fence - 1",
        "UPDATE orders SET due_at = created_at",
        "UPDATE orders SET release_pending = TRUE, due_at = created_at",
        "UPDATE orders SET deleted_at = created_at",
        "DELETE FROM orders",
        "UPDATE order_lines SET unit_price_minor = 1",
        "UPDATE order_lines SET quantity = 1",
        "DELETE FROM order_lines",
        "UPDATE order_history SET reason = 'because'",
        "DELETE FROM order_history",
        "INSERT INTO order_history (order_id, version, from_status, to_status, actor, at) SELECT id, 9, 'FAILED', 'PENDING', 'saga', created_at FROM orders",
        "INSERT INTO order_history (order_id, version, from_status, to_status, at) SELECT id, 9, NULL, 'PENDING', created_at FROM orders",
    ];
    for sql in illegal {
        assert!(db.back_door.execute(sql).await.is_err(), "{sql}");
    }
    db.assert_invariants(NOW).await;
    // A terminal status is final for every actor.
    db.back_door.execute("UPDATE orders SET status = 'COMPLETED', version = version + 1").await.unwrap();
    assert!(db.back_door.execute("UPDATE orders SET status = 'CONFIRMED', version = version + 1").await.is_err());
    assert!(db.back_door.execute("DELETE FROM orders").await.is_err(), "an order is deleted only with its rows");
}

async fn audit_of_consistent_store_is_empty(db: Database) {
    db.accept("alice", NOW).await;
    let cancelled = db.confirm(&db.accept("alice", NOW).await, NOW).await;
    db.store.set_status(cancelled.saga.order.id, Status::Cancelled, owner(), any(), NOW).await.unwrap();
    let audit = db.store.audit(NOW + LEASE, LEASE * 2, None).await.unwrap();
    assert_eq!(audit, Audit { counts: vec![(Status::Cancelled, 1), (Status::Pending, 1)], findings: vec![] });
}

impl BackDoor {
    /// Bypasses the guards of the schema.
    async fn force(&self, sql: &str) {
        let unguarded = match self {
            Self::Sqlite { .. } => {
                "PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON; DROP TRIGGER guard_order; DROP TRIGGER keep_line; \
                 DROP TRIGGER keep_lines; DROP TRIGGER keep_history_update; DROP TRIGGER keep_history_delete;"
            }
            Self::Postgres { .. } => {
                "SET session_replication_role = replica; ALTER TABLE orders DROP CONSTRAINT due_while_unfinished; \
                 ALTER TABLE orders DROP CONSTRAINT failed_for_a_reason; ALTER TABLE order_history DROP CONSTRAINT legal_move;"
            }
        };
        assert!(self.execute(&format!("{unguarded} {sql}")).await.unwrap() > 0, "{sql}");
    }
}

async fn audit_finds_each_violation(db: Database) {
    let planted = [
        (Invariant::DueTimeSet, "UPDATE orders SET due_at = NULL"),
        (Invariant::HistoryComplete, "DELETE FROM outbox WHERE version = 1; DELETE FROM order_history WHERE version = 1"),
        (Invariant::HistoryMatchesStatus, "UPDATE orders SET status = 'CANCELLED'"),
        (Invariant::TransitionsLegal, "UPDATE order_history SET from_status = 'CONFIRMED' WHERE version = 2"),
        (Invariant::EventWritten, "DELETE FROM outbox WHERE version = 2"),
        (Invariant::TotalExact, "UPDATE orders SET total_minor = total_minor + 1"),
        (Invariant::TotalExact, "UPDATE order_lines SET name = NULL, unit_price_minor = NULL WHERE position = 1"),
        (Invariant::TotalExact, "DELETE FROM order_lines"),
    ];
    let is_sqlite = matches!(db.back_door, BackDoor::Sqlite { .. });
    for (invariant, sql) in planted {
        let db = if is_sqlite { Database::sqlite().await } else { Database::postgres().await };
        let order_id: OrderId = db.reserve(&db.accept("alice", NOW).await, NOW).await.saga.order.id;
        db.assert_invariants(NOW).await;
        db.back_door.force(sql).await;
        let findings = db.store.audit(NOW, LEASE, None).await.unwrap().findings;
        assert!(findings.contains(&Finding { order_id, invariant }), "{sql}: {findings:?}");
        let part = async |since| db.store.audit(NOW, LEASE, Some(since)).await.unwrap();
        assert_eq!(part(NOW).await.findings, findings, "{sql}: ids contain the time of creation");
        let later = part(NOW + Duration::from_millis(1)).await;
        assert_eq!((later.findings, later.counts), (vec![], vec![]), "{sql}: older orders are skipped");
    }
    let order_id = db.accept("alice", NOW).await.saga.order.id;
    let overdue = db.store.audit(NOW + LEASE * 2, LEASE, None).await.unwrap().findings;
    assert_eq!(overdue, [Finding { order_id, invariant: Invariant::NotOverdue }]);
}
