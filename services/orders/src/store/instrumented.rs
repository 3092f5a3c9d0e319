//! Store decorator: runs each call in a task of its own, with a timeout, metrics and a span. A
//! cancelled caller never interrupts a write, and an unresponsive database never blocks a caller.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use palisade_middleware::store_instrumentation::{Database, InstrumentedCalls, Operation, StoreError};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Audit, Claimed, Create, CreateResult, DeadEvent, Error, Event, List, Page, RemoveResult, SagaStatus, SetStatusResult, Stats, Store,
    StoredResponse, StuckOrder, TransitionResult,
};
use crate::{
    order::{Actor, Order, OrderId, Status},
    saga::Transition,
    watch::OrderWatchers,
};

/// Timeout of operations that read or rewrite everything.
const MAINTENANCE_TIMEOUT: Duration = Duration::from_secs(30);

const MIGRATE: Operation = Operation::new("prepare", "");
const PING: Operation = Operation::new("ping", "");
const CREATE: Operation = Operation::new("create", "orders");
const TRANSITION: Operation = Operation::new("transition", "orders");
const SET_STATUS: Operation = Operation::new("set_status", "orders");
const STORE_RESPONSE: Operation = Operation::new("store_answer", "idempotency_keys");
const FIND: Operation = Operation::new("find", "orders");
const LIST: Operation = Operation::new("list", "orders");
const REMOVE: Operation = Operation::new("remove", "orders");
const CLAIM_DUE: Operation = Operation::new("claim_due", "orders");
const POSTPONE: Operation = Operation::new("postpone", "orders");
const RELEASE_DONE: Operation = Operation::new("release_done", "orders");
const STUCK: Operation = Operation::new("stuck", "orders");
const RETRY_NOW: Operation = Operation::new("retry_now", "orders");
const EXPIRE_CREATOR_LEASE: Operation = Operation::new("take_from_creator", "orders");
const HISTORY_AFTER: Operation = Operation::new("changes", "order_history");
const VERSIONS: Operation = Operation::new("versions", "orders");
const LEASE_OUTBOX: Operation = Operation::new("lease_outbox", "outbox");
const MARK_REJECTED: Operation = Operation::new("mark_refused", "outbox");
const DEAD_EVENTS: Operation = Operation::new("dead_events", "outbox");
const REDRIVE: Operation = Operation::new("redrive", "outbox");
const UNPUBLISHED: Operation = Operation::new("unpublished", "outbox");
const MARK_PUBLISHED: Operation = Operation::new("mark_published", "outbox");
const PRUNE_PUBLISHED: Operation = Operation::new("prune_published", "outbox");
const DELETE_EXPIRED_KEYS: Operation = Operation::new("sweep_keys", "idempotency_keys");
const AUDIT: Operation = Operation::new("audit", "orders");
const SAGA_STATUSES: Operation = Operation::new("standings", "orders");
const STATS: Operation = Operation::new("stats", "orders");

/// Operations that requests wait for.
const REQUEST_OPERATIONS: [Operation; 7] = [CREATE, TRANSITION, SET_STATUS, STORE_RESPONSE, FIND, LIST, REMOVE];

/// Store decorator with detached calls, timeouts, metrics and traces. Notifies watchers of the
/// changes made through it.
pub struct InstrumentedStore {
    inner: Arc<dyn Store>,
    calls: InstrumentedCalls,
    timeout: Duration,
    watchers: OrderWatchers,
}

impl InstrumentedStore {
    /// Wraps `inner`, which stores its orders in `database`, with a timeout per call.
    pub fn new(inner: Arc<dyn Store>, database: Database, timeout: Duration) -> Self {
        Self { inner, calls: InstrumentedCalls::new(database, &REQUEST_OPERATIONS), timeout, watchers: OrderWatchers::default() }
    }

    /// Returns the watchers that this store notifies.
    pub fn watchers(&self) -> OrderWatchers {
        self.watchers.clone()
    }

    fn notify_changed(&self, order: &Order) {
        self.watchers.notify_version(order.id, order.version);
        self.watchers.notify_outbox();
    }

