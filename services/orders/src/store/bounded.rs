//! Every call of a store detached from its caller, with an end: one that goes away never cancels a write midway, and a database
//! that never answers never keeps a caller.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use palisade_middleware::db::{Calls, Database, Failure, Operation};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Answer, Audit, Claimed, Create, Creation, DeadEvent, Error, Event, List, Page, Removal, Standing, Stats, StatusSet, Store, Stuck,
    Transitioned,
};
use crate::{
    order::{Actor, Order, OrderId, Status},
    saga::Transition,
    watch::Watches,
};

/// What reads or rewrites everything may take longer than a call of a request.
const MAINTENANCE_TIMEOUT: Duration = Duration::from_secs(30);

const PREPARE: Operation = Operation::new("prepare", "");
const PING: Operation = Operation::new("ping", "");
const CREATE: Operation = Operation::new("create", "orders");
const TRANSITION: Operation = Operation::new("transition", "orders");
const SET_STATUS: Operation = Operation::new("set_status", "orders");
const STORE_ANSWER: Operation = Operation::new("store_answer", "idempotency_keys");
const FIND: Operation = Operation::new("find", "orders");
const LIST: Operation = Operation::new("list", "orders");
const REMOVE: Operation = Operation::new("remove", "orders");
const CLAIM_DUE: Operation = Operation::new("claim_due", "orders");
const POSTPONE: Operation = Operation::new("postpone", "orders");
const RELEASE_DONE: Operation = Operation::new("release_done", "orders");
const STUCK: Operation = Operation::new("stuck", "orders");
const RETRY_NOW: Operation = Operation::new("retry_now", "orders");
const TAKE_FROM_CREATOR: Operation = Operation::new("take_from_creator", "orders");
const CHANGES: Operation = Operation::new("changes", "order_history");
const VERSIONS: Operation = Operation::new("versions", "orders");
const LEASE_OUTBOX: Operation = Operation::new("lease_outbox", "outbox");
const MARK_REFUSED: Operation = Operation::new("mark_refused", "outbox");
const DEAD_EVENTS: Operation = Operation::new("dead_events", "outbox");
const REDRIVE: Operation = Operation::new("redrive", "outbox");
const UNPUBLISHED: Operation = Operation::new("unpublished", "outbox");
const MARK_PUBLISHED: Operation = Operation::new("mark_published", "outbox");
const PRUNE_PUBLISHED: Operation = Operation::new("prune_published", "outbox");
const SWEEP_KEYS: Operation = Operation::new("sweep_keys", "idempotency_keys");
const AUDIT: Operation = Operation::new("audit", "orders");
const STANDINGS: Operation = Operation::new("standings", "orders");
const STATS: Operation = Operation::new("stats", "orders");

/// What requests wait for.
const OF_REQUESTS: [Operation; 7] = [CREATE, TRANSITION, SET_STATUS, STORE_ANSWER, FIND, LIST, REMOVE];

/// A store whose calls are detached, timed, measured and traced, and that tells of the changes it made.
pub struct Bounded {
    inner: Arc<dyn Store>,
    calls: Calls,
    timeout: Duration,
    watches: Watches,
}

impl Bounded {
    /// Bounds each call of `inner`, which keeps its orders in `database`, by `timeout`.
    pub fn new(inner: Arc<dyn Store>, database: Database, timeout: Duration) -> Self {
        Self { inner, calls: Calls::new(database, &OF_REQUESTS), timeout, watches: Watches::default() }
    }

    /// Who watches orders changed through this store.
    pub fn watches(&self) -> Watches {
        self.watches.clone()
    }

    fn changed(&self, order: &Order) {
        self.watches.announce(order.id, order.version);
        self.watches.written();
    }

    async fn run<T, F>(&self, operation: Operation, call: impl FnOnce(Arc<dyn Store>) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let limit = if matches!(operation, PREPARE | AUDIT) { MAINTENANCE_TIMEOUT } else { self.timeout };
        self.calls.run(operation, limit, call(Arc::clone(&self.inner))).await
    }
}

impl Failure for Error {
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
impl Store for Bounded {
    async fn prepare(&self) -> Result<(), Error> {
        self.run(PREPARE, |store| async move { store.prepare().await }).await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.run(PING, |store| async move { store.ping().await }).await
    }

    async fn create(&self, create: Create, now: OffsetDateTime) -> Result<Creation, Error> {
        let creation = self.run(CREATE, move |store| async move { store.create(create, now).await }).await;
        if matches!(creation, Ok(Creation::Created(_))) {
            self.watches.written();
        }
        creation
    }

