//! PostgreSQL order store. Every write is one statement: it is atomic, needs one round trip, and
//! leaves no transaction open when its caller is cancelled. New orders and status changes are
//! written in batches (group commit).

use std::{borrow::Borrow, future::Future, str::FromStr, sync::Arc, time::Duration};

use palisade_middleware::{
    group_commit::{GroupCommit, Limits},
    store_instrumentation::{self, CheckoutCounter, Database},
};
use palisade_store::{Reconnect, WriteProbe};
use sqlx::{
    Connection, Postgres,
    error::DatabaseError,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use url::Url;

use self::{change_batch::ChangeWriter, create_batch::CreateWriter};
use super::database::{CHANGES, CREATES, Error, Pool};

mod change_batch;
mod create_batch;
mod erasure;
mod fulfilment_queue;
mod list;
mod maintenance;
mod orders;
mod outbox;
mod retention;
mod revisions;
mod row;
mod saga_queue;

/// Maximum number of attempts for a statement that fails because of a concurrent one.
const MAX_ATTEMPTS: usize = 3;
/// Maximum idle time up to which a pooled connection is used without a ping.
const MAX_IDLE_WITHOUT_PING: Duration = Duration::from_millis(500);

/// PostgreSQL order store.
#[derive(Debug)]
pub struct PostgresStore {
    options: PgConnectOptions,
    pool: Arc<Pool<Postgres>>,
    creates: GroupCommit<CreateWriter>,
    changes: GroupCommit<ChangeWriter>,
    reconnect: Reconnect,
    write_probe: WriteProbe,
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
        let reconnect = Reconnect::default();
        let pool_reconnect = reconnect.clone();
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .min_connections(max_connections.min(2))
            .acquire_timeout(Duration::from_secs(1))
            .idle_timeout(Duration::from_mins(5))
            .max_lifetime(Duration::from_mins(15))
            // By default `sqlx` pings before each checkout, which adds a round trip to every
            // statement. Only a connection that was idle for a while may have lost its server.
            .test_before_acquire(false)
            .before_acquire(move |connection, about| {
                let is_current = pool_reconnect.is_current(&about);
                Box::pin(async move {
                    if is_current && about.idle_for > MAX_IDLE_WITHOUT_PING {
                        connection.ping().await?;
                    }
                    Ok(is_current)
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
        let measured = pool.clone();
        let checkouts =
            CheckoutCounter::new(store_instrumentation::PoolMetrics::new("orders-postgresql", max_connections), move || measured.size());
        let pool = Arc::new(Pool::new(pool, checkouts));
        let creates = GroupCommit::new(CREATES, CreateWriter { pool: pool.clone() }, Limits::DEFAULT);
        let changes = GroupCommit::new(CHANGES, ChangeWriter { pool: pool.clone() }, Limits::DEFAULT);
        Ok(Self { options, pool, creates, changes, reconnect, write_probe: WriteProbe::default() })
    }

    /// Returns the database attributes for telemetry, after OpenTelemetry semantic conventions.
    pub fn database(&self) -> Database {
        // PostgreSQL uses the user name as default database name.
        let name = self.options.get_database().unwrap_or_else(|| self.options.get_username());
        let server = Some((self.options.get_host().into(), self.options.get_port()));
        Database { system: "postgresql", namespace: name.into(), server }
    }

    /// Returns the control of the pooled connections.
    pub fn reconnect(&self) -> Reconnect {
        self.reconnect.clone()
    }

    /// Retries a write that was aborted by a deadlock or a serialization failure.
    async fn with_retries<T, F: Future<Output = Result<T, Error>>>(&self, write: impl Fn() -> F) -> Result<T, Error> {
        with_retries(write).await
    }
}

/// Retries a write that was aborted by a deadlock or a serialization failure. Such a write has had
/// no effect.
async fn with_retries<T, E: Borrow<Error>, F: Future<Output = Result<T, E>>>(write: impl Fn() -> F) -> Result<T, E> {
    for _ in 1..MAX_ATTEMPTS {
        match write().await {
            Err(error) if is_serialization_failure(error.borrow()) => {}
            outcome => return outcome,
        }
    }
    write().await
}

fn is_serialization_failure(error: &Error) -> bool {
    let Error::Unavailable(source) = error else { return false };
    let database_error = source.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
    matches!(database_error.and_then(DatabaseError::code).as_deref(), Some("40001" | "40P01"))
}
