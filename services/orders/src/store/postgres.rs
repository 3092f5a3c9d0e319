//! PostgreSQL order store. Every write is one statement: it is atomic, needs one round trip, and
//! leaves no transaction open when its caller is cancelled.

use std::{future::Future, str::FromStr, time::Duration};

use async_trait::async_trait;
use palisade_middleware::store_instrumentation::{self, CheckoutCounter, Database};
use sqlx::{
    Connection, Postgres,
    error::DatabaseError,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use time::OffsetDateTime;
use url::Url;
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

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// Maximum number of attempts for a statement that fails because of a concurrent one.
const MAX_ATTEMPTS: usize = 3;
/// Maximum idle time up to which a pooled connection is used without a ping.
const MAX_IDLE_WITHOUT_PING: Duration = Duration::from_millis(500);

/// PostgreSQL order store.
#[derive(Debug)]
pub struct PostgresStore {
    options: PgConnectOptions,
    pool: Pool<Postgres>,
}

impl PostgresStore {
    /// Whether `url` is valid and names a host.
    pub(super) fn is_valid_url(url: &str) -> bool {
        // `sqlx` treats a URL without a host as local; here it is most likely a mistake.
        Url::parse(url).is_ok_and(|url| url.has_host()) && PgConnectOptions::from_str(url).is_ok()
    }

    /// Creates a store for the database at `url` with up to `max_connections` connections. Connects
    /// on first use, because the server may be down. Must be called within a Tokio runtime.
    pub fn new(url: &str, max_connections: u32) -> Result<Self, Error> {
        let options = PgConnectOptions::from_str(url)?.application_name("palisade-orders");
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .min_connections(max_connections.min(2))
            .acquire_timeout(Duration::from_secs(1))
            .idle_timeout(Duration::from_mins(5))
            .max_lifetime(Duration::from_mins(15))
            // By default `sqlx` pings before each checkout, which adds a round trip to every
            // statement. Only a connection that was idle for a while may have lost its server.
            .test_before_acquire(false)
            .before_acquire(|connection, about| {
                Box::pin(async move {
                    if about.idle_for > MAX_IDLE_WITHOUT_PING {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options.clone().options([
                // Server-side limits, in case the client's timeouts miss a statement.
                ("statement_timeout", "2s"),
                ("lock_timeout", "1s"),
                ("idle_in_transaction_session_timeout", "3s"),
                ("client_connection_check_interval", "1s"),
                ("TimeZone", "UTC"),
            ]));
        let counted = pool.clone();
        let checkouts =
            CheckoutCounter::new(store_instrumentation::PoolMetrics::new("orders-postgresql", max_connections), move || counted.size());
        Ok(Self { options, pool: Pool::new(pool, checkouts) })
    }

    /// Returns the database attributes for telemetry, after OpenTelemetry semantic conventions.
    pub fn database(&self) -> Database {
        // PostgreSQL uses the user name as default database name.
        let name = self.options.get_database().unwrap_or_else(|| self.options.get_username());
        let server = Some((self.options.get_host().into(), self.options.get_port()));
        Database { system: "postgresql", namespace: name.into(), server }
    }

    /// Retries a write that was aborted by a deadlock or a serialization failure. Such a write has
    /// had no effect.
    async fn with_retries<T, F: Future<Output = Result<T, Error>>>(&self, write: impl Fn() -> F) -> Result<T, Error> {
        for _ in 1..MAX_ATTEMPTS {
            match write().await {
                Err(error) if is_serialization_failure(&error) => {}
                outcome => return outcome,
            }
        }
        write().await
    }
}

fn is_serialization_failure(error: &Error) -> bool {
    let Error::Unavailable(source) = error else { return false };
    let database_error = source.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
    matches!(database_error.and_then(DatabaseError::code).as_deref(), Some("40001" | "40P01"))
}

#[async_trait]
impl Store for PostgresStore {
    async fn migrate(&self) -> Result<(), Error> {
        // A separate connection: a migration may take longer than a request's statement, but must
        // not wait long for a lock.
        let options = self.options.clone().options([("lock_timeout", "2s")]);
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(1)).connect_with(options).await?;
        let outcome = MIGRATIONS.run(&pool).await;
        pool.close().await;
        Ok(outcome?)
    }

    async fn ping(&self) -> Result<(), Error> {
        sqlx::query("SELECT 1").execute(&mut *self.pool.acquire().await?).await?;
        Ok(())
    }

    async fn create(&self, create: Create, now: OffsetDateTime) -> Result<CreateResult, Error> {
        self.with_retries(|| async { create::create(&mut *self.pool.acquire().await?, &create, now).await }).await
    }

    async fn transition(
        &self,
        claimed: &Claimed,
        transition: Transition,
        response: Option<StoredResponse>,
        now: OffsetDateTime,
    ) -> Result<TransitionResult, Error> {
        self.with_retries(|| async {
            change::transition(&mut *self.pool.acquire().await?, claimed, &transition, response.as_ref(), now).await
        })
        .await
    }

    async fn set_status(&self, id: OrderId, to: Status, by: Actor, now: OffsetDateTime) -> Result<SetStatusResult, Error> {
        self.with_retries(|| async { change::set_status(&mut *self.pool.acquire().await?, id, to, by, now).await }).await
    }

    async fn store_response(&self, id: OrderId, response: StoredResponse) -> Result<(), Error> {
        self.with_retries(|| async { create::store_response(&mut *self.pool.acquire().await?, id, &response).await }).await
    }

    async fn find(&self, id: OrderId) -> Result<Option<Order>, Error> {
        read::find(&mut *self.pool.acquire().await?, id).await
    }

    async fn list(&self, list: List) -> Result<Page, Error> {
        read::list(&mut *self.pool.acquire().await?, &list).await
    }

    async fn remove(&self, id: OrderId, now: OffsetDateTime) -> Result<RemoveResult, Error> {
        self.with_retries(|| async { change::remove(&mut *self.pool.acquire().await?, id, now).await }).await
    }

    async fn claim_due(&self, now: OffsetDateTime, lease: Duration, limit: u32) -> Result<Vec<Claimed>, Error> {
        self.with_retries(|| async { leases::claim_due(&mut *self.pool.acquire().await?, now, lease, limit).await }).await
    }

    async fn postpone(&self, id: OrderId, fence: i64, due_at: OffsetDateTime, last_error: &str) -> Result<bool, Error> {
        self.with_retries(|| async { leases::postpone(&mut *self.pool.acquire().await?, id, fence, due_at, last_error).await }).await
    }

    async fn release_done(&self, id: OrderId, fence: i64) -> Result<bool, Error> {
        self.with_retries(|| async { leases::release_done(&mut *self.pool.acquire().await?, id, fence).await }).await
    }

    async fn stuck(&self, unchanged_since: OffsetDateTime, attempts: u32, limit: u32) -> Result<Vec<StuckOrder>, Error> {
        leases::stuck(&mut *self.pool.acquire().await?, unchanged_since, attempts, limit).await
    }

    async fn retry_now(&self, id: OrderId, now: OffsetDateTime) -> Result<bool, Error> {
        self.with_retries(|| async { leases::retry_now(&mut *self.pool.acquire().await?, id, now).await }).await
    }

    async fn expire_creator_lease(&self, id: OrderId, now: OffsetDateTime) -> Result<bool, Error> {
        self.with_retries(|| async { leases::expire_creator_lease(&mut *self.pool.acquire().await?, id, now).await }).await
    }

    async fn history_after(&self, id: OrderId, version: i64) -> Result<Vec<Order>, Error> {
        read::history_after(&mut *self.pool.acquire().await?, id, version).await
    }

    async fn versions(&self, ids: &[OrderId]) -> Result<Vec<(OrderId, i64)>, Error> {
        read::versions(&mut *self.pool.acquire().await?, ids).await
    }

    async fn lease_outbox(&self, relay: Uuid, now: OffsetDateTime, until: OffsetDateTime) -> Result<bool, Error> {
        outbox::lease(&mut *self.pool.acquire().await?, relay, now, until).await
    }

    async fn mark_rejected(&self, events: &[(Uuid, String)], max_attempts: u32, now: OffsetDateTime) -> Result<u64, Error> {
        outbox::mark_rejected(&mut *self.pool.acquire().await?, events, max_attempts, now).await
    }

    async fn dead_events(&self, limit: u32) -> Result<Vec<DeadEvent>, Error> {
        outbox::dead_events(&mut *self.pool.acquire().await?, limit).await
    }

    async fn redrive(&self) -> Result<u64, Error> {
        outbox::redrive(&mut *self.pool.acquire().await?).await
    }

    async fn unpublished(&self, limit: u32) -> Result<Vec<Event>, Error> {
        outbox::unpublished(&mut *self.pool.acquire().await?, limit).await
    }

    async fn mark_published(&self, events: &[Uuid], now: OffsetDateTime) -> Result<(), Error> {
        self.with_retries(|| async { outbox::mark_published(&mut *self.pool.acquire().await?, events, now).await }).await
    }

    async fn prune_published(&self, before: OffsetDateTime) -> Result<u64, Error> {
        self.with_retries(|| async { outbox::prune_published(&mut *self.pool.acquire().await?, before).await }).await
    }

    async fn delete_expired_keys(&self, now: OffsetDateTime) -> Result<u64, Error> {
        self.with_retries(|| async { create::delete_expired_keys(&mut *self.pool.acquire().await?, now).await }).await
    }

    async fn audit(&self, now: OffsetDateTime, overdue_after: Duration, since: Option<OffsetDateTime>) -> Result<Audit, Error> {
        // The only transaction with more than one statement. A cancelled BEGIN may leave the
        // connection within a transaction, where the writes of the next borrower would be lost
        // (sqlx#4393), so the connection is closed after use.
        audit::audit(&mut *self.pool.acquire_and_close().await?, now, overdue_after, since).await
    }

    async fn saga_statuses(&self, ids: &[OrderId]) -> Result<Vec<SagaStatus>, Error> {
        audit::saga_statuses(&mut *self.pool.acquire().await?, ids).await
    }

    async fn stats(&self, now: OffsetDateTime) -> Result<Stats, Error> {
        audit::stats(&mut *self.pool.acquire().await?, now).await
    }
}
