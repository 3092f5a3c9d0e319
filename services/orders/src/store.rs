//! Order store: seven roles, implemented for PostgreSQL and SQLite, with one test suite for both.
//! Every method is one atomic step.

mod batches;
mod change;
mod database;
mod erasure;
mod fulfilment_queue;
mod instrumented;
mod maintenance;
mod orders;
mod outbox;
mod postgres;
mod queries;
mod retention;
mod revisions;
mod saga_queue;
mod sqlite;

pub(crate) use self::database::{CHANGES, CREATES, UNREADABLE};
pub use self::{
    database::Error,
    erasure::{ErasedKeys, ErasedOrders, ErasureStore},
    fulfilment_queue::{DueFulfilment, FulfilmentQueue},
    instrumented::InstrumentedStore,
    maintenance::{Audit, ConfirmedOrder, Finding, Invariant, Maintenance, Overdue, PastRetention, SagaStatus, Stats},
    orders::{Claimed, Create, CreateResult, IdempotencyKey, KEY_LIFETIME, OrderStore, RemoveResult, SetStatusResult, StoredResponse},
    outbox::{DeadEvent, Event, OutboxStore, Redriven, redrive_all},
    postgres::PostgresStore,
    queries::{List, Page, Position},
    retention::{RecordedChange, RetentionStore, SettledOrder, SettledPage, SettledPosition},
    revisions::RequestRevisionResult,
    saga_queue::{QuarantinedOrder, SagaQueue, StuckOrder, TransitionResult},
    sqlite::SqliteStore,
};

/// Store in all its roles: orders, their history, idempotency keys and the outbox.
pub trait Store: OrderStore + SagaQueue + FulfilmentQueue + OutboxStore + RetentionStore + ErasureStore + Maintenance {}

impl<S: OrderStore + SagaQueue + FulfilmentQueue + OutboxStore + RetentionStore + ErasureStore + Maintenance> Store for S {}

/// Whether `url` is a valid connection string of a supported store. Does not connect.
pub fn is_supported_url(url: &str) -> bool {
    match url.split_once("://") {
        Some(("postgres" | "postgresql", _)) => PostgresStore::is_valid_url(url),
        Some(("sqlite", path)) => !path.is_empty(),
        _ => false,
    }
}
