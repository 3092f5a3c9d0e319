//! Robustness: unreadable rows, leases of dead processes, newer schemas and bounded clean-up.

use std::time::Duration;

use palisade_orders::{
    order::{OrderId, Status},
    store::{List, SagaQueue, SqliteStore},
};

use crate::database::{BackDoor, Database, LEASE, NOW, admin, any, create};

crate::on_both![
    unreadable_order_does_not_block_the_others,
    repaired_order_leaves_quarantine,
    unreadable_event_is_dead_lettered,
    list_leaves_out_unreadable_orders,
    unreadable_times_hide_no_order,
    unreadable_fulfilment_does_not_block_the_others,
    lease_of_a_running_saga_is_extended,
    newer_schema_is_tolerated,
    unreadable_status_does_not_end_an_audit,
    unreadable_rows_do_not_hide_the_lists_of_operators,
    expired_keys_are_deleted_in_batches,
];

/// Statements that make orders of user `poison` unreadable, by database.
fn poison(db: &Database) -> &'static [&'static str] {
    match db.back_door {
        BackDoor::Sqlite { .. } => &[
            "UPDATE orders SET attempts = 5000000000 WHERE user_id = 'poison'",
            "UPDATE orders SET saga_deadline = 9223372036854775807 WHERE user_id = 'poison'",
            // Bypasses the schema, so that every update of the row fails.
            "PRAGMA ignore_check_constraints = ON; DROP TRIGGER guard_order;
             UPDATE orders SET status = 'LOST' WHERE user_id = 'poison'; PRAGMA ignore_check_constraints = OFF",
        ],
        BackDoor::Postgres { .. } => &[
            "UPDATE orders SET attempts = 5000000000 WHERE user_id = 'poison'",
            "UPDATE orders SET saga_deadline = 'infinity' WHERE user_id = 'poison'",
            "UPDATE orders SET saga_deadline = '294000-01-01' WHERE user_id = 'poison'",
            "ALTER TABLE orders ADD CONSTRAINT never CHECK (user_id <> 'poison') NOT VALID",
        ],
    }
}

async fn unreadable_order_does_not_block_the_others(db: Database) {
    for (case, statement) in poison(&db).iter().enumerate() {
        // The unreadable one is due first.
        let bad = db.accept("poison", NOW - Duration::from_secs(10)).await.saga.order.id;
        db.back_door.execute(statement).await.unwrap();
        let good = db.accept("alice", NOW).await.saga.order.id;
        let claimed = db.store.claim_due(NOW + LEASE, LEASE, 1).await.unwrap();
        let claimed = if claimed.is_empty() { db.store.claim_due(NOW + LEASE, LEASE, 1).await.unwrap() } else { claimed };
        assert_eq!(claimed.iter().map(|claimed| claimed.saga.order.id).collect::<Vec<_>>(), [good], "{statement}");
        let quarantined = db.store.quarantined(10).await.unwrap();
        assert_eq!(quarantined.len(), case + 1, "{statement}: {quarantined:?}");
        assert!(quarantined.iter().any(|entry| entry.order_id == bad), "{statement}: {quarantined:?}");
        assert_eq!(db.store.stats(NOW).await.unwrap().quarantined, case as u64 + 1);
        // It is not claimed again and again.
        assert_eq!(db.store.claim_due(NOW + 3 * LEASE, LEASE, 10).await.unwrap().len(), 1, "{statement}");
        db.store.stuck(NOW + LEASE, 1, 100).await.unwrap();
    }
}

async fn repaired_order_leaves_quarantine(db: Database) {
    let id = db.accept("poison", NOW).await.saga.order.id;
    db.back_door.execute("UPDATE orders SET attempts = 5000000000").await.unwrap();
    assert!(db.store.claim_due(NOW + LEASE, LEASE, 10).await.unwrap().is_empty());
    assert_eq!(db.store.quarantined(10).await.unwrap().len(), 1);
    db.back_door.execute("UPDATE orders SET attempts = 1").await.unwrap();
    assert!(db.store.retry_now(id, NOW).await.unwrap());
    assert_eq!(db.store.claim_due(NOW, LEASE, 10).await.unwrap()[0].saga.order.id, id);
    assert!(db.store.quarantined(10).await.unwrap().is_empty());
}

async fn unreadable_event_is_dead_lettered(db: Database) {
    let bad = db.accept("poison", NOW).await.saga.order.id;
    let far = unreadable_time(&db);
    db.back_door.execute(&format!("UPDATE outbox SET created_at = {far}")).await.unwrap();
    let good = db.accept("alice", NOW).await.saga.order.id;
    for _ in 0..2 {
        let events = db.store.unpublished(10).await.unwrap();
        assert_eq!(events.iter().map(|event| event.order_id).collect::<Vec<_>>(), [good]);
    }
    let dead = db.store.dead_events(10).await.unwrap();
    assert_eq!((dead.len(), dead[0].event.order_id), (1, bad));
    assert!(dead[0].reason.starts_with("unreadable"), "{}", dead[0].reason);
}

