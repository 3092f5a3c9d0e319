//! Instrumented store: runs each call in a task of its own, with a timeout, metrics and a span. A
//! cancelled request never interrupts a write.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use palisade_middleware::store_instrumentation::{Database, InstrumentedCalls, Operation, StoreError};
use palisade_store::Reconnect;
use tokio::sync::Notify;

use super::database::Error;

/// Timeout factor of an audit, which reads everything.
const AUDIT_FACTOR: u32 = 15;

/// Operations that requests wait for.
const REQUEST_OPERATIONS: [Operation; 13] = [
    Operation::new("create", "products"),
    Operation::new("find", "products"),
    Operation::new("list", "products"),
    Operation::new("update", "products"),
    Operation::new("patch", "products"),
    Operation::new("remove", "products"),
    Operation::new("history", "products"),
    Operation::new("adjust", "stock_adjustments"),
    Operation::new("list", "stock_adjustments"),
    Operation::new("reserve", "reservations"),
    Operation::new("confirm", "reservations"),
    Operation::new("release", "reservations"),
    Operation::new("fulfil", "reservations"),
];

/// Store decorator: implements the roles of `S` by detached calls with timeouts, metrics and
/// traces.
pub struct InstrumentedStore<S: ?Sized> {
    inner: ConnectingStore<S>,
    calls: InstrumentedCalls,
    timeout: Duration,
    changed: Arc<Notify>,
    reconnect: Reconnect,
}

/// Store that is set once it can be opened. Until then all calls fail as unavailable.
pub type ConnectingStore<S> = Arc<OnceLock<Arc<S>>>;

impl<S: ?Sized> InstrumentedStore<S> {
    /// Wraps `inner`, which stores its products in `database`, with a timeout per call.
    pub fn new(inner: Arc<S>, database: Database, timeout: Duration) -> Self {
        Self::connecting(Arc::new(inner.into()), database, timeout)
    }

    /// As [`Self::new`] for a store that is opened in the background.
    pub fn connecting(inner: ConnectingStore<S>, database: Database, timeout: Duration) -> Self {
        Self {
            inner,
            calls: InstrumentedCalls::new(database, &REQUEST_OPERATIONS),
            timeout,
            changed: Arc::default(),
            reconnect: Reconnect::default(),
        }
    }

    /// Returns the notification of writes through this store that may have changed a product.
    pub fn changed(&self) -> Arc<Notify> {
        self.changed.clone()
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
        call: impl FnOnce(Arc<S>) -> F + Send + 'static,
    ) -> impl Future<Output = Result<T, Error>> + Send
    where
        S: Send + Sync + 'static,
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let reconnect = self.reconnect.clone();
        let call = connected(self.inner.clone(), call);
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
        call: impl FnOnce(Arc<S>) -> F + Send + 'static,
    ) -> impl Future<Output = Result<T, Error>> + Send
    where
        S: Send + Sync + 'static,
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.run(operation, Duration::MAX, call)
    }

    /// Runs `call` with the configured timeout.
    pub(super) fn call<T, F>(
        &self,
        operation: Operation,
        call: impl FnOnce(Arc<S>) -> F + Send + 'static,
    ) -> impl Future<Output = Result<T, Error>> + Send
    where
        S: Send + Sync + 'static,
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.run(operation, self.timeout, call)
    }

    /// Runs `call` with the timeout of an audit.
    pub(super) fn long_call<T, F>(
        &self,
        operation: Operation,
        call: impl FnOnce(Arc<S>) -> F + Send + 'static,
    ) -> impl Future<Output = Result<T, Error>> + Send
    where
        S: Send + Sync + 'static,
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.run(operation, self.timeout.saturating_mul(AUDIT_FACTOR), call)
    }

    /// Runs `call`, which may change a product, and notifies afterwards, even after an error.
    pub(super) async fn change<T, F>(&self, operation: Operation, call: impl FnOnce(Arc<S>) -> F + Send + 'static) -> Result<T, Error>
    where
        S: Send + Sync + 'static,
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let result = self.call(operation, call).await;
        self.changed.notify_one();
        result
    }
}

/// Calls the store once it is open.
async fn connected<S, T, F>(inner: ConnectingStore<S>, call: impl FnOnce(Arc<S>) -> F) -> Result<T, Error>
where
    S: ?Sized,
    F: Future<Output = Result<T, Error>>,
{
    match inner.get() {
        Some(store) => call(store.clone()).await,
        None => Err(Error::Unavailable("the store is not open yet".into())),
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
