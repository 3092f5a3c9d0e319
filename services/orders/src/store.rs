//! Order store: one trait, implemented for PostgreSQL and SQLite, with one test suite for both.
//!
//! Every method is one atomic step. An order with work left has a due time. A due time in the past
//! means that the order waits for a worker; in the future, that it is leased or backing off. Each
//! claim, and each status change by a user, increments the order's fence (fencing token), so that a
//! worker that lost its lease cannot record anything.

use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    order::{Actor, NewOrder, Order, OrderId, Status},
    saga::{Saga, Transition},
};

mod audit;
mod change;
mod history;
mod instrumented;
mod key;
mod outbox;
mod page;
mod pool;
mod postgres;
mod sqlite;
mod sqlx_error;

pub use self::{
    audit::{Audit, Finding, Invariant, SagaStatus, Stats, StuckOrder},
    instrumented::InstrumentedStore,
    key::{IdempotencyKey, KEY_LIFETIME, StoredResponse},
    outbox::{DeadEvent, Event},
    page::{List, Page, Position},
    postgres::PostgresStore,
    sqlite::SqliteStore,
};

/// Store of orders, their history, idempotency keys and the outbox.
#[async_trait]
pub trait Store: Send + Sync {
    /// Migrates the schema. Idempotent, and safe with several replicas at once.
    async fn migrate(&self) -> Result<(), Error>;

    /// Checks whether the database responds.
    async fn ping(&self) -> Result<(), Error>;

    /// Accepts an order. Writes the order, its lines, its first history row, its outbox row and its
    /// idempotency key atomically.
    async fn create(&self, create: Create, now: OffsetDateTime) -> Result<CreateResult, Error>;

    /// Records a transition of the saga if `claimed` still holds the lease. Stores `response` for
    /// replays in the same step.
    async fn transition(
        &self,
        claimed: &Claimed,
        transition: Transition,
        response: Option<StoredResponse>,
        now: OffsetDateTime,
    ) -> Result<TransitionResult, Error>;

    /// Changes the status on behalf of a user. A cancellation makes a release pending in the same
    /// step.
    async fn set_status(&self, id: OrderId, to: Status, by: Actor, now: OffsetDateTime) -> Result<SetStatusResult, Error>;

    /// Stores the response of a create for replays, unless one is stored already.
    async fn store_response(&self, id: OrderId, response: StoredResponse) -> Result<(), Error>;

    /// Returns the order, or `None` if it does not exist or was removed.
    async fn find(&self, id: OrderId) -> Result<Option<Order>, Error>;

    /// Returns one page of orders, newest first.
    async fn list(&self, list: List) -> Result<Page, Error>;

    /// Hides an order in a terminal state (soft delete). Its history remains, and so does a pending
    /// release.
    async fn remove(&self, id: OrderId, now: OffsetDateTime) -> Result<RemoveResult, Error>;

    /// Claims up to `limit` due orders, longest due first, and leases each for `lease`. No other
    /// worker can claim them until then.
    async fn claim_due(&self, now: OffsetDateTime, lease: Duration, limit: u32) -> Result<Vec<Claimed>, Error>;

    /// Schedules the next attempt for `due_at` and stores the error. Returns `false` if the lease
    /// is lost.
    async fn postpone(&self, id: OrderId, fence: i64, due_at: OffsetDateTime, last_error: &str) -> Result<bool, Error>;

    /// Records that products has released the reservation. Returns `false` if the lease is lost.
    async fn release_done(&self, id: OrderId, fence: i64) -> Result<bool, Error>;

    /// Returns up to `limit` unfinished orders that are unchanged since `unchanged_since` or were
    /// claimed at least `attempts` times, oldest first.
    async fn stuck(&self, unchanged_since: OffsetDateTime, attempts: u32, limit: u32) -> Result<Vec<StuckOrder>, Error>;

    /// Makes an unfinished order due now. Returns `false` if the order does not exist or is
    /// finished.
    async fn retry_now(&self, id: OrderId, now: OffsetDateTime) -> Result<bool, Error>;

    /// Expires the lease of the request that created the order. Returns `false` if a worker has
    /// claimed the order, or if it does not exist or is finished.
    async fn expire_creator_lease(&self, id: OrderId, now: OffsetDateTime) -> Result<bool, Error>;

    /// Returns the order's state at each status after `version`, in order, even if the order was
    /// removed. Empty if there is no later status or no such order.
    async fn history_after(&self, id: OrderId, version: i64) -> Result<Vec<Order>, Error>;

    /// Returns the versions of these orders, including removed ones. Ids without an order are left
    /// out.
    async fn versions(&self, ids: &[OrderId]) -> Result<Vec<(OrderId, i64)>, Error>;

    /// Acquires or extends the outbox lease of `relay` until `until`. Returns `false` if another
    /// relay holds it.
    async fn lease_outbox(&self, relay: Uuid, now: OffsetDateTime, until: OffsetDateTime) -> Result<bool, Error>;

    /// Counts a rejection by the broker for each event and stores its reason. Events that were
    /// rejected `max_attempts` times are dead-lettered; returns their number.
    async fn mark_rejected(&self, events: &[(Uuid, String)], max_attempts: u32, now: OffsetDateTime) -> Result<u64, Error>;

    /// Returns up to `limit` dead-lettered events, oldest first.
    async fn dead_events(&self, limit: u32) -> Result<Vec<DeadEvent>, Error>;

