//! Store of the simulated orders services.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use palisade_events::{Destination, Lease};
use palisade_middleware::{auth::Subject, clock::Clock, preconditions::VersionPreconditions};
use palisade_orders::{
    order::{Actor, HistoryEntry, Line, MaxTotal, Order, OrderId, Status},
    saga::{RevisionEnd, Transition},
    store::{
        Audit, Claimed, ConfirmedOrder, Create, CreateResult, DeadEvent, DueFulfilment, ErasedKeys, ErasedOrders, ErasureStore, Error,
        Event, FulfilmentQueue, List, Maintenance, OrderStore, OutboxStore, Overdue, Page, PastRetention, QuarantinedOrder, Redriven,
        RemoveResult, RequestRevisionResult, RetentionStore, SagaQueue, SagaStatus, SetStatusResult, SettledPage, SettledPosition,
        SqliteStore, Stats, StoredResponse, StuckOrder, TransitionResult,
    },
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    clock::SimulatedClock,
    disk::{Disk, DiskError, Kind},
};

/// SQLite store behind a simulated disk.
#[derive(Clone)]
pub struct SimulatedStore {
    /// The store.
    pub inner: Arc<SqliteStore>,
    /// Its disk.
    pub disk: Arc<Disk>,
    /// Clock of the database server, if several replicas share the database.
    pub server_clock: Option<SimulatedClock>,
    /// Host of the process that uses it.
    pub host: String,
}

impl SimulatedStore {
    /// A process that shares its database takes over nothing when it starts.
    fn shared_take_over(&self) -> Option<u64> {
        self.server_clock.as_ref().map(|_| 0)
    }

    #[expect(clippy::option_option, reason = "the result of a call, if this replaces it")]
    fn server_time(&self) -> Option<Option<OffsetDateTime>> {
        self.server_clock.as_ref().map(|clock| Some(clock.now()))
    }
}

impl DiskError for Error {
    fn unavailable(reason: &'static str) -> Self {
        Self::Unavailable(reason.into())
    }
}

simulated_role! { OrderStore {
    Write create(create: Create, now: OffsetDateTime) -> CreateResult;
    Write store_response(id: OrderId, response: StoredResponse) -> ();
    Write expire_creator_lease(id: OrderId, now: OffsetDateTime) -> bool;
    Write set_status(id: OrderId, to: Status, by: Actor, preconditions: VersionPreconditions, now: OffsetDateTime) -> SetStatusResult;
    Write request_revision(id: OrderId, wanted: (Vec<Line>, Option<MaxTotal>), by: Actor, preconditions: VersionPreconditions, lease: Duration, now: OffsetDateTime) -> RequestRevisionResult;
    Write remove(id: OrderId, by: Actor, preconditions: VersionPreconditions, now: OffsetDateTime) -> RemoveResult;
    Read find(id: OrderId) -> Option<Order>;
    Read list(list: List) -> Page;
    Read history_after(id: OrderId, version: i64) -> Vec<Order>;
    Read history(id: OrderId) -> Vec<HistoryEntry>;
    Read versions(ids: Vec<OrderId>) -> Vec<(OrderId, i64)>;
    Write delete_expired_keys(now: OffsetDateTime, limit: u32) -> u64;
} }

simulated_role! { SagaQueue {
    Write claim_due(now: OffsetDateTime, lease: Duration, limit: u32) -> Vec<Claimed>;
    Write transition(claimed: Claimed, transitions: Vec<Transition>, response: Option<StoredResponse>, now: OffsetDateTime) -> TransitionResult;
    Write end_revision(claimed: Claimed, end: RevisionEnd, now: OffsetDateTime) -> TransitionResult;
    Write extend_lease(id: OrderId, fence: i64, until: OffsetDateTime) -> bool;
    Write postpone(id: OrderId, fence: i64, due_at: OffsetDateTime, last_error: String) -> bool;
    Write release_done(id: OrderId, fence: i64) -> bool;
    Read stuck(unchanged_since: OffsetDateTime, attempts: u32, limit: u32) -> Vec<StuckOrder>;
    Read quarantined(limit: u32) -> Vec<QuarantinedOrder>;
    Write retry_now(id: OrderId, now: OffsetDateTime) -> bool;
} }

simulated_role! { FulfilmentQueue {
    Write claim_fulfilments(now: OffsetDateTime, lease: Duration, limit: u32) -> Vec<DueFulfilment>;
    Write fulfilment_done(id: OrderId) -> ();
    Write postpone_fulfilment(id: OrderId, due_at: OffsetDateTime, last_error: String) -> ();
} }

simulated_role! { OutboxStore {
    Write lease_outbox(relay: Uuid, destination: Destination, now: OffsetDateTime, until: OffsetDateTime) -> Lease;
    Write reset_relay() -> ();
    Read unpublished(limit: u32) -> Vec<Event>;
    Write mark_published(events: Vec<Uuid>, destination: Destination, now: OffsetDateTime) -> ();
    Write mark_rejected(events: Vec<(Uuid, String)>, max_attempts: u32, now: OffsetDateTime) -> u64;
    Read dead_events(limit: u32) -> Vec<DeadEvent>;
    Write redrive(after: i64, limit: u32) -> Redriven;
    Write prune_published(before: OffsetDateTime, limit: u32) -> u64;
} }

simulated_role! { RetentionStore {
    Read settled_orders(status: Status, before: OffsetDateTime, after: Option<SettledPosition>, limit: u32) -> SettledPage;
    Write delete_settled(ids: Vec<OrderId>) -> u64;
} }

simulated_role! { ErasureStore {
    Read unsettled_orders(subject: Subject) -> Vec<(Status, u64)>;
    Write erase_keys(subject: Subject, limit: u32) -> ErasedKeys;
    Write erase_orders(subject: Subject, pseudonym: Subject, after: OrderId, limit: u32) -> ErasedOrders;
} }

simulated_role! { Maintenance {
    Write migrate() -> ();
    Write take_over(now: OffsetDateTime) -> u64, unless shared_take_over;
    Read ping() -> Option<OffsetDateTime>, unless server_time;
    Read audit(now: OffsetDateTime, overdue_after: Duration, since: Option<OffsetDateTime>) -> Audit;
    Read saga_statuses(ids: Vec<OrderId>) -> Vec<SagaStatus>;
    Read confirmed_orders(after: Uuid, until: Option<Uuid>, limit: u32) -> Vec<ConfirmedOrder>;
    Read stats(now: OffsetDateTime) -> Stats;
    Read overdue(now: OffsetDateTime, past: PastRetention) -> Overdue;
} }
