//! History of an order: its changes with their actors.

use std::time::Duration;

use palisade_middleware::auth::Subject;
use palisade_orders::{
    order::{Actor, FailureReason, HistoryEntry, MAX_HISTORY, OrderId, Role, Status},
    store::{Create, CreateResult},
};

use crate::database::{BackDoor, Database, LEASE, NOW, admin, any, create, failed, owner};

crate::on_both![
    history_has_every_change_with_its_actor,
    administrator_creates_an_order_for_a_user,
    removal_is_the_last_entry,
    rows_of_the_previous_release_have_no_user,
    history_is_bounded,
];

/// Role, user and service of each entry.
type Actors<'a> = Vec<(Option<Role>, Option<&'a str>, Option<&'a str>)>;

async fn history(db: &Database, id: OrderId) -> Vec<HistoryEntry> {
    db.find(id).await.complete_history(db.store.history(id).await.unwrap())
}

fn actors(history: &[HistoryEntry]) -> Actors<'_> {
    history.iter().map(|entry| (entry.role, entry.subject.as_ref().map(Subject::as_str), entry.service.as_deref())).collect()
}

const ALICE: (Option<Role>, Option<&str>, Option<&str>) = (Some(Role::Owner), Some("alice"), Some("gateway"));
const SAGA: (Option<Role>, Option<&str>, Option<&str>) = (Some(Role::Saga), None, Some("orders"));
const ROOT: (Option<Role>, Option<&str>, Option<&str>) = (Some(Role::Admin), Some("root"), None);

async fn history_has_every_change_with_its_actor(db: Database) {
    let accepted = db.accept("alice", NOW).await;
    let id = accepted.saga.order.id;
    db.confirm(&accepted, NOW + LEASE).await;
    db.store.set_status(id, Status::Completed, admin(), any(), NOW + LEASE * 2).await.unwrap();
    let history = history(&db, id).await;
    let changes: Vec<_> = history.iter().map(|entry| (entry.version, entry.from, entry.to, entry.at)).collect();
    assert_eq!(
        changes,
        [
            (1, None, Status::Pending, NOW),
            (2, Some(Status::Pending), Status::ProductReserved, NOW + LEASE),
            (3, Some(Status::ProductReserved), Status::Confirmed, NOW + LEASE),
            (4, Some(Status::Confirmed), Status::Completed, NOW + LEASE * 2),
        ]
    );
    assert_eq!(actors(&history), [ALICE, SAGA, SAGA, ROOT]);
    assert!(history.iter().all(|entry| entry.reason.is_none()));
    assert_eq!(db.store.history(OrderId::generate(NOW)).await.unwrap(), []);
    db.assert_invariants(NOW + LEASE * 2).await;
}

async fn administrator_creates_an_order_for_a_user(db: Database) {
    let new = Create { by: admin(), ..create("alice", NOW) };
    let CreateResult::Created(claimed) = db.store.create(new, NOW).await.unwrap() else { panic!("the order was not created") };
    let id = claimed.saga.order.id;
    let direct = Actor { service: None, ..owner() };
    db.store.set_status(id, Status::Cancelled, direct, any(), NOW).await.unwrap();
    assert_eq!(actors(&history(&db, id).await), [ROOT, (Some(Role::Owner), Some("alice"), None)]);
}

async fn removal_is_the_last_entry(db: Database) {
    for by in [owner(), admin()] {
        let accepted = db.accept("alice", NOW).await;
        let id = accepted.saga.order.id;
        db.apply(&accepted, failed(FailureReason::UnknownProduct, false), NOW).await;
        db.store.remove(id, by.clone(), any(), NOW + LEASE).await.unwrap();
        let history = history(&db, id).await;
        let reasons: Vec<_> = history.iter().map(|entry| (entry.version, entry.reason.as_deref())).collect();
        assert_eq!(reasons, [(1, None), (2, Some("unknown_product")), (2, Some("removed"))]);
        let removal = &history[2];
        assert_eq!((removal.from, removal.to, removal.at), (Some(Status::Failed), Status::Failed, NOW + LEASE));
        assert_eq!(actors(&history), [ALICE, SAGA, if by.role == Role::Owner { ALICE } else { ROOT }]);
    }
}

async fn rows_of_the_previous_release_have_no_user(db: Database) {
    let (id, now) = match &db.back_door {
        BackDoor::Sqlite { .. } => ("x'018f2d3e7c1a7000800000000000000a'", "1000"),
        BackDoor::Postgres { .. } => ("'018f2d3e-7c1a-7000-8000-00000000000a'", "to_timestamp(1)"),
    };
    let statements = format!(
        "INSERT INTO orders (id, user_id, status, version, created_at, updated_at, due_at, fence, attempts, saga_deadline, release_pending)
             VALUES ({id}, 'alice', 'PENDING', 1, {now}, {now}, {now}, 1, 1, {now}, FALSE);
         INSERT INTO order_lines (order_id, position, product_id, quantity) VALUES ({id}, 1, {id}, 2);
         INSERT INTO order_history (order_id, version, to_status, at) VALUES ({id}, 1, 'PENDING', {now});
         UPDATE orders SET status = 'FAILED', version = 2, failure_reason = 'insufficient_stock', due_at = NULL WHERE id = {id};
         INSERT INTO order_history (order_id, version, from_status, to_status, reason, actor, at)
             VALUES ({id}, 2, 'PENDING', 'FAILED', 'insufficient_stock', 'saga', {now});
         UPDATE orders SET deleted_at = {now} WHERE id = {id};"
    );
    db.back_door.execute(&statements).await.unwrap();
    let history = history(&db, "018f2d3e-7c1a-7000-8000-00000000000a".parse().unwrap()).await;
    assert_eq!(actors(&history), [(None, None, None), (Some(Role::Saga), None, None), (None, None, None)]);
    assert_eq!(history[2].at, time::OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1));
}

async fn history_is_bounded(db: Database) {
    let confirmed = db.confirm(&db.accept("alice", NOW).await, NOW).await;
    let id = confirmed.saga.order.id;
    let (key, at) = match &db.back_door {
        BackDoor::Sqlite { .. } => (format!("x'{}'", id.as_uuid().simple()), "1"),
        BackDoor::Postgres { .. } => (format!("'{id}'::uuid"), "now()"),
    };
    db.back_door
        .execute(&format!(
            "WITH RECURSIVE versions (n) AS (SELECT 4 UNION ALL SELECT n + 1 FROM versions WHERE n < 1100)
             INSERT INTO order_history (order_id, version, from_status, to_status, actor, at)
             SELECT {key}, n, 'CONFIRMED', 'CANCELLED', 'owner', {at} FROM versions"
        ))
        .await
        .unwrap();
    let recorded = db.store.history(id).await.unwrap();
    assert_eq!((recorded.len(), recorded[0].version), (MAX_HISTORY as usize, 1));
}
