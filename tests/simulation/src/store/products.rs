//! Store of the simulated products services.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use palisade_events::{Destination, Lease};
use palisade_middleware::{auth::Subject, clock::Clock, preconditions::VersionPreconditions};
use palisade_products::{
    product::{Change, Page, Product, Query, ValidatedPatch, ValidatedProduct},
    reservation::{ConfirmOutcome, FulfilOutcome, Lines, Reservation, ReserveOutcome, ReviseOutcome, Revision},
    stock_ledger::{AdjustOutcome, Adjustment, LedgerPage, LedgerQuery},
    store::{
        Audit, CreateOutcome, ErasureStore, Error, HistoryStore, IdempotencyKey, LedgerStore, Maintenance, OutboxStore, PendingChange,
        ProductStore, Quarantined, RemoveOutcome, ReservationStore, SqliteStore, Stats, UpdateOutcome,
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

simulated_role! { ProductStore {
    Write create(id: Uuid, draft: ValidatedProduct, key: Option<IdempotencyKey>, actor: Subject, now: OffsetDateTime) -> CreateOutcome;
    Read find(id: Uuid) -> Option<Product>;
    Read list(query: Query) -> Page;
    Write update(id: Uuid, draft: ValidatedProduct, preconditions: VersionPreconditions, actor: Subject, now: OffsetDateTime) -> UpdateOutcome;
    Write patch(id: Uuid, patch: ValidatedPatch, preconditions: VersionPreconditions, actor: Subject, now: OffsetDateTime) -> UpdateOutcome;
    Write remove(id: Uuid, preconditions: VersionPreconditions, now: OffsetDateTime) -> RemoveOutcome;
    Write refresh_search(after: Option<Uuid>, limit: u32) -> Option<Uuid>;
    Write delete_expired_keys(now: OffsetDateTime, limit: u32) -> u64;
} }

simulated_role! { ReservationStore {
    Write reserve(id: Uuid, lines: Lines, now: OffsetDateTime, hold_for: Duration) -> ReserveOutcome;
    Write reserve_and_confirm(id: Uuid, lines: Lines, now: OffsetDateTime, hold_for: Duration) -> ReserveOutcome;
    Write confirm(id: Uuid, now: OffsetDateTime) -> ConfirmOutcome;
    Write revise(id: Uuid, revision: Revision, now: OffsetDateTime) -> ReviseOutcome;
    Write fulfil(id: Uuid, now: OffsetDateTime) -> FulfilOutcome;
    Write release(id: Uuid, now: OffsetDateTime) -> Reservation;
    Write expire_due(now: OffsetDateTime, limit: u32) -> u32;
    Write delete_settled(before: OffsetDateTime, limit: u32) -> u64;
    Read list_reservations(after: Option<Uuid>, limit: u32) -> Vec<Reservation>;
} }

simulated_role! { OutboxStore {
    Write lease_relay(relay: Uuid, destination: Destination, now: OffsetDateTime, until: OffsetDateTime) -> Lease;
    Write reset_relay() -> ();
    Read unpublished_changes(limit: u32) -> Vec<PendingChange>;
    Write mark_published(changes: Vec<PendingChange>, destination: Destination) -> ();
} }

simulated_role! { Maintenance {
    Write migrate() -> ();
    Write take_over(now: OffsetDateTime) -> ();
    Read stats(now: OffsetDateTime, settled_before: OffsetDateTime) -> Stats;
    Read quarantined(limit: u32) -> Vec<Quarantined>;
    Write end_quarantine(reservation_id: Uuid) -> bool;
    Read audit(now: OffsetDateTime) -> Audit;
    Read ping() -> Option<OffsetDateTime>, unless server_time;
} }

simulated_role! { HistoryStore {
    Read history(id: Uuid) -> Option<Vec<Change>>;
} }

simulated_role! { LedgerStore {
    Write adjust(adjustment: Adjustment, key: Option<IdempotencyKey>, actor: Subject, now: OffsetDateTime) -> AdjustOutcome;
    Read ledger(query: LedgerQuery) -> Option<LedgerPage>;
    Write reconcile_ledger(after: Option<Uuid>, limit: u32) -> Option<Uuid>;
    Write fold_ledger(before: OffsetDateTime, limit: u32) -> u64;
} }

simulated_role! { ErasureStore {
    Write erase_keys(subject: Subject, limit: u32) -> u64;
    Write erase_authors(subject: Subject, pseudonym: Subject, limit: u32) -> u64;
    Write erase_actors(subject: Subject, pseudonym: Subject, limit: u32) -> u64;
} }
