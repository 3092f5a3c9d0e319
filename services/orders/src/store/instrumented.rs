//! Instrumented store: runs each call in a task of its own, with a timeout, metrics and a span. A
//! cancelled caller never interrupts a write, and an unresponsive database never blocks a caller.

use std::{future::Future, sync::Arc, time::Duration};

use palisade_middleware::store_instrumentation::{Database, InstrumentedCalls, Operation, StoreError};
use palisade_store::Reconnect;

use super::database::Error;
use crate::order::Order;

/// Timeout of calls that read or rewrite everything.
const MAINTENANCE_TIMEOUT: Duration = Duration::from_secs(30);

/// Operations that requests wait for.
const REQUEST_OPERATIONS: [Operation; 9] = [
    Operation::new("create", "orders"),
    Operation::new("transition", "orders"),
    Operation::new("set_status", "orders"),
    Operation::new("request_revision", "orders"),
    Operation::new("store_answer", "idempotency_keys"),
    Operation::new("find", "orders"),
    Operation::new("list", "orders"),
    Operation::new("history", "order_history"),
    Operation::new("remove", "orders"),
];

/// Store decorator: implements the roles of `S` by detached calls with timeouts, metrics and
/// traces.
pub struct InstrumentedStore<S: ?Sized> {
    inner: Arc<S>,
    calls: InstrumentedCalls,
    timeout: Duration,
    on_change: Box<dyn Fn(&Order) + Send + Sync>,
    reconnect: Reconnect,
}

/// Result of a call that may accept or change an order.
pub(super) trait ChangeResult {
    /// Returns the order if it was accepted or changed.
    fn changed_order(&self) -> Option<&Order>;
}

impl<S: ?Sized> InstrumentedStore<S> {
    /// Wraps `inner`, which stores its orders in `database`, with a timeout per call.
    pub fn new(inner: Arc<S>, database: Database, timeout: Duration) -> Self {
        Self {
            inner,
            calls: InstrumentedCalls::new(database, &REQUEST_OPERATIONS),
            timeout,
            on_change: Box::new(|_| {}),
            reconnect: Reconnect::default(),
        }
    }

    /// Sets the listener for orders that are accepted or changed through this store.
    #[must_use]
    pub fn on_change(self, listener: impl Fn(&Order) + Send + Sync + 'static) -> Self {
        Self { on_change: Box::new(listener), ..self }
    }

    /// Sets the control of the connections of the inner store, which are replaced after an error
    /// that breaks them.
    #[must_use]
    pub fn with_reconnect(self, reconnect: Reconnect) -> Self {
        Self { reconnect, ..self }
    }

    fn run<T, F>(
        &self,
        operation: Operation,
        limit: Duration,
        call: impl FnOnce(Arc<S>) -> F,
    ) -> impl Future<Output = Result<T, Error>> + Send
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let reconnect = self.reconnect.clone();
        let call = call(self.inner.clone());
        let observed = async move {
            let result = call.await;
            if result.as_ref().is_err_and(Error::breaks_connections) {
                reconnect.request();
            }
            result
        };
        self.calls.run(operation, limit, observed)
    }

    /// Runs `call` without a timeout.
    pub(super) fn untimed_call<T, F>(
        &self,
        operation: Operation,
        call: impl FnOnce(Arc<S>) -> F,
    ) -> impl Future<Output = Result<T, Error>> + Send
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.run(operation, Duration::MAX, call)
    }

    /// Runs `call` with the configured timeout.
    pub(super) fn call<T, F>(&self, operation: Operation, call: impl FnOnce(Arc<S>) -> F) -> impl Future<Output = Result<T, Error>> + Send
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.run(operation, self.timeout, call)
    }

    /// Runs `call` with the timeout for maintenance.
    pub(super) fn long_call<T, F>(
        &self,
        operation: Operation,
        call: impl FnOnce(Arc<S>) -> F,
    ) -> impl Future<Output = Result<T, Error>> + Send
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.run(operation, MAINTENANCE_TIMEOUT, call)
    }

    /// Runs `call` and passes the order that it changed to the listener.
    pub(super) async fn change<T, F>(&self, operation: Operation, call: impl FnOnce(Arc<S>) -> F) -> Result<T, Error>
    where
        T: ChangeResult + Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let result = self.call(operation, call).await?;
        if let Some(order) = result.changed_order() {
            (self.on_change)(order);
        }
        Ok(result)
    }
}

impl StoreError for Error {
    fn timeout() -> Self {
        Self::Timeout
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Timeout => "timeout",
            Self::Overloaded => "overloaded",
            Self::Corrupt(_) => "corrupt",
        }
    }
}

/// Defines a role of the store and implements it for [`InstrumentedStore`]. Each method names the
/// method of [`InstrumentedStore`] that runs it, its operation and its collection.
macro_rules! instrumented_role {
    ($(#[$doc:meta])* pub trait $role:ident {$(
        $(#[$method_doc:meta])*
        async fn $method:ident(&self $(, $arg:ident: $type:ty)* $(,)?) -> $result:ty = $run:ident($operation:literal, $collection:literal);
    )*}) => {
        $(#[$doc])*
        #[async_trait::async_trait]
        pub trait $role: Send + Sync + 'static {
            $(
                $(#[$method_doc])*
                async fn $method(&self $(, $arg: $type)*) -> $result;
            )*
        }

        #[async_trait::async_trait]
        impl<S: $role + ?Sized> $role for super::instrumented::InstrumentedStore<S> {
            $(
                async fn $method(&self $(, $arg: $type)*) -> $result {
                    let operation = palisade_middleware::store_instrumentation::Operation::new($operation, $collection);
                    self.$run(operation, move |store| async move { store.$method($($arg),*).await }).await
                }
            )*
        }
    };
}

pub(super) use instrumented_role;
