//! Store instrumentation: timeout, metrics and spans for database calls, by the OpenTelemetry
//! semantic conventions 1.45.
//!
//! Calls run to completion after cancellation, so that a disconnecting client never interrupts a
//! write. The timeout ensures that an unresponsive database never blocks a caller forever.

mod call;
mod counted_pool;
mod pool;

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::time::timeout;

use self::call::{Call, Series};
use palisade_resilience::task;

pub(crate) use pool::scope_call_facts;

pub use counted_pool::{CheckedOut, CheckoutCounter};
pub use pool::{AcquireTimer, PoolMetrics, note_status_code};

/// Database attributes of the semantic conventions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// `db.system.name`: `postgresql`, `mongodb`, `sqlite`.
    pub system: &'static str,
    /// `db.namespace`: the name of the database, or of its file.
    pub namespace: Arc<str>,
    /// `server.address` and `server.port`. `None` without a server or with several.
    pub server: Option<(Arc<str>, u16)>,
}

/// Operation (`db.operation.name`) on a collection (`db.collection.name`). Both are labels, so
/// their values must be bounded by code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Operation {
    name: &'static str,
    collection: &'static str,
}

/// Error type of a store.
pub trait StoreError: Send + 'static {
    /// Creates the error for a call that timed out.
    fn timeout() -> Self;

    /// `error.type`: one word of a bounded set.
    fn kind(&self) -> &'static str;
}

/// Instrumented calls of one store.
///
/// ```
/// use std::time::Duration;
/// use palisade_middleware::store_instrumentation::{Database, InstrumentedCalls, Operation};
/// # use palisade_middleware::store_instrumentation::StoreError;
/// # #[derive(Debug)] struct Failed;
/// # impl StoreError for Failed {
/// #     fn timeout() -> Self { Self }
/// #     fn kind(&self) -> &'static str { "failed" }
/// # }
/// # tokio_test::block_on(async {
/// const FIND: Operation = Operation::new("find", "orders");
/// let database = Database { system: "sqlite", namespace: "orders.db".into(), server: None };
/// let calls = InstrumentedCalls::new(database, &[FIND]);
/// let query = async { Ok::<_, Failed>("an order") };
/// assert_eq!(calls.run(FIND, Duration::from_secs(1), query).await.unwrap(), "an order");
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct InstrumentedCalls(Arc<Series>);

impl Operation {
    /// Creates the operation `name` on `collection`. Empty if it has no specific collection.
    pub const fn new(name: &'static str, collection: &'static str) -> Self {
        Self { name, collection }
    }
}

/// Span name.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if self.collection.is_empty() { Ok(()) } else { write!(f, " {}", self.collection) }
    }
}

impl InstrumentedCalls {
    /// Creates the calls of `database`. Registers the series of `expected` at zero, because
    /// `rate()` misses the first increment of a series that starts with it.
    pub fn new(database: Database, expected: &[Operation]) -> Self {
        let series = Series::new(database);
        for operation in expected {
            series.duration(*operation, "");
        }
        Self(Arc::new(series))
    }

    /// Runs `work` with the timeout `limit`. It runs to completion even if the returned future is
    /// dropped.
    pub fn run<T, E>(
        &self,
        operation: Operation,
        limit: Duration,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> impl Future<Output = Result<T, E>> + Send
    where
        T: Send + 'static,
        E: StoreError,
    {
        self.run_boxed(operation, limit, Box::pin(work))
    }

    /// Compiled once per result, not per statement.
    async fn run_boxed<T, E>(
        &self,
        operation: Operation,
        limit: Duration,
        work: Pin<Box<dyn Future<Output = Result<T, E>> + Send>>,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: StoreError,
    {
        let call = Call::start_span(self.0.clone(), operation);
        let work = timeout(limit, work);
        let measured = async move {
            let outcome = work.await.unwrap_or_else(|_elapsed| Err(E::timeout()));
            call.end(outcome.as_ref().map_or_else(E::kind, |_| ""));
            outcome
        };
        task::run_to_completion(scope_call_facts(measured)).await
    }
}

#[cfg(test)]
mod tests;
