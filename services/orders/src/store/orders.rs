//! Orders: creation with idempotency keys, queries and status changes by users.

use std::time::Duration;

use palisade_middleware::{auth::Subject, planted, preconditions::VersionPreconditions};
use time::OffsetDateTime;

use super::{
    database::Error,
    instrumented::{ChangeResult, instrumented_role},
    queries::{List, Page},
    revisions::RequestRevisionResult,
};
use crate::{
    order::{Actor, HistoryEntry, Line, MaxTotal, NewOrder, Order, OrderId, Status},
    saga::{Saga, Transition},
};

/// Retention of an idempotency key.
pub const KEY_LIFETIME: Duration = Duration::from_hours(24);

/// Fence of the lease that the creation grants.
pub(super) const FIRST_FENCE: i64 = 1;

instrumented_role! {
    /// Orders, their history and their idempotency keys.
    pub trait OrderStore {
        /// Accepts an order. Writes the order, its lines, its first history row, its outbox row and
        /// its idempotency key atomically.
        async fn create(&self, create: Create, now: OffsetDateTime) -> Result<CreateResult, Error> = change("create", "orders");

        /// Stores the response of a create for replays, unless one is stored already.
        async fn store_response(&self, id: OrderId, response: StoredResponse) -> Result<(), Error>
            = call("store_answer", "idempotency_keys");

        /// Expires the lease of the request that created the order. Returns `false` if a worker has
        /// claimed the order, or if it does not exist or is finished.
        async fn expire_creator_lease(&self, id: OrderId, now: OffsetDateTime) -> Result<bool, Error> = call("take_from_creator", "orders");

        /// Changes the status on behalf of a user if the version satisfies `preconditions`. A
        /// cancellation makes a release pending in the same step.
        async fn set_status(
            &self,
            id: OrderId,
            to: Status,
            by: Actor,
            preconditions: VersionPreconditions,
            now: OffsetDateTime,
        ) -> Result<SetStatusResult, Error> = change("set_status", "orders");

        /// Requests the revision of a CONFIRMED order to these lines and maximum total if the
        /// version satisfies `preconditions`, and leases the order to the caller.
        async fn request_revision(
            &self,
            id: OrderId,
            wanted: (Vec<Line>, Option<MaxTotal>),
            by: Actor,
            preconditions: VersionPreconditions,
            lease: Duration,
            now: OffsetDateTime,
        ) -> Result<RequestRevisionResult, Error> = change("request_revision", "orders");

        /// Removes an order in a terminal state on behalf of `by` (soft delete) if its version
        /// satisfies `preconditions`. Its history remains, and so does a pending release.
        async fn remove(
            &self,
            id: OrderId,
            by: Actor,
            preconditions: VersionPreconditions,
            now: OffsetDateTime,
        ) -> Result<RemoveResult, Error> = call("remove", "orders");

        /// Returns the order, also if it was removed, or `None` if it does not exist.
        async fn find(&self, id: OrderId) -> Result<Option<Order>, Error> = call("find", "orders");

        /// Returns one page of orders, newest first.
        async fn list(&self, list: List) -> Result<Page, Error> = call("list", "orders");

        /// Returns the order's state at each status after `version`, in order, even if the order
        /// was removed. Empty if there is no later status or no such order.
        async fn history_after(&self, id: OrderId, version: i64) -> Result<Vec<Order>, Error> = call("changes", "order_history");

        /// Returns the recorded changes of the order, oldest first, at most
        /// [`MAX_HISTORY`](crate::order::MAX_HISTORY), even if the order was removed. Empty if
        /// there is no such order.
        async fn history(&self, id: OrderId) -> Result<Vec<HistoryEntry>, Error> = call("history", "order_history");

        /// Returns the versions of these orders, including removed ones. Ids without an order are
        /// left out.
        async fn versions(&self, ids: Vec<OrderId>) -> Result<Vec<(OrderId, i64)>, Error> = call("versions", "orders");

        /// Deletes up to `limit` expired idempotency keys and returns their number.
        async fn delete_expired_keys(&self, now: OffsetDateTime, limit: u32) -> Result<u64, Error> = call("sweep_keys", "idempotency_keys");
    }
}

/// Data of an order to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    /// Id of the order, chosen before the first attempt.
    pub id: OrderId,
    /// Validated order request.
    pub order: NewOrder,
    /// Actor of the creation.
    pub by: Actor,
    /// Duration of the caller's lease. A worker may claim the order afterwards.
    pub lease: Duration,
    /// Time at which the order fails if it is still PENDING.
    pub deadline: OffsetDateTime,
    /// W3C `traceparent` of the request, for linked traces.
    pub trace_parent: Option<String>,
    /// Idempotency key of the request.
    pub key: Option<IdempotencyKey>,
    /// Whether the request is a retry of a failed attempt. The caller of the first attempt has
    /// disconnected, so the result does not depend on whether that attempt is still running.
    pub is_retry: bool,
}

/// Idempotency key of a request: repeated create requests yield one order and one response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Caller. Keys are unique per subject.
    pub subject: Subject,
    /// Key that the caller sent.
    pub key: String,
    /// Digest of the request. A different digest under the same key is an error of the caller.
    pub fingerprint: [u8; 32],
}

/// Stored response of the request with this key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResponse {
    /// Idempotency key of the request.
    pub key: IdempotencyKey,
    /// Encoded response, opaque to the store.
    pub bytes: Vec<u8>,
}

/// Result of [`OrderStore::create`].
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

/// Result of [`OrderStore::set_status`].
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
    /// The version of the order does not satisfy the preconditions.
    VersionMismatch,
    /// The order does not exist.
    NotFound,
}

/// Result of [`OrderStore::remove`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveResult {
    /// The order is hidden.
    Removed,
    /// The version of the order does not satisfy the preconditions.
    VersionMismatch,
    /// The order does not exist or was removed earlier.
    NotFound,
    /// The order is not in a terminal state. Holds its status.
    InProgress(Status),
}

/// A stored key and the state of its order.
pub(super) struct ExistingKey {
    pub(super) fingerprint: Vec<u8>,
    pub(super) response: Option<Vec<u8>>,
    pub(super) fence: i64,
    pub(super) due_at: Option<OffsetDateTime>,
    pub(super) order: Order,
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
        let max_total = self.order.max_total();
        let saga = Saga { order, release_pending: false, deadline: self.deadline, attempts: 1, max_total };
        Claimed { saga, fence: FIRST_FENCE, trace_parent: self.trace_parent.clone() }
    }
}

impl ExistingKey {
    /// Result of a create with the same key at `now`. A key remains usable after its creator
    /// crashed.
    pub(super) fn resolve(self, key: &IdempotencyKey, is_retry: bool, now: OffsetDateTime) -> CreateResult {
        let creator_is_active = !is_retry && self.fence == FIRST_FENCE && self.due_at.is_some_and(|due_at| due_at > now);
        match self.response {
            _ if self.fingerprint != key.fingerprint && !planted!("fingerprint ignored") => CreateResult::KeyReused,
            Some(response) => CreateResult::Replayed { response },
            None if creator_is_active => CreateResult::InProgress,
            None => CreateResult::Existing(self.order),
        }
    }
}

impl ChangeResult for CreateResult {
    fn changed_order(&self) -> Option<&Order> {
        if let Self::Created(claimed) = self { Some(&claimed.saga.order) } else { None }
    }
}

impl ChangeResult for SetStatusResult {
    fn changed_order(&self) -> Option<&Order> {
        if let Self::Changed { order, .. } = self { Some(order) } else { None }
    }
}
