//! Production store on `MongoDB`. Also runs on a standalone server, so it uses no multi-document
//! transactions.
//!
//! A reservation spans several products. It is first recorded as `RESERVING`, then each product is
//! changed by one guarded update that leaves a mark in it, then the reservation is settled. Any
//! executor that finds an unsettled reservation (a repeated call or the sweeper) finishes it: the
//! marks record the completed steps. See [`reservations`] for the steps and [`stock_marks`] for the
//! safety argument.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use mongodb::{
    Client, Collection, Database,
    bson::{Document, doc},
    error::{Error as DriverError, ErrorKind, WriteFailure},
    event::EventHandler,
    options::{Acknowledgment, ClientOptions, ConnectionString, ServerAddress, WriteConcern},
};
use palisade_middleware::store_instrumentation;
use time::OffsetDateTime;
use tokio::sync::OnceCell;
use uuid::Uuid;

use self::{
    documents::{KeyDocument, ProductDocument, ReservationDocument, Stock},
    outbox::RemovedDocument,
    pool::ConnectionTracker,
};
use super::{Audit, Created, Error, IdempotencyKey, PendingChange, Removed, Store, Updated};
use crate::{
    product::{Page, Product, Query, ValidatedProduct},
    reservation::{Confirmed, Lines, Reservation, ReserveOutcome},
};

mod audit;
mod documents;
mod indexes;
mod keys;
mod outbox;
mod pool;
mod products;
mod reservations;
mod stock_marks;
#[cfg(test)]
mod test_store;

/// Server-side time limit of a read (`maxTimeMS`).
const MAX_TIME: Duration = Duration::from_millis(1_500);

/// Database if the connection string names none.
const DEFAULT_DATABASE: &str = "palisade";
/// Port of a host without one.
const DEFAULT_PORT: u16 = 27_017;

/// Product store in a `MongoDB` database.
#[derive(Debug)]
pub struct MongoStore {
    database: Database,
    collections: Collections,
    server: Option<(Arc<str>, u16)>,
    indexes_created: OnceCell<()>,
}

/// Collections. `stock` is a second view of `products`.
#[derive(Debug)]
struct Collections {
    products: Collection<ProductDocument>,
    stock: Collection<Stock>,
    reservations: Collection<ReservationDocument>,
    keys: Collection<KeyDocument>,
    removed: Collection<RemovedDocument>,
    leases: Collection<Document>,
}

impl MongoStore {
    /// Whether `url` is a valid connection string.
    pub(super) fn is_valid_url(url: &str) -> bool {
        ConnectionString::parse(url).is_ok()
    }

    /// Creates the store for a `mongodb://` URL. Connects on first use, so the service starts while
    /// its database is down. Pool and timeout options in the URL override the defaults.
    pub async fn new(url: &str) -> Result<Self, Error> {
        let mut options = ClientOptions::parse(url).await?;
        options.app_name.get_or_insert_with(|| "products".to_owned());
        let connections = ConnectionTracker::new(*options.max_pool_size.get_or_insert(50));
        options.cmap_event_handler = Some(EventHandler::callback(move |event| connections.on_event(event)));
        options.min_pool_size.get_or_insert(2);
        options.max_connecting.get_or_insert(8);
        options.max_idle_time.get_or_insert(Duration::from_mins(5));
        options.connect_timeout.get_or_insert(Duration::from_secs(1));
        options.server_selection_timeout.get_or_insert(Duration::from_secs(1));
        options.heartbeat_freq.get_or_insert(Duration::from_secs(5));
        // Not configurable by the URL: an acknowledged write must survive a crash and a failover.
        let durable = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(Duration::from_secs(2)).build();
        options.write_concern = Some(durable);
        let server = match options.hosts.as_slice() {
            [ServerAddress::Tcp { host, port }] => Some((host.as_str().into(), port.unwrap_or(DEFAULT_PORT))),
            _ => None,
        };
        let client = Client::with_options(options)?;
        let database = client.default_database().unwrap_or_else(|| client.database(DEFAULT_DATABASE));
        let collections = Collections {
            products: database.collection("products"),
            stock: database.collection("products"),
            reservations: database.collection("reservations"),
            keys: database.collection("idempotency_keys"),
            removed: database.collection("removed_products"),
            leases: database.collection("leases"),
        };
        Ok(Self { database, collections, server, indexes_created: OnceCell::new() })
    }

