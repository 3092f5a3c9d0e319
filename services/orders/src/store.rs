//! Where orders are kept: one trait, two databases, the same suite for both.
//!
//! Every method is one atomic step. An order that has work left has a due time: in the past it waits for a worker, in the future
//! it is leased to one or backing off. Taking an order up, and every change by a person, raises its fence, so that a worker which
//! lost its lease can record nothing more.

use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    order::{Actor, NewOrder, Order, OrderId, Status},
    saga::{Saga, Transition},
};

mod audit;
mod instrumented;
mod change;
mod sqlx_error;
mod history;
mod key;
mod outbox;
mod page;
mod pool;
mod postgres;
mod sqlite;

pub use self::{
    audit::{Audit, Finding, Invariant, SagaStatus, Stats, StuckOrder},
    instrumented::InstrumentedStore,
    key::{StoredResponse, IdempotencyKey, KEY_LIFETIME},
    outbox::{DeadEvent, Event},
    page::{List, Page, Position},
    postgres::PostgresStore,
    sqlite::SqliteStore,
};

/// Keeps orders, their history, the idempotency keys and the outbox.
#[async_trait]
pub trait Store: Send + Sync {
    /// Brings the schema up to date. Safe to repeat, and beside other replicas that do the same.
    async fn migrate(&self) -> Result<(), Error>;

    /// Whether the database answers.
    async fn ping(&self) -> Result<(), Error>;

    /// Accepts an order: the order, its lines, its first history row, its outbox row and its idempotency key, or nothing at all.
    async fn create(&self, create: Create, now: OffsetDateTime) -> Result<CreateResult, Error>;

    /// Records what the saga decided, if `claimed` is still the one that works on the order.
    /// `answer` is kept for replays in the same step.
    async fn transition(
        &self,
        claimed: &Claimed,
        transition: Transition,
        response: Option<StoredResponse>,
        now: OffsetDateTime,
    ) -> Result<TransitionResult, Error>;

    /// Changes the status because a person wants it; a cancelled order has a release queued in the same step.
    async fn set_status(&self, id: OrderId, to: Status, by: Actor, now: OffsetDateTime) -> Result<SetStatusResult, Error>;

    /// Keeps the answer of a create for replays, unless one is kept already.
    async fn store_response(&self, id: OrderId, response: StoredResponse) -> Result<(), Error>;

    /// The order, unless it was removed.
    async fn find(&self, id: OrderId) -> Result<Option<Order>, Error>;

    /// One page of orders, newest first.
    async fn list(&self, list: List) -> Result<Page, Error>;

    /// Hides an order that is at its end. Its history stays, and so does a release that is queued.
    async fn remove(&self, id: OrderId, now: OffsetDateTime) -> Result<RemoveResult, Error>;

    /// Takes up to `limit` due orders, longest due first, each for `lease`. Nobody else gets them until then.
    async fn claim_due(&self, now: OffsetDateTime, lease: Duration, limit: u32) -> Result<Vec<Claimed>, Error>;

    /// Puts the order off until `due_at`, and says why. `false`: somebody else works on it now.
    async fn postpone(&self, id: OrderId, fence: i64, due_at: OffsetDateTime, last_error: &str) -> Result<bool, Error>;

    /// Notes that products has answered the release. `false`: somebody else works on the order now.
    async fn release_done(&self, id: OrderId, fence: i64) -> Result<bool, Error>;

    /// Up to `limit` unfinished orders that did not change since `unchanged_since`, or were taken up `attempts` times in vain; oldest first.
    async fn stuck(&self, unchanged_since: OffsetDateTime, attempts: u32, limit: u32) -> Result<Vec<StuckOrder>, Error>;

    /// Makes an unfinished order due at once. `false`: there is no such order, or nothing is left to do.
    async fn retry_now(&self, id: OrderId, now: OffsetDateTime) -> Result<bool, Error>;

    /// Makes an unfinished order due at once that nobody but the request that made it has worked on. `false`: there is no such order.
    async fn expire_creator_lease(&self, id: OrderId, now: OffsetDateTime) -> Result<bool, Error>;

    /// The order as it was with each status after `version`, in order, removed or not; empty if there was none, or no such order.
    async fn history_after(&self, id: OrderId, version: i64) -> Result<Vec<Order>, Error>;

    /// The versions of these orders, removed ones too; an id that is missing in the answer does not exist.
    async fn versions(&self, ids: &[OrderId]) -> Result<Vec<(OrderId, i64)>, Error>;

    /// Makes `relay` the one that publishes events, until `until`. `false`: another one is.
    async fn lease_outbox(&self, relay: Uuid, now: OffsetDateTime, until: OffsetDateTime) -> Result<bool, Error>;

    /// Notes that the broker refused these events, and why; those that it refused `most` times are dead. Answers how many died.
    async fn mark_rejected(&self, events: &[(Uuid, String)], max_attempts: u32, now: OffsetDateTime) -> Result<u64, Error>;

    /// Up to `limit` events that are dead, oldest first.
    async fn dead_events(&self, limit: u32) -> Result<Vec<DeadEvent>, Error>;