async fn list_leaves_out_unreadable_orders(db: Database) {
    let mut ids = Vec::new();
    for second in 0..5 {
        ids.push(db.accept("alice", NOW + Duration::from_secs(second)).await.saga.order.id);
    }
    let far = unreadable_time(&db);
    for bad in [ids.remove(3), ids.remove(1)] {
        force(&db, bad, &format!("updated_at = {far}")).await;
    }
    let mut listed = list_one_by_one(&db).await;
    listed.reverse();
    assert_eq!(listed, ids);
}

/// Literal of a time that is beyond the range of the service.
fn unreadable_time(db: &Database) -> &'static str {
    if matches!(db.back_door, BackDoor::Sqlite { .. }) { "9223372036854775807" } else { "'infinity'" }
}

/// Lists the orders of alice by pages of one.
async fn list_one_by_one(db: &Database) -> Vec<OrderId> {
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = db.store.list(List { user_id: Some("alice".into()), limit: 1, after, ..List::default() }).await.unwrap();
        listed.extend(page.orders.iter().map(|order| order.id));
        after = page.next;
        if after.is_none() {
            return listed;
        }
    }
}

/// Creates an order of `user` and completes it.
async fn complete(db: &Database, user: &'static str) -> OrderId {
    let id = db.confirm(&db.accept(user, NOW).await, NOW).await.saga.order.id;
    db.store.set_status(id, Status::Completed, admin(), any(), NOW).await.unwrap();
    id
}

/// Changes order `id` past the guards of the schema.
async fn force(db: &Database, id: OrderId, change: &str) {
    let (guards, id) = match db.back_door {
        BackDoor::Sqlite { .. } => {
            ("DROP TRIGGER IF EXISTS guard_order; DROP TRIGGER IF EXISTS guard_owner;", format!("x'{}'", id.as_uuid().simple()))
        }
        BackDoor::Postgres { .. } => ("ALTER TABLE orders DISABLE TRIGGER USER;", format!("'{id}'")),
    };
    db.back_door.execute(&format!("{guards} UPDATE orders SET {change} WHERE id = {id}")).await.unwrap();
}

async fn unreadable_times_hide_no_order(db: Database) {
    let far = unreadable_time(&db);
    let good = complete(&db, "alice").await;
    for column in ["created_at", "created_at", "deleted_at"] {
        let bad = complete(&db, "alice").await;
        force(&db, bad, &format!("{column} = {far}")).await;
        assert!(db.store.find(bad).await.is_err(), "{column}");
    }
    let listed = list_one_by_one(&db).await;
    assert_eq!(listed, [good]);
    db.back_door.execute("DELETE FROM fulfilments; UPDATE outbox SET published_at = created_at").await.unwrap();
    let settled = db.store.settled_orders(Status::Completed, NOW + LEASE, None, 10).await.unwrap();
    assert_eq!(settled.orders.iter().map(|order| order.order.id).collect::<Vec<_>>(), [good]);
}

async fn unreadable_fulfilment_does_not_block_the_others(db: Database) {
    let (bad, good) = (complete(&db, "poison").await, complete(&db, "alice").await);
    let owner = if matches!(db.back_door, BackDoor::Sqlite { .. }) { "'a' || char(10)" } else { "'a' || chr(10)" };
    force(&db, bad, &format!("user_id = {owner}")).await;
    db.back_door.execute("UPDATE fulfilments SET attempts = 9223372036854775807").await.unwrap();
    let claim = async |at| {
        let due = db.store.claim_fulfilments(at, LEASE, 10).await.unwrap();
        due.into_iter().map(|due| (due.order_id, due.attempts)).collect::<Vec<_>>()
    };
    assert_eq!(claim(NOW).await, [(good, u32::MAX)]);
    assert_eq!(db.store.quarantined(10).await.unwrap()[0].order_id, bad);
    assert_eq!(claim(NOW + LEASE).await, [(good, u32::MAX)], "the unreadable one is not claimed again");
    force(&db, bad, "user_id = 'poison'").await;
    assert!(db.store.retry_now(bad, NOW).await.unwrap());
    assert_eq!(claim(NOW).await, [(bad, 1)]);
}

async fn lease_of_a_running_saga_is_extended(db: Database) {
    let claimed = db.accept("alice", NOW).await;
    let id = claimed.saga.order.id;
    assert!(db.store.extend_lease(id, claimed.fence, NOW + 2 * LEASE).await.unwrap());
    assert!(db.store.claim_due(NOW + LEASE, LEASE, 10).await.unwrap().is_empty());
    assert_eq!(db.store.claim_due(NOW + 2 * LEASE, LEASE, 10).await.unwrap().len(), 1);
    assert!(!db.store.extend_lease(id, claimed.fence, NOW + 9 * LEASE).await.unwrap(), "the lease is lost");
    let other = db.accept("bob", NOW).await;
    db.confirm(&other, NOW).await;
    assert!(!db.store.extend_lease(other.saga.order.id, other.fence, NOW + LEASE).await.unwrap(), "the order is finished");
}

