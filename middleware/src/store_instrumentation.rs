//! Calls of a store, each detached from its caller and with an end: one that goes away never cancels a write midway, and a database
//! that never answers never keeps a caller. Measured and traced as semantic conventions 1.45 have it.

mod call;
mod counted_pool;
mod pool;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use tokio::time::timeout;
use tracing::Instrument;

use self::call::{Call, Series};
use crate::task;

pub use counted_pool::{CheckedOut, CheckoutCounter};
pub use pool::{PoolMetrics, AcquireTimer};

/// A database in the words of semantic conventions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// `db.system.name`: `postgresql`, `mongodb`, `sqlite`.
    pub system: &'static str,
    /// `db.namespace`: the name of the database, or of the file that it is.
    pub namespace: Arc<str>,
    /// `server.address` and `server.port`; `None` without a server, and where there are several.
    pub server: Option<(Arc<str>, u16)>,
}

/// What is done (`db.operation.name`) to which collection (`db.collection.name`). Bounded by code: both are labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Operation {
    name: &'static str,
    collection: &'static str,
}

/// What a store's error has to say for itself, and which errors a call that was given up makes.
pub trait StoreError: Send + 'static {
    /// There was no answer in time.
    fn timeout() -> Self;

    /// One word of a bounded set: `error.type`.
    fn kind(&self) -> &'static str;
}

/// The calls of one store.
///
/// ```
/// use std::time::Duration;
/// use palisade_middleware::db::{Calls, Database, Operation};
/// # use palisade_middleware::db::Failure;
/// # #[derive(Debug)] struct Failed;
/// # impl Failure for Failed {
/// #     fn timeout() -> Self { Self }
/// #     fn kind(&self) -> &'static str { "failed" }
/// # }
/// # tokio_test::block_on(async {
/// const FIND: Operation = Operation::new("find", "orders");
/// let database = Database { system: "sqlite", namespace: "orders.db".into(), server: None };
/// let calls = Calls::new(database, &[FIND]);
/// let found = calls.run(FIND, Duration::from_secs(1), async { Ok::<_, Failed>("an order") }).await;
/// assert_eq!(found.unwrap(), "an order");
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct InstrumentedCalls(Arc<Series>);

impl Operation {
    /// `name` on `collection`, which is empty if it is none in particular.
    pub const fn new(name: &'static str, collection: &'static str) -> Self {
        Self { name, collection }
    }
}

/// The span's name.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if self.collection.is_empty() { Ok(()) } else { write!(f, " {}", self.collection) }
    }
}

impl InstrumentedCalls {
    /// Calls of `database`. The series of `expected` are there from the start: a rate sees no call that made its series.
    pub fn new(database: Database, expected: &[Operation]) -> Self {
        let series = Series::new(database);
        for operation in expected {
            series.duration(*operation, "");
        }
        Self(Arc::new(series))
    }

    /// Does `work`, for at most `limit`, to its end even if the returned future is dropped.
    pub async fn run<T, E>(
        &self,
        operation: Operation,
        limit: Duration,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: StoreError,
    {
        let call = Call::start_span(self.0.clone(), operation);
        let span = call.span().clone();
        let work = timeout(limit, pool::scope_acquire_timers(work));
        let measured = async move {
            let outcome = work.await.unwrap_or_else(|_elapsed| Err(E::timeout()));
            call.end(outcome.as_ref().map_or_else(E::kind, |_| ""));
            outcome
        };
        task::run_to_completion(measured.instrument(span)).await
    }
}

#[cfg(test)]
mod tests;
