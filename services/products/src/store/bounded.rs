//! Every call to a store in a task of its own, for a bounded time: a client that goes away cannot stop a write midway.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use palisade_middleware::{recorded_span, task};
use time::OffsetDateTime;
use tokio::time::timeout;
use tracing::Instrument;
use uuid::Uuid;

use super::{Audit, Created, Error, IdempotencyKey, Removed, Store, Updated};
use crate::{
    product::{Draft, Page, Product, Query},
    reservation::{Confirmed, Lines, Reservation, Reserved},
};

/// An audit reads everything: it gets this many times the limit of the other calls.
const AUDIT_FACTOR: u32 = 15;

/// A store whose calls end in time and, once begun, do not end before.
pub struct Bounded {
    store: Arc<dyn Store>,
    /// `db.system.name` (OpenTelemetry semantic conventions).
    system: &'static str,
    limit: Duration,
}

impl Bounded {
    /// `system` is the store's `db.system.name`: `mongodb`, `sqlite`.
    pub fn new(store: Arc<dyn Store>, system: &'static str, limit: Duration) -> Self {
        Self { store, system, limit }
    }

    async fn call<T, F>(
        &self,
        operation: &'static str,
        collection: &'static str,
        work: impl FnOnce(Arc<dyn Store>) -> F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let limit = if operation == "audit" { self.limit * AUDIT_FACTOR } else { self.limit };
        let span = recorded_span!(
            "store",
            otel.name = format!("{operation} {collection}"),
            otel.kind = "client",
            db.system.name = self.system,
            db.operation.name = operation,
            db.collection.name = collection,
        );
        let work = timeout(limit, work(Arc::clone(&self.store)));
        match task::detached(work.instrument(span)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_elapsed)) => Err(Error::Timeout),
            Err(aborted) => Err(Error::Unavailable(Box::new(aborted))),
        }
    }
}

#[async_trait]
impl Store for Bounded {
    async fn create(&self, id: Uuid, draft: Draft, key: Option<IdempotencyKey>, now: OffsetDateTime) -> Result<Created, Error> {
        self.call("create", "products", |store| async move { store.create(id, draft, key, now).await }).await
    }

    async fn find(&self, id: Uuid) -> Result<Option<Product>, Error> {
        self.call("find", "products", |store| async move { store.find(id).await }).await
    }

    async fn list(&self, query: Query) -> Result<Page, Error> {
        self.call("list", "products", |store| async move { store.list(query).await }).await
    }

    async fn update(&self, id: Uuid, draft: Draft, expected_version: Option<i64>, now: OffsetDateTime) -> Result<Updated, Error> {
        self.call("update", "products", |store| async move { store.update(id, draft, expected_version, now).await }).await
    }

    async fn remove(&self, id: Uuid, expected_version: Option<i64>) -> Result<Removed, Error> {
        self.call("remove", "products", |store| async move { store.remove(id, expected_version).await }).await
    }

    async fn reserve(&self, id: Uuid, lines: Lines, now: OffsetDateTime, hold_for: Duration) -> Result<Reserved, Error> {
        self.call("reserve", "reservations", |store| async move { store.reserve(id, lines, now, hold_for).await }).await
    }

    async fn confirm(&self, id: Uuid, now: OffsetDateTime) -> Result<Confirmed, Error> {
        self.call("confirm", "reservations", |store| async move { store.confirm(id, now).await }).await
    }

    async fn release(&self, id: Uuid, now: OffsetDateTime) -> Result<Reservation, Error> {
        self.call("release", "reservations", |store| async move { store.release(id, now).await }).await
    }

    async fn expire_due(&self, now: OffsetDateTime, limit: u32) -> Result<u32, Error> {
        self.call("expire_due", "reservations", |store| async move { store.expire_due(now, limit).await }).await
    }

    async fn forget_keys(&self, now: OffsetDateTime) -> Result<u64, Error> {
        self.call("forget_keys", "idempotency_keys", |store| async move { store.forget_keys(now).await }).await
    }

    async fn list_reservations(&self, after: Option<Uuid>, limit: u32) -> Result<Vec<Reservation>, Error> {
        self.call("list", "reservations", |store| async move { store.list_reservations(after, limit).await }).await
    }

    async fn audit(&self, now: OffsetDateTime) -> Result<Audit, Error> {
        self.call("audit", "products", |store| async move { store.audit(now).await }).await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.call("ping", "products", |store| async move { store.ping().await }).await
    }
}