async fn newer_schema_is_tolerated(db: Database) {
    let literal = if matches!(db.back_door, BackDoor::Sqlite { .. }) { ("1", "x'00'") } else { ("TRUE", "'\\x00'") };
    let newer = format!(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'next release', {}, {}, 1);
         ALTER TABLE orders ADD COLUMN of_the_next_release TEXT",
        literal.0, literal.1
    );
    db.back_door.execute(&newer).await.unwrap();
    db.store.migrate().await.unwrap();
    db.store.ping().await.unwrap();
    db.confirm(&db.accept("alice", NOW).await, NOW).await;
}

async fn unreadable_status_does_not_end_an_audit(db: Database) {
    let (bad, good) = (db.accept("poison", NOW).await.saga.order.id, db.accept("alice", NOW).await.saga.order.id);
    let lose = match db.back_door {
        BackDoor::Sqlite { .. } => {
            "PRAGMA ignore_check_constraints = ON; DROP TRIGGER guard_order;
             UPDATE orders SET status = 'LOST' WHERE user_id = 'poison'; PRAGMA ignore_check_constraints = OFF"
        }
        BackDoor::Postgres { .. } => {
            "ALTER TABLE orders DISABLE TRIGGER ALL; ALTER TABLE orders DROP CONSTRAINT orders_status_check;
             UPDATE orders SET status = 'LOST', due_at = NULL WHERE user_id = 'poison'"
        }
    };
    db.back_door.execute(lose).await.unwrap();
    let statuses = db.store.saga_statuses(vec![bad, good]).await.unwrap();
    let mut statuses: Vec<_> = statuses.into_iter().map(|status| (status.order_id == bad, status.status)).collect();
    statuses.sort();
    assert_eq!(statuses, [(false, Some(Status::Pending)), (true, None)]);
}

async fn unreadable_rows_do_not_hide_the_lists_of_operators(db: Database) {
    for _ in 0..2 {
        db.accept("alice", NOW).await;
    }
    let events = db.store.unpublished(10).await.unwrap();
    db.store.mark_rejected(events.iter().map(|event| (event.id, "too large".to_owned())).collect(), 1, NOW).await.unwrap();
    let (far, recent) = match db.back_door {
        BackDoor::Sqlite { .. } => ("9223372036854775807", "0"),
        BackDoor::Postgres { .. } => ("'infinity'", "'1970-01-01'"),
    };
    for sql in [
        format!("UPDATE outbox SET dead_at = {far} WHERE position = (SELECT min(position) FROM outbox)"),
        format!("INSERT INTO quarantined_orders (order_id, reason, since) SELECT id, 'because', {far} FROM orders"),
        format!("UPDATE quarantined_orders SET since = {recent} WHERE order_id = (SELECT order_id FROM quarantined_orders LIMIT 1)"),
    ] {
        db.back_door.execute(&sql).await.unwrap();
    }
    let dead = db.store.dead_events(10).await.unwrap();
    assert_eq!(dead.iter().map(|dead| dead.event.id).collect::<Vec<_>>(), [events[1].id]);
    assert_eq!(db.store.quarantined(10).await.unwrap().len(), 1);
}

async fn expired_keys_are_deleted_in_batches(db: Database) {
    use palisade_orders::store::{Create, KEY_LIFETIME, Overdue, PastRetention};
    for n in 0..5 {
        let key = Some(crate::database::key("alice", &n.to_string()));
        db.store.create(Create { key, ..create("alice", NOW) }, NOW).await.unwrap();
    }
    let later = NOW + KEY_LIFETIME;
    let past = PastRetention { events: NOW, failed: NOW, ended: NOW };
    assert_eq!(db.store.overdue(later, past).await.unwrap(), Overdue { keys: 5, events: 0, orders: 0 });
    for expected in [2, 2, 1, 0] {
        assert_eq!(db.store.delete_expired_keys(later, 2).await.unwrap(), expected);
    }
    assert_eq!(db.store.overdue(later, past).await.unwrap(), Overdue { keys: 0, events: 0, orders: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn only_process_takes_over_the_leases_of_a_dead_one() {
    let Database { store: dead, back_door: BackDoor::Sqlite { _directory: directory, .. } } = Database::sqlite().await else {
        panic!("not SQLite")
    };
    let url = format!("sqlite://{}/orders.db", directory.path().display());
    dead.take_over(NOW).await.unwrap();
    let Ok(palisade_orders::store::CreateResult::Created(claimed)) = dead.create(create("alice", NOW), NOW).await else {
        panic!("the order was not created")
    };
    // While the other process lives, its leases are in force.
    let next = SqliteStore::new(&url).unwrap();
    assert_eq!(palisade_orders::store::Maintenance::take_over(&next, NOW).await.unwrap(), 0);
    assert!(next.claim_due(NOW, LEASE, 10).await.unwrap().is_empty());
    drop(dead);
    assert_eq!(palisade_orders::store::Maintenance::take_over(&next, NOW).await.unwrap(), 1);
    let taken = next.claim_due(NOW, LEASE, 10).await.unwrap();
    assert_eq!((taken[0].saga.order.id, taken[0].fence), (claimed.saga.order.id, claimed.fence + 1));
}