    async fn run<T, F>(&self, operation: Operation, call: impl FnOnce(Arc<dyn Store>) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let limit = if matches!(operation, MIGRATE | AUDIT) { MAINTENANCE_TIMEOUT } else { self.timeout };
        self.calls.run(operation, limit, call(Arc::clone(&self.inner))).await
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
    async fn migrate(&self) -> Result<(), Error> {
        self.run(MIGRATE, |store| async move { store.migrate().await }).await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.run(PING, |store| async move { store.ping().await }).await
    }

    async fn create(&self, create: Create, now: OffsetDateTime) -> Result<CreateResult, Error> {
        let creation = self.run(CREATE, move |store| async move { store.create(create, now).await }).await;
        if matches!(creation, Ok(CreateResult::Created(_))) {
            self.watchers.notify_outbox();
        }
        creation
    }

    async fn transition(
        &self,
        claimed: &Claimed,
        transition: Transition,
        response: Option<StoredResponse>,
        now: OffsetDateTime,
    ) -> Result<TransitionResult, Error> {
        let claimed = claimed.clone();
        let result = self.run(TRANSITION, move |store| async move { store.transition(&claimed, transition, response, now).await }).await;
        if let Ok(TransitionResult::Applied(claimed)) = &result {
            self.notify_changed(&claimed.saga.order);
        }
        result
    }

    async fn set_status(&self, id: OrderId, to: Status, by: Actor, now: OffsetDateTime) -> Result<SetStatusResult, Error> {
        let result = self.run(SET_STATUS, move |store| async move { store.set_status(id, to, by, now).await }).await;
        if let Ok(SetStatusResult::Changed { order, .. }) = &result {
            self.notify_changed(order);
        }
        result
    }

    async fn store_response(&self, id: OrderId, response: StoredResponse) -> Result<(), Error> {
        self.run(STORE_RESPONSE, move |store| async move { store.store_response(id, response).await }).await
    }

    async fn find(&self, id: OrderId) -> Result<Option<Order>, Error> {
        self.run(FIND, move |store| async move { store.find(id).await }).await
    }

    async fn list(&self, list: List) -> Result<Page, Error> {
        self.run(LIST, move |store| async move { store.list(list).await }).await
    }

    async fn remove(&self, id: OrderId, now: OffsetDateTime) -> Result<RemoveResult, Error> {
        self.run(REMOVE, move |store| async move { store.remove(id, now).await }).await
    }

    async fn claim_due(&self, now: OffsetDateTime, lease: Duration, limit: u32) -> Result<Vec<Claimed>, Error> {
        self.run(CLAIM_DUE, move |store| async move { store.claim_due(now, lease, limit).await }).await
    }

    async fn postpone(&self, id: OrderId, fence: i64, due_at: OffsetDateTime, last_error: &str) -> Result<bool, Error> {
        let last_error = last_error.to_owned();
        self.run(POSTPONE, move |store| async move { store.postpone(id, fence, due_at, &last_error).await }).await
    }

    async fn release_done(&self, id: OrderId, fence: i64) -> Result<bool, Error> {
        self.run(RELEASE_DONE, move |store| async move { store.release_done(id, fence).await }).await
    }

    async fn stuck(&self, unchanged_since: OffsetDateTime, attempts: u32, limit: u32) -> Result<Vec<StuckOrder>, Error> {
        self.run(STUCK, move |store| async move { store.stuck(unchanged_since, attempts, limit).await }).await
    }

    async fn retry_now(&self, id: OrderId, now: OffsetDateTime) -> Result<bool, Error> {
        self.run(RETRY_NOW, move |store| async move { store.retry_now(id, now).await }).await
    }

    async fn expire_creator_lease(&self, id: OrderId, now: OffsetDateTime) -> Result<bool, Error> {
        self.run(EXPIRE_CREATOR_LEASE, move |store| async move { store.expire_creator_lease(id, now).await }).await
    }

    async fn history_after(&self, id: OrderId, version: i64) -> Result<Vec<Order>, Error> {
        self.run(HISTORY_AFTER, move |store| async move { store.history_after(id, version).await }).await
    }

    async fn versions(&self, ids: &[OrderId]) -> Result<Vec<(OrderId, i64)>, Error> {
        let ids = ids.to_vec();
        self.run(VERSIONS, move |store| async move { store.versions(&ids).await }).await
    }

    async fn lease_outbox(&self, relay: Uuid, now: OffsetDateTime, until: OffsetDateTime) -> Result<bool, Error> {
        self.run(LEASE_OUTBOX, move |store| async move { store.lease_outbox(relay, now, until).await }).await
    }

    async fn mark_rejected(&self, events: &[(Uuid, String)], max_attempts: u32, now: OffsetDateTime) -> Result<u64, Error> {
        let events = events.to_vec();
        self.run(MARK_REJECTED, move |store| async move { store.mark_rejected(&events, max_attempts, now).await }).await
    }

    async fn dead_events(&self, limit: u32) -> Result<Vec<DeadEvent>, Error> {
        self.run(DEAD_EVENTS, move |store| async move { store.dead_events(limit).await }).await
    }

    async fn redrive(&self) -> Result<u64, Error> {
        let redriven = self.run(REDRIVE, |store| async move { store.redrive().await }).await;
        self.watchers.notify_outbox();
        redriven
    }

    async fn unpublished(&self, limit: u32) -> Result<Vec<Event>, Error> {
        self.run(UNPUBLISHED, move |store| async move { store.unpublished(limit).await }).await
    }

    async fn mark_published(&self, events: &[Uuid], now: OffsetDateTime) -> Result<(), Error> {
        let events = events.to_vec();
        self.run(MARK_PUBLISHED, move |store| async move { store.mark_published(&events, now).await }).await
    }

    async fn prune_published(&self, before: OffsetDateTime) -> Result<u64, Error> {
        self.run(PRUNE_PUBLISHED, move |store| async move { store.prune_published(before).await }).await
    }

    async fn delete_expired_keys(&self, now: OffsetDateTime) -> Result<u64, Error> {
        self.run(DELETE_EXPIRED_KEYS, move |store| async move { store.delete_expired_keys(now).await }).await
    }

    async fn audit(&self, now: OffsetDateTime, overdue_after: Duration, since: Option<OffsetDateTime>) -> Result<Audit, Error> {
        self.run(AUDIT, move |store| async move { store.audit(now, overdue_after, since).await }).await
    }

    async fn saga_statuses(&self, ids: &[OrderId]) -> Result<Vec<SagaStatus>, Error> {
        let ids = ids.to_vec();
        self.run(SAGA_STATUSES, move |store| async move { store.saga_statuses(&ids).await }).await
    }

    async fn stats(&self, now: OffsetDateTime) -> Result<Stats, Error> {
        self.run(STATS, move |store| async move { store.stats(now).await }).await
    }
}