    /// Returns the database attributes of the semantic conventions.
    pub fn database(&self) -> store_instrumentation::Database {
        store_instrumentation::Database { system: "mongodb", namespace: self.database.name().into(), server: self.server.clone() }
    }
}

#[async_trait]
impl Store for MongoStore {
    async fn create(&self, id: Uuid, draft: ValidatedProduct, key: Option<IdempotencyKey>, now: OffsetDateTime) -> Result<Created, Error> {
        keys::create(&self.collections, draft.into_product(id, now), key, now).await
    }

    async fn find(&self, id: Uuid) -> Result<Option<Product>, Error> {
        products::find(&self.collections, id).await
    }

    async fn list(&self, query: Query) -> Result<Page, Error> {
        products::list(&self.collections, &query).await
    }

    async fn update(
        &self,
        id: Uuid,
        draft: ValidatedProduct,
        expected_version: Option<i64>,
        now: OffsetDateTime,
    ) -> Result<Updated, Error> {
        products::update(&self.collections, id, &draft, expected_version, now).await
    }

    async fn remove(&self, id: Uuid, expected_version: Option<i64>, now: OffsetDateTime) -> Result<Removed, Error> {
        products::remove(&self.collections, id, expected_version, now).await
    }

    async fn reserve(&self, id: Uuid, lines: Lines, now: OffsetDateTime, hold_for: Duration) -> Result<ReserveOutcome, Error> {
        reservations::reserve(&self.collections, id, &lines, now, hold_for).await
    }

    async fn confirm(&self, id: Uuid, now: OffsetDateTime) -> Result<Confirmed, Error> {
        reservations::confirm(&self.collections, id, now).await
    }

    async fn release(&self, id: Uuid, now: OffsetDateTime) -> Result<Reservation, Error> {
        reservations::release(&self.collections, id, now).await
    }

    async fn expire_due(&self, now: OffsetDateTime, limit: u32) -> Result<u32, Error> {
        reservations::expire_due(&self.collections, now, limit).await
    }

    async fn delete_expired_keys(&self, now: OffsetDateTime) -> Result<u64, Error> {
        keys::delete_expired(&self.collections, now).await
    }

    async fn list_reservations(&self, after: Option<Uuid>, limit: u32) -> Result<Vec<Reservation>, Error> {
        reservations::list_open(&self.collections, after, limit).await
    }

    async fn lease_relay(&self, relay: Uuid, now: OffsetDateTime, until: OffsetDateTime) -> Result<bool, Error> {
        outbox::lease(&self.collections, relay, now, until).await
    }

    async fn unpublished_changes(&self, limit: u32) -> Result<Vec<PendingChange>, Error> {
        outbox::unpublished(&self.collections, limit).await
    }

    async fn mark_published(&self, news: &[PendingChange]) -> Result<(), Error> {
        outbox::mark_published(&self.collections, news).await
    }

    async fn audit(&self, now: OffsetDateTime) -> Result<Audit, Error> {
        audit::audit(&self.collections, now).await
    }

    /// The first successful ping also creates the indexes: queries work without them, but the
    /// service is not ready before.
    async fn ping(&self) -> Result<(), Error> {
        self.database.run_command(doc! { "ping": 1 }).await?;
        self.indexes_created.get_or_try_init(|| indexes::create(&self.collections)).await?;
        Ok(())
    }
}

impl From<DriverError> for Error {
    fn from(error: DriverError) -> Self {
        /// `MaxTimeMSExpired`
        const MAX_TIME_EXPIRED: i32 = 50;
        match &*error.kind {
            ErrorKind::Command(command) if command.code == MAX_TIME_EXPIRED => Self::Timeout,
            ErrorKind::Bson(_) => Self::Corrupt(error.to_string()),
            _ => Self::Unavailable(Box::new(error)),
        }
    }
}

/// Whether the insert failed because its `_id` exists.
fn is_duplicate(error: &DriverError) -> bool {
    /// `DuplicateKey`
    const DUPLICATE_KEY: i32 = 11_000;
    match &*error.kind {
        ErrorKind::Write(WriteFailure::WriteError(write)) => write.code == DUPLICATE_KEY,
        // From an upsert by `findAndModify`.
        ErrorKind::Command(command) => command.code == DUPLICATE_KEY,
        _ => false,
    }
}
