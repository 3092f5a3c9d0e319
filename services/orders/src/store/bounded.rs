//! Every call of a store in a task of its own, with an end: a caller that goes away never cancels a write midway, and a database
//! that never answers never keeps a caller.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use palisade_middleware::{recorded_span, task};
use time::OffsetDateTime;
use tokio::time::timeout;
use tracing::{Instrument, field::Empty};
use uuid::Uuid;

use super::{
    Answer, Audit, Claimed, Create, Creation, Error, Event, List, Page, Removal, Standing, Stats, StatusSet, Store, Stuck, Transitioned,
};
use crate::{
    order::{Actor, Order, OrderId, Status},
    saga::Transition,
};

/// What reads or rewrites everything may take longer than a call of a request.
const MAINTENANCE_TIMEOUT: Duration = Duration::from_secs(30);

/// A store whose calls are detached, timed and traced (semconv `db.client`).
pub struct Bounded {
    inner: Arc<dyn Store>,
    system: &'static str,
    timeout: Duration,
}

impl Bounded {
    /// Bounds each call of `inner` by `timeout`. `system` is its `db.system.name`.
    pub fn new(inner: Arc<dyn Store>, system: &'static str, timeout: Duration) -> Self {
        Self { inner, system, timeout }
    }

    async fn run<T, F>(&self, operation: &'static str, limit: Duration, call: impl FnOnce(Arc<dyn Store>) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let span = recorded_span!(
            "store",
            otel.name = %format_args!("{operation} orders"),
            otel.kind = "client",
            db.system.name = self.system,
            db.operation.name = operation,
            db.collection.name = "orders",
            error.type = Empty,
        );
        let work = timeout(limit, call(Arc::clone(&self.inner)));
        let outcome = match task::detached(work).instrument(span.clone()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_elapsed)) => Err(Error::Timeout),
            Err(aborted) => Err(Error::Unavailable(aborted.into())),
        };
        if let Err(error) = &outcome {
            span.record("error.type", error.kind());
        }
        outcome
    }
}

#[async_trait]
impl Store for Bounded {
    async fn prepare(&self) -> Result<(), Error> {
        self.run("prepare", MAINTENANCE_TIMEOUT, |store| async move { store.prepare().await }).await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.run("ping", self.timeout, |store| async move { store.ping().await }).await
    }

    async fn create(&self, create: Create, now: OffsetDateTime) -> Result<Creation, Error> {
        self.run("create", self.timeout, move |store| async move { store.create(create, now).await }).await
    }

    async fn transition(
        &self,
        claimed: &Claimed,
        transition: Transition,
        answer: Option<Answer>,
        now: OffsetDateTime,
    ) -> Result<Transitioned, Error> {
        let claimed = claimed.clone();
        self.run("transition", self.timeout, move |store| async move { store.transition(&claimed, transition, answer, now).await }).await
    }

    async fn set_status(&self, id: OrderId, to: Status, by: Actor, now: OffsetDateTime) -> Result<StatusSet, Error> {
        self.run("set_status", self.timeout, move |store| async move { store.set_status(id, to, by, now).await }).await
    }

    async fn store_answer(&self, id: OrderId, answer: Answer) -> Result<(), Error> {
        self.run("store_answer", self.timeout, move |store| async move { store.store_answer(id, answer).await }).await
    }

    async fn find(&self, id: OrderId) -> Result<Option<Order>, Error> {
        self.run("find", self.timeout, move |store| async move { store.find(id).await }).await
    }

    async fn list(&self, list: List) -> Result<Page, Error> {
        self.run("list", self.timeout, move |store| async move { store.list(list).await }).await
    }

    async fn remove(&self, id: OrderId, now: OffsetDateTime) -> Result<Removal, Error> {
        self.run("remove", self.timeout, move |store| async move { store.remove(id, now).await }).await
    }

    async fn claim_due(&self, now: OffsetDateTime, lease: Duration, limit: u32) -> Result<Vec<Claimed>, Error> {
        self.run("claim_due", self.timeout, move |store| async move { store.claim_due(now, lease, limit).await }).await
    }

    async fn postpone(&self, id: OrderId, fence: i64, due_at: OffsetDateTime, last_error: &str) -> Result<bool, Error> {
        let last_error = last_error.to_owned();
        self.run("postpone", self.timeout, move |store| async move { store.postpone(id, fence, due_at, &last_error).await }).await
    }

    async fn release_done(&self, id: OrderId, fence: i64) -> Result<bool, Error> {
        self.run("release_done", self.timeout, move |store| async move { store.release_done(id, fence).await }).await
    }

    async fn stuck(&self, unchanged_since: OffsetDateTime, attempts: u32, limit: u32) -> Result<Vec<Stuck>, Error> {
        self.run("stuck", self.timeout, move |store| async move { store.stuck(unchanged_since, attempts, limit).await }).await
    }

    async fn retry_now(&self, id: OrderId, now: OffsetDateTime) -> Result<bool, Error> {
        self.run("retry_now", self.timeout, move |store| async move { store.retry_now(id, now).await }).await
    }

    async fn unpublished(&self, limit: u32) -> Result<Vec<Event>, Error> {
        self.run("unpublished", self.timeout, move |store| async move { store.unpublished(limit).await }).await
    }

    async fn mark_published(&self, events: &[Uuid], now: OffsetDateTime) -> Result<(), Error> {
        let events = events.to_vec();
        self.run("mark_published", self.timeout, move |store| async move { store.mark_published(&events, now).await }).await
    }

    async fn prune_published(&self, before: OffsetDateTime) -> Result<u64, Error> {
        self.run("prune_published", self.timeout, move |store| async move { store.prune_published(before).await }).await
    }

    async fn sweep_keys(&self, now: OffsetDateTime) -> Result<u64, Error> {
        self.run("sweep_keys", self.timeout, move |store| async move { store.sweep_keys(now).await }).await
    }

    async fn audit(&self, now: OffsetDateTime, overdue_after: Duration) -> Result<Audit, Error> {
        self.run("audit", MAINTENANCE_TIMEOUT, move |store| async move { store.audit(now, overdue_after).await }).await
    }

    async fn standings(&self, ids: &[OrderId]) -> Result<Vec<Standing>, Error> {
        let ids = ids.to_vec();
        self.run("standings", self.timeout, move |store| async move { store.standings(&ids).await }).await
    }

    async fn stats(&self, now: OffsetDateTime) -> Result<Stats, Error> {
        self.run("stats", self.timeout, move |store| async move { store.stats(now).await }).await
    }
}
