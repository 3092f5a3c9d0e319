//! Test fixture: a fresh store, direct access to its database, and sample orders.

use std::{sync::Arc, time::Duration};

use palisade_middleware::{auth::Subject, preconditions::VersionPreconditions, store_instrumentation};
use palisade_orders::{
    order::{Actor, FailureReason, HeldLine, NewOrder, Order, OrderId, Priced, ProductSnapshot, Role, Status},
    saga::Transition,
    store::{Claimed, Create, CreateResult, IdempotencyKey, PostgresStore, SqliteStore, Store, StoredResponse, TransitionResult},
};
use palisade_tests::servers;
use sqlx::{AssertSqlSafe, PgPool, SqlitePool};
use tempfile::TempDir;
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

/// Start time of the suite.
pub(crate) const NOW: OffsetDateTime = datetime!(2026-11-22 12:00:00.123 UTC);
pub(crate) const LEASE: Duration = Duration::from_secs(10);
pub(crate) const DEADLINE: Duration = Duration::from_mins(10);

/// Accepts any version.
pub(crate) fn any() -> VersionPreconditions {
    VersionPreconditions::default()
}

/// The user alice, who calls through the gateway.
pub(crate) fn owner() -> Actor {
    Actor { role: Role::Owner, subject: Some("alice".into()), service: Some("gateway".into()) }
}

/// An administrator, who calls directly.
pub(crate) fn admin() -> Actor {
    Actor { role: Role::Admin, subject: Some("root".into()), service: None }
}

#[derive(Clone)]
pub(crate) struct Database {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) back_door: BackDoor,
}

/// Direct SQL access that bypasses the store.
#[derive(Clone)]
pub(crate) enum BackDoor {
    Sqlite { pool: SqlitePool, _directory: Arc<TempDir> },
    Postgres { pool: PgPool },
}

impl Database {
    pub(crate) async fn sqlite() -> Self {
        let directory = TempDir::new().unwrap();
        let url = format!("sqlite://{}/orders.db", directory.path().display());
        let store: Arc<dyn Store> = Arc::new(SqliteStore::new(&url).unwrap());
        store.migrate().await.unwrap();
        let pool = SqlitePool::connect(&url).await.unwrap();
        Self { store, back_door: BackDoor::Sqlite { pool, _directory: Arc::new(directory) } }
    }

    pub(crate) async fn postgres() -> Self {
        let url = fresh_postgres();
        let store: Arc<dyn Store> = Arc::new(PostgresStore::new(&url, 4).unwrap());
        store.migrate().await.unwrap();
        let pool = PgPool::connect(&url).await.unwrap();
        Self { store, back_door: BackDoor::Postgres { pool } }
    }

    pub(crate) async fn accept(&self, user: impl Into<Subject>, now: OffsetDateTime) -> Claimed {
        match self.store.create(create(user, now), now).await.unwrap() {
            CreateResult::Created(claimed) => claimed,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn reserve(&self, claimed: &Claimed, now: OffsetDateTime) -> Claimed {
        self.apply(claimed, reserved(&claimed.saga.order), now).await
    }

    pub(crate) async fn confirm(&self, claimed: &Claimed, now: OffsetDateTime) -> Claimed {
        let reserved = self.reserve(claimed, now).await;
        self.apply(&reserved, confirmed(), now).await
    }

    pub(crate) async fn apply(&self, claimed: &Claimed, transition: Transition, now: OffsetDateTime) -> Claimed {
        match self.store.transition(claimed.clone(), vec![transition], None, now).await.unwrap() {
            TransitionResult::Applied(claimed) => claimed,
            TransitionResult::Fenced(order) => panic!("fenced: {order:?}"),
        }
    }

    pub(crate) async fn find(&self, id: OrderId) -> Order {
        self.store.find(id).await.unwrap().unwrap()
    }

    /// Asserts that all invariants hold.
    pub(crate) async fn assert_invariants(&self, now: OffsetDateTime) {
        assert_eq!(self.store.audit(now, Duration::from_hours(1), None).await.unwrap().findings, []);
    }
}

impl BackDoor {
    pub(crate) async fn execute(&self, sql: &str) -> Result<u64, sqlx::Error> {
        match self {
            Self::Sqlite { pool, .. } => Ok(sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await?.rows_affected()),
            Self::Postgres { pool } => Ok(sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await?.rows_affected()),
        }
    }

    pub(crate) async fn count(&self, table: &str) -> i64 {
        let sql = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        match self {
            Self::Sqlite { pool, .. } => sqlx::query_scalar(sql).fetch_one(pool).await.unwrap(),
            Self::Postgres { pool } => sqlx::query_scalar(sql).fetch_one(pool).await.unwrap(),
        }
    }

    pub(crate) async fn pairs(&self, sql: &str) -> Vec<(String, String)> {
        match self {
            Self::Sqlite { pool, .. } => sqlx::query_as(AssertSqlSafe(sql)).fetch_all(pool).await.unwrap(),
            Self::Postgres { pool } => sqlx::query_as(AssertSqlSafe(sql)).fetch_all(pool).await.unwrap(),
        }
    }
}

/// Connection string of a new, exclusive database.
pub(crate) fn fresh_postgres() -> String {
    servers::shared_postgres().url(&format!("orders_{}", Uuid::new_v4().simple()))
}

/// Database attributes for telemetry, where their values are irrelevant.
pub(crate) fn database_attributes() -> store_instrumentation::Database {
    store_instrumentation::Database { system: "test", namespace: "test".into(), server: None }
}

pub(crate) fn new_order(user: impl Into<Subject>) -> NewOrder {
    let (first, second) = (Uuid::from_u128(2).to_string(), Uuid::from_u128(1).to_string());
    NewOrder::new(user, &[(&first, 3), (&second, 1)]).unwrap()
}

pub(crate) fn create(user: impl Into<Subject>, now: OffsetDateTime) -> Create {
    let user: Subject = user.into();
    Create {
        id: OrderId::generate(now),
        order: new_order(user.clone()),
        by: Actor { subject: Some(user), ..owner() },
        lease: LEASE,
        deadline: now + DEADLINE,
        trace_parent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        key: None,
        is_retry: false,
    }
}

pub(crate) fn key(subject: &'static str, key: &str) -> IdempotencyKey {
    IdempotencyKey { subject: subject.into(), key: key.into(), fingerprint: [7; 32] }
}

pub(crate) fn stored_response(key: &IdempotencyKey, text: &str) -> StoredResponse {
    StoredResponse { key: key.clone(), bytes: text.into() }
}

/// Transition that the saga records when products has reserved the lines at 1.50 each.
pub(crate) fn reserved(order: &Order) -> Transition {
    let held = |line: &palisade_orders::order::Line| HeldLine {
        product_id: line.product_id,
        quantity: line.quantity,
        snapshot: ProductSnapshot { name: format!("Ünï {}", line.product_id.as_u128()), unit_price_minor: 150 },
    };
    let held: Vec<HeldLine> = order.lines.iter().map(held).collect();
    let priced = Priced::new(&order.lines, &held).unwrap();
    Transition { from: Status::Pending, to: Status::ProductReserved, reason: None, priced: Some(priced), release: false }
}

pub(crate) fn confirmed() -> Transition {
    Transition { from: Status::ProductReserved, to: Status::Confirmed, reason: None, priced: None, release: false }
}

pub(crate) fn failed(reason: FailureReason, release: bool) -> Transition {
    Transition { from: Status::Pending, to: Status::Failed, reason: Some(reason), priced: None, release }
}
