//! Instrumented store: each call runs in its own task with a timeout, so that a cancelled request
//! cannot interrupt a write.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use palisade_middleware::store_instrumentation::{Database, InstrumentedCalls, Operation, StoreError};
use time::OffsetDateTime;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{Audit, Created, Error, IdempotencyKey, PendingChange, Removed, Store, Updated};
use crate::{
    product::{Page, Product, Query, ValidatedProduct},
    reservation::{Confirmed, Lines, Reservation, ReserveOutcome},
};

/// Timeout factor of an audit, which reads everything.
const AUDIT_FACTOR: u32 = 15;

const CREATE: Operation = Operation::new("create", "products");
const FIND: Operation = Operation::new("find", "products");
const LIST: Operation = Operation::new("list", "products");
const UPDATE: Operation = Operation::new("update", "products");
const REMOVE: Operation = Operation::new("remove", "products");
const RESERVE: Operation = Operation::new("reserve", "reservations");
const CONFIRM: Operation = Operation::new("confirm", "reservations");
const RELEASE: Operation = Operation::new("release", "reservations");
const EXPIRE_DUE: Operation = Operation::new("expire_due", "reservations");
const DELETE_EXPIRED_KEYS: Operation = Operation::new("forget_keys", "idempotency_keys");
const LIST_RESERVATIONS: Operation = Operation::new("list", "reservations");
const LEASE_RELAY: Operation = Operation::new("lease_relay", "news");
const UNPUBLISHED_CHANGES: Operation = Operation::new("news", "products");
const MARK_PUBLISHED: Operation = Operation::new("told", "products");
const AUDIT: Operation = Operation::new("audit", "products");
const PING: Operation = Operation::new("ping", "");

/// Operations that may change products.
const WRITE_OPERATIONS: [Operation; 6] = [CREATE, UPDATE, REMOVE, RESERVE, RELEASE, EXPIRE_DUE];

/// Operations on the request path.
const REQUEST_OPERATIONS: [Operation; 8] = [CREATE, FIND, LIST, UPDATE, REMOVE, RESERVE, CONFIRM, RELEASE];

/// Store wrapper with timeouts, cancellation safety, metrics and traces.
pub struct InstrumentedStore {
    store: Arc<dyn Store>,
    calls: InstrumentedCalls,
    timeout: Duration,
    changed: Arc<Notify>,
}

impl InstrumentedStore {
    /// Wraps `store`, which is kept in `database`, with a timeout of `timeout` per call.
    pub fn new(store: Arc<dyn Store>, database: Database, timeout: Duration) -> Self {
        Self { store, calls: InstrumentedCalls::new(database, &REQUEST_OPERATIONS), timeout, changed: Arc::default() }
    }

    /// Returns the notification of writes through this store that may have changed a product.
    pub fn changed(&self) -> Arc<Notify> {
        self.changed.clone()
    }

    async fn call<T, F>(&self, operation: Operation, work: impl FnOnce(Arc<dyn Store>) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let timeout = if operation == AUDIT { self.timeout * AUDIT_FACTOR } else { self.timeout };
        let answer = self.calls.run(operation, timeout, work(Arc::clone(&self.store))).await;
        if WRITE_OPERATIONS.contains(&operation) {
            self.changed.notify_one();
        }
        answer
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
            Self::Corrupt(_) => "corrupt",
        }
    }
}

#[async_trait]
impl Store for InstrumentedStore {
    async fn create(&self, id: Uuid, draft: ValidatedProduct, key: Option<IdempotencyKey>, now: OffsetDateTime) -> Result<Created, Error> {
        self.call(CREATE, |store| async move { store.create(id, draft, key, now).await }).await
    }

    async fn find(&self, id: Uuid) -> Result<Option<Product>, Error> {
        self.call(FIND, |store| async move { store.find(id).await }).await
    }

    async fn list(&self, query: Query) -> Result<Page, Error> {
        self.call(LIST, |store| async move { store.list(query).await }).await
    }

    async fn update(
        &self,
        id: Uuid,
        draft: ValidatedProduct,
        expected_version: Option<i64>,
        now: OffsetDateTime,
    ) -> Result<Updated, Error> {
        self.call(UPDATE, |store| async move { store.update(id, draft, expected_version, now).await }).await
    }

    async fn remove(&self, id: Uuid, expected_version: Option<i64>, now: OffsetDateTime) -> Result<Removed, Error> {
        self.call(REMOVE, |store| async move { store.remove(id, expected_version, now).await }).await
    }

    async fn reserve(&self, id: Uuid, lines: Lines, now: OffsetDateTime, hold_for: Duration) -> Result<ReserveOutcome, Error> {
        self.call(RESERVE, |store| async move { store.reserve(id, lines, now, hold_for).await }).await
    }

    async fn confirm(&self, id: Uuid, now: OffsetDateTime) -> Result<Confirmed, Error> {
        self.call(CONFIRM, |store| async move { store.confirm(id, now).await }).await
    }

    async fn release(&self, id: Uuid, now: OffsetDateTime) -> Result<Reservation, Error> {
        self.call(RELEASE, |store| async move { store.release(id, now).await }).await
    }

    async fn expire_due(&self, now: OffsetDateTime, limit: u32) -> Result<u32, Error> {
        self.call(EXPIRE_DUE, |store| async move { store.expire_due(now, limit).await }).await
    }

    async fn delete_expired_keys(&self, now: OffsetDateTime) -> Result<u64, Error> {
        self.call(DELETE_EXPIRED_KEYS, |store| async move { store.delete_expired_keys(now).await }).await
    }

    async fn list_reservations(&self, after: Option<Uuid>, limit: u32) -> Result<Vec<Reservation>, Error> {
        self.call(LIST_RESERVATIONS, |store| async move { store.list_reservations(after, limit).await }).await
    }

    async fn lease_relay(&self, relay: Uuid, now: OffsetDateTime, until: OffsetDateTime) -> Result<bool, Error> {
        self.call(LEASE_RELAY, |store| async move { store.lease_relay(relay, now, until).await }).await
    }

    async fn unpublished_changes(&self, limit: u32) -> Result<Vec<PendingChange>, Error> {
        self.call(UNPUBLISHED_CHANGES, |store| async move { store.unpublished_changes(limit).await }).await
    }

    async fn mark_published(&self, news: &[PendingChange]) -> Result<(), Error> {
        let news = news.to_vec();
        self.call(MARK_PUBLISHED, |store| async move { store.mark_published(&news).await }).await
    }

    async fn audit(&self, now: OffsetDateTime) -> Result<Audit, Error> {
        self.call(AUDIT, |store| async move { store.audit(now).await }).await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.call(PING, |store| async move { store.ping().await }).await
    }
}
