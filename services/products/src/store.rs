//! Product store: four roles, implemented for MongoDB and SQLite, with one test suite for both.

mod database;
mod instrumented;
mod mongo;
mod roles;
mod sqlite;

pub use self::{
    database::{Error, Reconnect},
    instrumented::InstrumentedStore,
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

/// Whether `url` is a connection string of a supported store. Does not connect.
pub fn is_supported_url(url: &str) -> bool {
    match url.split_once("://") {
        Some(("mongodb" | "mongodb+srv", _)) => MongoStore::is_valid_url(url),
        Some(("sqlite", path)) => !path.is_empty(),
        _ => false,
    }
}
