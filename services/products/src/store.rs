//! Product store: four roles, implemented for MongoDB and SQLite, with one test suite for both.

mod database;
mod instrumented;
mod mongo;
mod roles;
mod sqlite;

use palisade_middleware::store_instrumentation;

pub(crate) use self::database::{RESERVES, UNREADABLE};
pub use self::{
    database::Error,
    instrumented::{ConnectingStore, InstrumentedStore},
    mongo::MongoStore,
    roles::{
        Audit, CreateOutcome, IdempotencyKey, Imbalance, KEY_TTL, Maintenance, OutboxStore, PendingChange, ProductStore, Quarantined,
        RemoveOutcome, ReservationStore, Stats, UpdateOutcome,
    },
    sqlite::SqliteStore,
};

/// Store in all its roles.
pub trait Store: ProductStore + ReservationStore + OutboxStore + Maintenance {}

impl<S: ProductStore + ReservationStore + OutboxStore + Maintenance> Store for S {}

/// Returns the telemetry attributes of the store at `url`, or `None` if it is no connection string
/// of a supported store. Does not connect.
pub fn database_of(url: &str) -> Option<store_instrumentation::Database> {
    match url.split_once("://") {
        Some(("mongodb" | "mongodb+srv", _)) => MongoStore::database_of(url),
        Some(("sqlite", path)) if !path.is_empty() => SqliteStore::database_of(url),
        _ => None,
    }
}
