//! Product store: seven roles, implemented for MongoDB and SQLite, with one test suite for both.

mod database;
mod erasure;
mod history_documents;
mod history_role;
mod instrumented;
mod ledger_metrics;
mod ledger_role;
mod mongo;
mod roles;
mod sqlite;

use palisade_middleware::store_instrumentation;

pub use self::{
    database::Error,
    erasure::ErasureStore,
    history_role::HistoryStore,
    instrumented::{ConnectingStore, InstrumentedStore},
    ledger_role::LedgerStore,
    mongo::MongoStore,
    roles::{
        Audit, CreateOutcome, IdempotencyKey, Imbalance, KEY_TTL, Maintenance, OutboxStore, PendingChange, ProductStore, Quarantined,
        RemoveOutcome, ReservationStore, Stats, UpdateOutcome,
    },
    sqlite::SqliteStore,
};
pub(crate) use self::{
    database::{RESERVES, UNREADABLE},
    ledger_metrics::{STOCK_ADJUSTMENTS, register as register_ledger_metrics},
};

/// Store in all its roles.
pub trait Store: ProductStore + HistoryStore + LedgerStore + ReservationStore + OutboxStore + ErasureStore + Maintenance {}

impl<S: ProductStore + HistoryStore + LedgerStore + ReservationStore + OutboxStore + ErasureStore + Maintenance> Store for S {}

/// Returns the telemetry attributes of the store at `url`, or `None` if it is no connection string
/// of a supported store. Does not connect.
pub fn database_of(url: &str) -> Option<store_instrumentation::Database> {
    match url.split_once("://") {
        Some(("mongodb" | "mongodb+srv", _)) => MongoStore::database_of(url),
        Some(("sqlite", path)) if !path.is_empty() => SqliteStore::database_of(url),
        _ => None,
    }
}