    /// Brings all dead events back to life; answers how many.
    async fn redrive(&self) -> Result<u64, Error>;

    /// Up to `limit` events that are neither published nor dead, oldest first.
    async fn unpublished(&self, limit: u32) -> Result<Vec<Event>, Error>;

    /// Notes that these events are published.
    async fn mark_published(&self, events: &[Uuid], now: OffsetDateTime) -> Result<(), Error>;

    /// Forgets what was published before `before`; answers how many events.
    async fn prune_published(&self, before: OffsetDateTime) -> Result<u64, Error>;

    /// Deletes idempotency keys that are out of date; answers how many.
    async fn delete_expired_keys(&self, now: OffsetDateTime) -> Result<u64, Error>;

    /// Checks the invariants over everything that is stored of orders that were made at `since` or later, of all if there is none. An order,
    /// whenever it was made, is overdue when it is due for longer than `overdue_after`.
    async fn audit(&self, now: OffsetDateTime, overdue_after: Duration, since: Option<OffsetDateTime>) -> Result<Audit, Error>;

    /// How these orders stand, removed ones too; an id that is missing in the answer does not exist.
    async fn saga_statuses(&self, ids: &[OrderId]) -> Result<Vec<SagaStatus>, Error>;

    /// How much work is left, for gauges.
    async fn stats(&self, now: OffsetDateTime) -> Result<Stats, Error>;
}

/// Whether a connection string is one of a store that there is, without connecting.
pub fn is_supported_url(url: &str) -> bool {
    match url.split_once("://") {
        Some(("postgres" | "postgresql", _)) => PostgresStore::is_valid_url(url),
        Some(("sqlite", path)) => !path.is_empty(),
        _ => false,
    }
}

/// An order to accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    /// The order's id, chosen before the first try.
    pub id: OrderId,
    /// What is ordered, and for whom.
    pub order: NewOrder,
    /// How long the caller works on it before a worker may.
    pub lease: Duration,
    /// When it fails if it is still PENDING.
    pub deadline: OffsetDateTime,
    /// W3C `traceparent` of the request, for whatever follows from it.
    pub trace_parent: Option<String>,
    /// The caller's idempotency key.
    pub key: Option<IdempotencyKey>,
    /// Whoever sends it says that an earlier attempt failed: its caller no longer waits for whoever works on its order, dead or alive.
    pub is_retry: bool,
}

/// What became of a create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateResult {
    /// The order is accepted, and leased to the caller.
    Created(Claimed),
    /// The key was used for the same request; this was its answer.
    Replayed {
        /// As it was given in [`Answer::bytes`].
        response: Vec<u8>,
    },
    /// The key was used for the same request, but whoever worked on it went away without an answer: answer from this order.
    Existing(Order),
    /// The key was used for another request.
    KeyReused,
    /// The first request with this key is still at work.
    InProgress,
}

/// An order that is leased to its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The order and its saga.
    pub saga: Saga,
    /// Names this lease: every later one has a greater fence.
    pub fence: i64,
    /// W3C `traceparent` of the request that created the order.
    pub trace_parent: Option<String>,
}

/// What became of a [`Store::transition`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransitionResult {
    /// It is recorded; the lease goes on.
    Applied(Claimed),
    /// Somebody else took the order up or changed it: this is how it stands.
    Fenced(Order),
}

/// What became of a [`Store::set_status`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetStatusResult {
    /// It is changed.
    Changed {
        /// What it was.
        from: Status,
        /// How it stands.
        order: Order,
    },
    /// It was so already.
    Unchanged(Order),
    /// The order may not become that.
    Illegal {
        /// How it stands.
        order: Order,
        /// What this actor may make of it.
        allowed: &'static [Status],
    },
    /// No such order, or it was removed.
    NotFound,
}

/// What became of a [`Store::remove`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveResult {
    /// It is hidden now.
    Removed,
    /// No such order, or it was removed before.
    NotFound,
    /// It is not at its end; this is its status.
    InProgress(Status),
}

/// Why a store could not answer. "Not found" is not among them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be reached or refuses to work; whether a write happened is not known.
    #[error("the order store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time; whether a write happened is not known.
    #[error("the order store did not answer in time")]
    Timeout,
    /// The database holds, or was asked to hold, what it never should.
    #[error("the order store is corrupt: {0}")]
    Corrupt(String),
}

impl Claimed {
    /// The lease as it goes on once `transition` was recorded at `now`.
    #[must_use]
    pub fn after(&self, transition: &Transition, now: OffsetDateTime) -> Self {
        Self { saga: self.saga.clone().after(transition, now), ..self.clone() }
    }
}

impl Create {
    /// The lease that the caller has once the order is accepted at `now`.
    pub(crate) fn claimed(&self, now: OffsetDateTime) -> Claimed {
        let order = Order::accepted(self.id, self.order.clone(), now);
        let saga = Saga { order, release_pending: false, deadline: self.deadline, attempts: 1 };
        Claimed { saga, fence: FIRST_FENCE, trace_parent: self.trace_parent.clone() }
    }
}

/// The fence of the lease that comes with the creation.
const FIRST_FENCE: i64 = 1;