    async fn transition(
        &self,
        claimed: &Claimed,
        transition: Transition,
        answer: Option<Answer>,
        now: OffsetDateTime,
    ) -> Result<Transitioned, Error> {
        let claimed = claimed.clone();
        let done = self.run(TRANSITION, move |store| async move { store.transition(&claimed, transition, answer, now).await }).await;
        if let Ok(Transitioned::Applied(claimed)) = &done {
            self.changed(&claimed.saga.order);
        }
        done
    }

    async fn set_status(&self, id: OrderId, to: Status, by: Actor, now: OffsetDateTime) -> Result<StatusSet, Error> {
        let done = self.run(SET_STATUS, move |store| async move { store.set_status(id, to, by, now).await }).await;
        if let Ok(StatusSet::Changed { order, .. }) = &done {
            self.changed(order);
        }
        done
    }

    async fn store_answer(&self, id: OrderId, answer: Answer) -> Result<(), Error> {
        self.run(STORE_ANSWER, move |store| async move { store.store_answer(id, answer).await }).await
    }

    async fn find(&self, id: OrderId) -> Result<Option<Order>, Error> {
        self.run(FIND, move |store| async move { store.find(id).await }).await
    }

    async fn list(&self, list: List) -> Result<Page, Error> {
        self.run(LIST, move |store| async move { store.list(list).await }).await
    }

    async fn remove(&self, id: OrderId, now: OffsetDateTime) -> Result<Removal, Error> {
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

    async fn stuck(&self, unchanged_since: OffsetDateTime, attempts: u32, limit: u32) -> Result<Vec<Stuck>, Error> {
        self.run(STUCK, move |store| async move { store.stuck(unchanged_since, attempts, limit).await }).await
    }

    async fn retry_now(&self, id: OrderId, now: OffsetDateTime) -> Result<bool, Error> {
        self.run(RETRY_NOW, move |store| async move { store.retry_now(id, now).await }).await
    }

    async fn take_from_creator(&self, id: OrderId, now: OffsetDateTime) -> Result<bool, Error> {
        self.run(TAKE_FROM_CREATOR, move |store| async move { store.take_from_creator(id, now).await }).await
    }

    async fn changes(&self, id: OrderId, version: i64) -> Result<Vec<Order>, Error> {
        self.run(CHANGES, move |store| async move { store.changes(id, version).await }).await
    }

    async fn versions(&self, ids: &[OrderId]) -> Result<Vec<(OrderId, i64)>, Error> {
        let ids = ids.to_vec();
        self.run(VERSIONS, move |store| async move { store.versions(&ids).await }).await
    }

    async fn lease_outbox(&self, relay: Uuid, now: OffsetDateTime, until: OffsetDateTime) -> Result<bool, Error> {
        self.run(LEASE_OUTBOX, move |store| async move { store.lease_outbox(relay, now, until).await }).await
    }

    async fn mark_refused(&self, events: &[(Uuid, String)], most: u32, now: OffsetDateTime) -> Result<u64, Error> {
        let events = events.to_vec();
        self.run(MARK_REFUSED, move |store| async move { store.mark_refused(&events, most, now).await }).await
    }

    async fn dead_events(&self, limit: u32) -> Result<Vec<DeadEvent>, Error> {
        self.run(DEAD_EVENTS, move |store| async move { store.dead_events(limit).await }).await
    }

    async fn redrive(&self) -> Result<u64, Error> {
        let redriven = self.run(REDRIVE, |store| async move { store.redrive().await }).await;
        self.watches.written();
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

    async fn sweep_keys(&self, now: OffsetDateTime) -> Result<u64, Error> {
        self.run(SWEEP_KEYS, move |store| async move { store.sweep_keys(now).await }).await
    }

    async fn audit(&self, now: OffsetDateTime, overdue_after: Duration, since: Option<OffsetDateTime>) -> Result<Audit, Error> {
        self.run(AUDIT, move |store| async move { store.audit(now, overdue_after, since).await }).await
    }

    async fn standings(&self, ids: &[OrderId]) -> Result<Vec<Standing>, Error> {
        let ids = ids.to_vec();
        self.run(STANDINGS, move |store| async move { store.standings(&ids).await }).await
    }

    async fn stats(&self, now: OffsetDateTime) -> Result<Stats, Error> {
        self.run(STATS, move |store| async move { store.stats(now).await }).await
    }
}
