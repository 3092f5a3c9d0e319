//! Orders in `PostgreSQL`. Every write is one statement: it happens as a whole or not at all, in one round trip, and no transaction
//! is ever left open by a caller that goes away.

use std::{future::Future, str::FromStr, time::Duration};

use async_trait::async_trait;
use palisade_middleware::db::{self, Database, Leases};
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
    Answer, Audit, Claimed, Create, Creation, DeadEvent, Error, Event, List, Page, Removal, Standing, Stats, StatusSet, Store, Stuck,
    Transitioned, pool::Pool,
};
use crate::{
    order::{Actor, Order, OrderId, Status},
    saga::Transition,
};

mod audit;
mod change;
mod create;
mod outbox;
mod read;
mod row;
mod work;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// How often a statement is tried that lost against another one.
const TRIES: usize = 3;
/// How long a connection that rests is taken to be alive without asking.
const TRUSTED: Duration = Duration::from_millis(500);

/// Orders in a `PostgreSQL` database.
#[derive(Debug)]
pub struct PostgresStore {
    options: PgConnectOptions,
    pool: Pool<Postgres>,
}

impl PostgresStore {
    /// Whether `url` names a host and can be read.
    pub(super) fn accepts(url: &str) -> bool {
        // sqlx takes a URL without a host for one of this machine; whoever forgot the host did not mean that.
        Url::parse(url).is_ok_and(|url| url.has_host()) && PgConnectOptions::from_str(url).is_ok()
    }

