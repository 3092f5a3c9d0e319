//! Bytes that an order takes in the database, and that none are left when it is deleted. The
//! figures are those of `docs/scaling.md`.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use palisade_events::Destination;
use palisade_middleware::clock::ManualClock;
use palisade_orders::{
    order::{FailureReason, NewOrder, Status},
    retention::{Lifetimes, Retention},
    store::{Claimed, Create, CreateResult},
};
use uuid::Uuid;

use crate::database::{BackDoor, Database, NOW, admin, any, create, failed, key};

crate::on_both![orders_take_bounded_space_and_none_when_deleted];

const ORDERS: usize = 500;
const DAY: Duration = Duration::from_hours(24);

impl BackDoor {
    /// Bytes of all tables and indexes, without free space.
    async fn bytes(&self) -> i64 {
        let (compact, size) = match self {
            Self::Sqlite { .. } => ("VACUUM", "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"),
            Self::Postgres { .. } => ("VACUUM FULL", "SELECT sum(pg_total_relation_size(relid))::bigint FROM pg_stat_user_tables"),
        };
        self.execute(compact).await.unwrap();
        match self {
            Self::Sqlite { pool, .. } => sqlx::query_scalar(size).fetch_one(pool).await.unwrap(),
            Self::Postgres { pool } => sqlx::query_scalar(size).fetch_one(pool).await.unwrap(),
        }
    }
}

/// Ends an order in the situation to measure.
#[derive(Debug, Clone, Copy)]
enum End {
    Refused,
    Confirmed,
    Completed,
}

/// Creates an order with one line and an idempotency key, and ends it.
async fn order(db: &Database, end: End, n: usize) {
    let order = NewOrder::new("auth0|65f1c2d3e4b5a69788776655", &[(&Uuid::now_v7().to_string(), 1)]).unwrap();
    let key = Some(key("auth0|65f1c2d3e4b5a69788776655", &format!("{end:?}-3f1c2d3e-4b5a-6978-8776-{n:012}")));
    let create = Create { order, key, ..create("alice", NOW) };
    let CreateResult::Created(claimed) = db.store.create(create, NOW).await.unwrap() else { panic!("the key is new") };
    let claimed: Claimed = claimed;
    match end {
        End::Refused => drop(db.apply(&claimed, failed(FailureReason::InsufficientStock, false), NOW).await),
        End::Confirmed => drop(db.confirm(&claimed, NOW).await),
        End::Completed => {
            let id = db.confirm(&claimed, NOW).await.saga.order.id;
            db.store.set_status(id, Status::Completed, admin(), any(), NOW).await.unwrap();
            db.store.fulfilment_done(id).await.unwrap();
        }
    }
}

/// Returns the bytes per order since `before`.
async fn growth(db: &Database, before: i64) -> i64 {
    (db.back_door.bytes().await - before) / i64::try_from(ORDERS).unwrap()
}

async fn orders_take_bounded_space_and_none_when_deleted(db: Database) {
    let empty = db.back_door.bytes().await;
    let later = NOW + DAY * 800;
    let lifetimes = Lifetimes { events: DAY, failed: Some(DAY), ended: Some(DAY) };
    let retention = Retention::new(db.store.clone(), Arc::new(ManualClock::new(later)), lifetimes, None);
    // Confirmed orders stay, so they are last.
    for (end, at_first, later_on) in [(End::Refused, 4_500, 1_500), (End::Completed, 6_500, 2_200), (End::Confirmed, 5_500, 2_000)] {
        join_all((0..ORDERS).map(|n| order(&db, end, n))).await;
        let fresh = growth(&db, empty).await;
        let events: Vec<_> = db.store.unpublished(10_000).await.unwrap().iter().map(|event| event.id).collect();
        db.store.mark_published(events, Destination::InProcess, NOW).await.unwrap();
        while db.store.prune_published(later, 500).await.unwrap() > 0 {}
        while db.store.delete_expired_keys(later, 500).await.unwrap() > 0 {}
        let kept = growth(&db, empty).await;
        retention.clean(|| {}).await.unwrap();
        let left = growth(&db, empty).await;
        eprintln!("{end:?}: {fresh} bytes per order, {kept} without events and key, {left} after its retention");
        assert!(fresh <= at_first && kept <= later_on, "{end:?}: {fresh}, {kept}");
        match end {
            End::Confirmed => assert_eq!(left, kept, "a confirmed order stays"),
            End::Refused | End::Completed => {
                let rows = [db.back_door.count("orders").await, db.back_door.count("order_lines").await];
                assert_eq!((rows, db.back_door.count("order_history").await), ([0, 0], 0));
                // Pages of empty tables.
                assert!(left <= 100, "{end:?}: {left}");
            }
        }
    }
}