    /// Makes all dead-lettered events publishable again and returns their number.
    async fn redrive(&self) -> Result<u64, Error>;

    /// Returns up to `limit` events that are neither published nor dead-lettered, oldest first.
    async fn unpublished(&self, limit: u32) -> Result<Vec<Event>, Error>;

    /// Marks the events as published.
    async fn mark_published(&self, events: &[Uuid], now: OffsetDateTime) -> Result<(), Error>;

    /// Deletes events that were published before `before` and returns their number.
    async fn prune_published(&self, before: OffsetDateTime) -> Result<u64, Error>;

    /// Deletes expired idempotency keys and returns their number.
    async fn delete_expired_keys(&self, now: OffsetDateTime) -> Result<u64, Error>;

    /// Audits the invariants of all orders created at `since` or later, or of all orders without
    /// `since`. In addition, an order of any age violates an invariant if it has been due for
    /// longer than `overdue_after`.
    async fn audit(&self, now: OffsetDateTime, overdue_after: Duration, since: Option<OffsetDateTime>) -> Result<Audit, Error>;

    /// Returns the saga statuses of these orders, including removed ones. Ids without an order are
    /// left out.
    async fn saga_statuses(&self, ids: &[OrderId]) -> Result<Vec<SagaStatus>, Error>;

    /// Returns the amount of unfinished work, for gauges.
    async fn stats(&self, now: OffsetDateTime) -> Result<Stats, Error>;
}

/// Whether `url` is a valid connection string of a supported store. Does not connect.
pub fn is_supported_url(url: &str) -> bool {
    match url.split_once("://") {
        Some(("postgres" | "postgresql", _)) => PostgresStore::is_valid_url(url),
        Some(("sqlite", path)) => !path.is_empty(),
        _ => false,
    }
}

/// Data of an order to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    /// Id of the order, chosen before the first attempt.
    pub id: OrderId,
    /// Validated order request.
    pub order: NewOrder,
    /// Duration of the caller's lease. A worker may claim the order afterwards.
    pub lease: Duration,
    /// Time at which the order fails if it is still PENDING.
    pub deadline: OffsetDateTime,
    /// W3C `traceparent` of the request, for linked traces.
    pub trace_parent: Option<String>,
    /// Idempotency key of the request.
    pub key: Option<IdempotencyKey>,
    /// Whether the request is a retry of a failed attempt. The first attempt's caller has gone, so
    /// the result does not depend on whether that attempt is still running.
    pub is_retry: bool,
}

/// Result of [`Store::create`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateResult {
    /// The order is accepted and leased to the caller.
    Created(Claimed),
    /// The key was used for the same request. Holds its response.
    Replayed {
        /// Content of [`StoredResponse::bytes`].
        response: Vec<u8>,
    },
    /// The key was used for the same request, but no response was stored, e.g. after a crash. The
    /// response must be built from this order.
    Existing(Order),
    /// The key was used for a different request.
    KeyReused,
    /// The first request with this key is still in progress.
    InProgress,
}

/// An order with a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The order and its saga.
    pub saga: Saga,
    /// Fencing token of the lease. Each later lease has a greater one.
    pub fence: i64,
    /// W3C `traceparent` of the request that created the order.
    pub trace_parent: Option<String>,
}

/// Result of [`Store::transition`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransitionResult {
    /// The transition is recorded and the lease continues.
    Applied(Claimed),
    /// The lease is lost: the order was claimed or changed meanwhile. Holds its current state.
    Fenced(Order),
}

/// Result of [`Store::set_status`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetStatusResult {
    /// The status is changed.
    Changed {
        /// Previous status.
        from: Status,
        /// Order after the change.
        order: Order,
    },
    /// The order already had the status.
    Unchanged(Order),
    /// The transition is illegal.
    Illegal {
        /// Current state of the order.
        order: Order,
        /// Statuses that this actor may change it to.
        allowed: &'static [Status],
    },
    /// The order does not exist or was removed.
    NotFound,
}

/// Result of [`Store::remove`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveResult {
    /// The order is hidden.
    Removed,
    /// The order does not exist or was removed earlier.
    NotFound,
    /// The order is not in a terminal state. Holds its status.
    InProgress(Status),
}

/// Store error. A missing order is not an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database is unreachable or rejects work. A write may or may not have happened.
    #[error("the order store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The call timed out. A write may or may not have happened.
    #[error("the order store timed out")]
    Timeout,
    /// Stored or written data violates the schema or the domain rules.
    #[error("the order store is corrupt: {0}")]
    Corrupt(String),
}

impl Claimed {
    /// Returns the lease after `transition` was recorded at `now`.
    #[must_use]
    pub fn after(&self, transition: &Transition, now: OffsetDateTime) -> Self {
        Self { saga: self.saga.clone().after(transition, now), ..self.clone() }
    }
}

impl Create {
    /// Returns the caller's lease on the order, accepted at `now`.
    pub(crate) fn claimed(&self, now: OffsetDateTime) -> Claimed {
        let order = Order::accepted(self.id, self.order.clone(), now);
        let saga = Saga { order, release_pending: false, deadline: self.deadline, attempts: 1 };
        Claimed { saga, fence: FIRST_FENCE, trace_parent: self.trace_parent.clone() }
    }
}

/// Fence of the lease that the creation grants.
const FIRST_FENCE: i64 = 1;
