//! SQLite order store: one writer and several concurrent readers.

use std::{str::FromStr, sync::Arc, time::Duration};

use async_trait::async_trait;
use palisade_middleware::store_instrumentation::{self, CheckoutCounter, Database};
use sqlx::{
    Connection, Sqlite,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Audit, Claimed, Create, CreateResult, DeadEvent, Error, Event, List, Page, RemoveResult, SagaStatus, SetStatusResult, Stats, Store,
    StoredResponse, StuckOrder, TransitionResult, pool::Pool,
};
use crate::{
    order::{Actor, Order, OrderId, Status},
    saga::Transition,
};

mod audit;
mod change;
mod create;
mod leases;
mod outbox;
mod read;
mod row;
mod timestamp;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// Maximum wait for a connection. Long, because all writes queue for one connection; the timeout of
/// `InstrumentedStore` ends earlier.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Number of read-only connections.
const READERS: u32 = 4;

/// SQLite order store.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Pool<Sqlite>,
    readers: Pool<Sqlite>,
    file: Arc<str>,
}

impl SqliteStore {
    /// Creates a store for the file at `url` (`sqlite://…`), which is created on first use. Must be
    /// called within a Tokio runtime.
    pub fn new(url: &str) -> Result<Self, Error> {
        let options = SqliteConnectOptions::from_str(url)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // An acknowledged write survives a power failure, not only a process crash.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(ACQUIRE_TIMEOUT);
        let pool = |connections| {
            let options = SqlitePoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_TIMEOUT);
            // A file does not disconnect, so a ping before each statement is useless.
            let options = options.test_before_acquire(false);
            // The next borrower must not write into a transaction that a cancelled call left open
            // (sqlx#4393). The ping waits for a rollback that is still queued.
            options.idle_timeout(None).max_lifetime(None).after_release(|connection, _| {
                Box::pin(async move {
                    connection.ping().await?;
                    Ok(!connection.is_in_transaction())
                })
            })
        };
        let file = options.get_filename().file_name().unwrap_or_default().to_string_lossy().into();
        let writer = pool(1).connect_lazy_with(options.clone());
        let readers = pool(READERS).connect_lazy_with(options.pragma("query_only", "ON"));
        let counted = (writer.clone(), readers.clone());
        let checkouts = CheckoutCounter::new(store_instrumentation::PoolMetrics::new("orders-sqlite", 1 + READERS), move || {
            counted.0.size() + counted.1.size()
        });
        Ok(Self { writer: Pool::new(writer, checkouts.clone()), readers: Pool::new(readers, checkouts), file })
    }

    /// Returns the database attributes for telemetry, after OpenTelemetry semantic conventions.
    pub fn database(&self) -> Database {
        Database { system: "sqlite", namespace: self.file.clone(), server: None }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn migrate(&self) -> Result<(), Error> {
        Ok(MIGRATIONS.run(self.writer.uncounted()).await?)
    }

    async fn ping(&self) -> Result<(), Error> {
        sqlx::query("SELECT 1").execute(&mut *self.readers.acquire().await?).await?;
        Ok(())
    }

    async fn create(&self, create: Create, now: OffsetDateTime) -> Result<CreateResult, Error> {
        create::create(&mut *self.writer.acquire().await?, &create, now).await
    }

    async fn transition(
        &self,
        claimed: &Claimed,
        transition: Transition,
        response: Option<StoredResponse>,
        now: OffsetDateTime,
    ) -> Result<TransitionResult, Error> {
        change::transition(&mut *self.writer.acquire().await?, claimed, &transition, response.as_ref(), now).await
    }

    async fn set_status(&self, id: OrderId, to: Status, by: Actor, now: OffsetDateTime) -> Result<SetStatusResult, Error> {
        change::set_status(&mut *self.writer.acquire().await?, id, to, by, now).await
    }

    async fn store_response(&self, id: OrderId, response: StoredResponse) -> Result<(), Error> {
        create::store_response(&mut *self.writer.acquire().await?, id, &response).await
    }

    async fn find(&self, id: OrderId) -> Result<Option<Order>, Error> {
        read::find(&mut *self.readers.acquire().await?, id).await
    }

    async fn list(&self, list: List) -> Result<Page, Error> {
        read::list(&mut *self.readers.acquire().await?, &list).await
    }

    async fn remove(&self, id: OrderId, now: OffsetDateTime) -> Result<RemoveResult, Error> {
        change::remove(&mut *self.writer.acquire().await?, id, now).await
    }

    async fn claim_due(&self, now: OffsetDateTime, lease: Duration, limit: u32) -> Result<Vec<Claimed>, Error> {
        leases::claim_due(&mut *self.writer.acquire().await?, now, lease, limit).await
    }

    async fn postpone(&self, id: OrderId, fence: i64, due_at: OffsetDateTime, last_error: &str) -> Result<bool, Error> {
        leases::postpone(&mut *self.writer.acquire().await?, id, fence, due_at, last_error).await
    }

    async fn release_done(&self, id: OrderId, fence: i64) -> Result<bool, Error> {
        leases::release_done(&mut *self.writer.acquire().await?, id, fence).await
    }

    async fn stuck(&self, unchanged_since: OffsetDateTime, attempts: u32, limit: u32) -> Result<Vec<StuckOrder>, Error> {
        leases::stuck(&mut *self.readers.acquire().await?, unchanged_since, attempts, limit).await
    }

    async fn retry_now(&self, id: OrderId, now: OffsetDateTime) -> Result<bool, Error> {
        leases::retry_now(&mut *self.writer.acquire().await?, id, now).await
    }

    async fn expire_creator_lease(&self, id: OrderId, now: OffsetDateTime) -> Result<bool, Error> {
        leases::expire_creator_lease(&mut *self.writer.acquire().await?, id, now).await
    }

    async fn history_after(&self, id: OrderId, version: i64) -> Result<Vec<Order>, Error> {
        read::history_after(&mut *self.readers.acquire().await?, id, version).await
    }

    async fn versions(&self, ids: &[OrderId]) -> Result<Vec<(OrderId, i64)>, Error> {
        read::versions(&mut *self.readers.acquire().await?, ids).await
    }

    async fn lease_outbox(&self, relay: Uuid, now: OffsetDateTime, until: OffsetDateTime) -> Result<bool, Error> {
        outbox::lease(&mut *self.writer.acquire().await?, relay, now, until).await
    }

    async fn mark_rejected(&self, events: &[(Uuid, String)], max_attempts: u32, now: OffsetDateTime) -> Result<u64, Error> {
        outbox::mark_rejected(&mut *self.writer.acquire().await?, events, max_attempts, now).await
    }

    async fn dead_events(&self, limit: u32) -> Result<Vec<DeadEvent>, Error> {
        outbox::dead_events(&mut *self.readers.acquire().await?, limit).await
    }

    async fn redrive(&self) -> Result<u64, Error> {
        outbox::redrive(&mut *self.writer.acquire().await?).await
    }

    async fn unpublished(&self, limit: u32) -> Result<Vec<Event>, Error> {
        outbox::unpublished(&mut *self.readers.acquire().await?, limit).await
    }

    async fn mark_published(&self, events: &[Uuid], now: OffsetDateTime) -> Result<(), Error> {
        outbox::mark_published(&mut *self.writer.acquire().await?, events, now).await
    }

    async fn prune_published(&self, before: OffsetDateTime) -> Result<u64, Error> {
        outbox::prune_published(&mut *self.writer.acquire().await?, before).await
    }

    async fn delete_expired_keys(&self, now: OffsetDateTime) -> Result<u64, Error> {
        create::delete_expired_keys(&mut *self.writer.acquire().await?, now).await
    }

    async fn audit(&self, now: OffsetDateTime, overdue_after: Duration, since: Option<OffsetDateTime>) -> Result<Audit, Error> {
        audit::audit(&mut *self.readers.acquire().await?, now, overdue_after, since).await
    }

    async fn saga_statuses(&self, ids: &[OrderId]) -> Result<Vec<SagaStatus>, Error> {
        audit::saga_statuses(&mut *self.readers.acquire().await?, ids).await
    }

    async fn stats(&self, now: OffsetDateTime) -> Result<Stats, Error> {
        audit::stats(&mut *self.readers.acquire().await?, now).await
    }
}