    /// Uses the database at `url` with up to `max_connections`. Connects when it has to, not now: the server may be down.
    /// Must be called within a runtime.
    pub fn new(url: &str, max_connections: u32) -> Result<Self, Error> {
        let options = PgConnectOptions::from_str(url)?.application_name("palisade-orders");
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .min_connections(max_connections.min(2))
            .acquire_timeout(Duration::from_secs(1))
            .idle_timeout(Duration::from_mins(5))
            .max_lifetime(Duration::from_mins(15))
            // Under load every statement would wait for a ping first. A connection that was at work a moment ago was there then; one that
            // has rested may have lost its server meanwhile.
            .test_before_acquire(false)
            .before_acquire(|connection, about| {
                Box::pin(async move {
                    if about.idle_for > TRUSTED {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options.clone().options([
                // The server's own end to whatever the callers' timeouts missed.
                ("statement_timeout", "2s"),
                ("lock_timeout", "1s"),
                ("idle_in_transaction_session_timeout", "3s"),
                ("client_connection_check_interval", "1s"),
                ("TimeZone", "UTC"),
            ]));
        let counted = pool.clone();
        let leases = Leases::new(db::Pool::new("orders-postgresql", max_connections), move || counted.size());
        Ok(Self { options, pool: Pool::new(pool, leases) })
    }

    /// Where the orders are, in the words of semantic conventions.
    pub fn database(&self) -> Database {
        // Without a name `PostgreSQL` takes the user's.
        let name = self.options.get_database().unwrap_or_else(|| self.options.get_username());
        let server = Some((self.options.get_host().into(), self.options.get_port()));
        Database { system: "postgresql", namespace: name.into(), server }
    }

    /// Runs a write again that was the victim of a deadlock or of serialization: nothing of it happened.
    async fn again<T, F: Future<Output = Result<T, Error>>>(&self, write: impl Fn() -> F) -> Result<T, Error> {
        for _ in 1..TRIES {
            match write().await {
                Err(error) if is_victim(&error) => {}
                outcome => return outcome,
            }
        }
        write().await
    }
}

fn is_victim(error: &Error) -> bool {
    let Error::Unavailable(source) = error else { return false };
    let refusal = source.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
    matches!(refusal.and_then(DatabaseError::code).as_deref(), Some("40001" | "40P01"))
}

#[async_trait]
impl Store for PostgresStore {
    async fn prepare(&self) -> Result<(), Error> {
        // A connection of its own: a migration may take longer than a request's statement, but never wait long for a lock.
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

    async fn create(&self, create: Create, now: OffsetDateTime) -> Result<Creation, Error> {
        self.again(|| async { create::create(&mut *self.pool.acquire().await?, &create, now).await }).await
    }

    async fn transition(
        &self,
        claimed: &Claimed,
        transition: Transition,
        answer: Option<Answer>,
        now: OffsetDateTime,
    ) -> Result<Transitioned, Error> {
        self.again(|| async { change::transition(&mut *self.pool.acquire().await?, claimed, &transition, answer.as_ref(), now).await })
            .await
    }

    async fn set_status(&self, id: OrderId, to: Status, by: Actor, now: OffsetDateTime) -> Result<StatusSet, Error> {
        self.again(|| async { change::set_status(&mut *self.pool.acquire().await?, id, to, by, now).await }).await
    }

    async fn store_answer(&self, id: OrderId, answer: Answer) -> Result<(), Error> {
        self.again(|| async { create::store_answer(&mut *self.pool.acquire().await?, id, &answer).await }).await
    }

    async fn find(&self, id: OrderId) -> Result<Option<Order>, Error> {
        read::find(&mut *self.pool.acquire().await?, id).await
    }

    async fn list(&self, list: List) -> Result<Page, Error> {
        read::list(&mut *self.pool.acquire().await?, &list).await
    }

    async fn remove(&self, id: OrderId, now: OffsetDateTime) -> Result<Removal, Error> {
        self.again(|| async { change::remove(&mut *self.pool.acquire().await?, id, now).await }).await
    }

    async fn claim_due(&self, now: OffsetDateTime, lease: Duration, limit: u32) -> Result<Vec<Claimed>, Error> {
        self.again(|| async { work::claim_due(&mut *self.pool.acquire().await?, now, lease, limit).await }).await
    }

    async fn postpone(&self, id: OrderId, fence: i64, due_at: OffsetDateTime, last_error: &str) -> Result<bool, Error> {
        self.again(|| async { work::postpone(&mut *self.pool.acquire().await?, id, fence, due_at, last_error).await }).await
    }

    async fn release_done(&self, id: OrderId, fence: i64) -> Result<bool, Error> {
        self.again(|| async { work::release_done(&mut *self.pool.acquire().await?, id, fence).await }).await
    }

    async fn stuck(&self, unchanged_since: OffsetDateTime, attempts: u32, limit: u32) -> Result<Vec<Stuck>, Error> {
        work::stuck(&mut *self.pool.acquire().await?, unchanged_since, attempts, limit).await
    }

    async fn retry_now(&self, id: OrderId, now: OffsetDateTime) -> Result<bool, Error> {
        self.again(|| async { work::retry_now(&mut *self.pool.acquire().await?, id, now).await }).await
    }

    async fn take_from_creator(&self, id: OrderId, now: OffsetDateTime) -> Result<bool, Error> {
        self.again(|| async { work::take_from_creator(&mut *self.pool.acquire().await?, id, now).await }).await
    }

    async fn changes(&self, id: OrderId, version: i64) -> Result<Vec<Order>, Error> {
        read::changes(&mut *self.pool.acquire().await?, id, version).await
    }

    async fn versions(&self, ids: &[OrderId]) -> Result<Vec<(OrderId, i64)>, Error> {
        read::versions(&mut *self.pool.acquire().await?, ids).await
    }

    async fn lease_outbox(&self, relay: Uuid, now: OffsetDateTime, until: OffsetDateTime) -> Result<bool, Error> {
        outbox::lease(&mut *self.pool.acquire().await?, relay, now, until).await
    }

    async fn mark_refused(&self, events: &[(Uuid, String)], most: u32, now: OffsetDateTime) -> Result<u64, Error> {
        outbox::mark_refused(&mut *self.pool.acquire().await?, events, most, now).await
    }

    async fn dead_events(&self, limit: u32) -> Result<Vec<DeadEvent>, Error> {
        outbox::dead(&mut *self.pool.acquire().await?, limit).await
    }

    async fn redrive(&self) -> Result<u64, Error> {
        outbox::redrive(&mut *self.pool.acquire().await?).await
    }

    async fn unpublished(&self, limit: u32) -> Result<Vec<Event>, Error> {
        outbox::unpublished(&mut *self.pool.acquire().await?, limit).await
    }

    async fn mark_published(&self, events: &[Uuid], now: OffsetDateTime) -> Result<(), Error> {
        self.again(|| async { outbox::mark_published(&mut *self.pool.acquire().await?, events, now).await }).await
    }

    async fn prune_published(&self, before: OffsetDateTime) -> Result<u64, Error> {
        self.again(|| async { outbox::prune_published(&mut *self.pool.acquire().await?, before).await }).await
    }

    async fn sweep_keys(&self, now: OffsetDateTime) -> Result<u64, Error> {
        self.again(|| async { create::sweep_keys(&mut *self.pool.acquire().await?, now).await }).await
    }

    async fn audit(&self, now: OffsetDateTime, overdue_after: Duration, since: Option<OffsetDateTime>) -> Result<Audit, Error> {
        // The only transaction of more than one statement. A cancelled BEGIN may leave the connection inside of one, where the next
        // borrower's writes would be lost (sqlx#4393): so there is no next borrower.
        audit::audit(&mut *self.pool.acquire_for_once().await?, now, overdue_after, since).await
    }

    async fn standings(&self, ids: &[OrderId]) -> Result<Vec<Standing>, Error> {
        audit::standings(&mut *self.pool.acquire().await?, ids).await
    }

    async fn stats(&self, now: OffsetDateTime) -> Result<Stats, Error> {
        audit::stats(&mut *self.pool.acquire().await?, now).await
    }
}
