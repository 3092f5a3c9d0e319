//! Roles of the store and their results.
//!
//! Invariants for each product, under any interleaving and after any crash: `quantity + held +
//! confirmed = opening + adjustments - fulfilled` and `quantity ≥ 0`.
//!
//! Every method may be repeated. A failed call leaves no effect that a repetition would not
//! complete or undo. `now` is the service's clock; the store has no clock of its own.

use std::{fmt, time::Duration};

use palisade_events::{Destination, Lease};
use palisade_middleware::{auth::Subject, preconditions::VersionPreconditions};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{database::Error, instrumented::instrumented_role};
use crate::{
    product::{Page, Product, Query, ValidatedPatch, ValidatedProduct},
    reservation::{ConfirmOutcome, FulfilOutcome, Lines, Reservation, ReserveOutcome, ReviseOutcome, Revision},
};

/// Retention of the stored response of a create with an idempotency key.
pub const KEY_TTL: Duration = Duration::from_hours(24);

instrumented_role! {
    /// Catalogue and idempotency keys.
    pub trait ProductStore {
        /// Creates a product. Repeating the same `key` returns the stored response for [`KEY_TTL`].
        /// `actor` is the author of the opening entry of its ledger.
        async fn create(
            &self,
            id: Uuid,
            draft: ValidatedProduct,
            key: Option<IdempotencyKey>,
            actor: Subject,
            now: OffsetDateTime,
        ) -> Result<CreateOutcome, Error> = change("create", "products");

        /// Returns the product, if it exists.
        async fn find(&self, id: Uuid) -> Result<Option<Product>, Error> = call("find", "products");

        /// Returns one page of the catalogue.
        async fn list(&self, query: Query) -> Result<Page, Error> = call("list", "products");

        /// Replaces all client-settable fields atomically if the version satisfies `preconditions`.
        /// The difference in `quantity` is an adjustment of the supply, by `actor`.
        async fn update(
            &self,
            id: Uuid,
            draft: ValidatedProduct,
            preconditions: VersionPreconditions,
            actor: Subject,
            now: OffsetDateTime,
        ) -> Result<UpdateOutcome, Error> = change("update", "products");

        /// Changes some fields atomically if [`ValidatedPatch::is_allowed`]. Without a quantity,
        /// the stock is unchanged. An empty patch returns the product.
        async fn patch(
            &self,
            id: Uuid,
            patch: ValidatedPatch,
            preconditions: VersionPreconditions,
            actor: Subject,
            now: OffsetDateTime,
        ) -> Result<UpdateOutcome, Error> = change("patch", "products");

        /// Removes a product that no open reservation holds, if its version satisfies
        /// `preconditions`.
        async fn remove(&self, id: Uuid, preconditions: VersionPreconditions, now: OffsetDateTime) -> Result<RemoveOutcome, Error>
            = change("remove", "products");

        /// Examines up to `limit` products after the id `after` and computes their search data if
        /// it is missing or outdated, as a replica of the previous release leaves it. Returns the
        /// last examined product, or `None` if none is left.
        async fn refresh_search(&self, after: Option<Uuid>, limit: u32) -> Result<Option<Uuid>, Error>
            = change("refresh_search", "products");

        /// Deletes up to `limit` idempotency keys older than [`KEY_TTL`]. Returns their number.
        async fn delete_expired_keys(&self, now: OffsetDateTime, limit: u32) -> Result<u64, Error> = call("sweep_keys", "idempotency_keys");
    }
}

instrumented_role! {
    /// Stock reservations.
    pub trait ReservationStore {
        /// Reserves all lines for `hold_for`, or none.
        async fn reserve(&self, id: Uuid, lines: Lines, now: OffsetDateTime, hold_for: Duration) -> Result<ReserveOutcome, Error>
            = change("reserve", "reservations");

        /// Like [`Self::reserve`], and confirms the reservation in the same step.
        async fn reserve_and_confirm(&self, id: Uuid, lines: Lines, now: OffsetDateTime, hold_for: Duration)
            -> Result<ReserveOutcome, Error> = change("reserve_and_confirm", "reservations");

        /// Confirms a hold that has not expired.
        async fn confirm(&self, id: Uuid, now: OffsetDateTime) -> Result<ConfirmOutcome, Error> = call("confirm", "reservations");

        /// Replaces the lines of a confirmed reservation. It owns its old units until it has all of
        /// the new ones.
        async fn revise(&self, id: Uuid, revision: Revision, now: OffsetDateTime) -> Result<ReviseOutcome, Error>
            = change("revise", "reservations");

        /// Takes the units of a confirmed reservation off the supply, exactly once.
        async fn fulfil(&self, id: Uuid, now: OffsetDateTime) -> Result<FulfilOutcome, Error> = call("fulfil", "reservations");

        /// Releases a reservation and returns its units exactly once. A refused, expired or
        /// fulfilled reservation is unchanged; an unknown id leaves a tombstone.
        async fn release(&self, id: Uuid, now: OffsetDateTime) -> Result<Reservation, Error> = change("release", "reservations");

        /// Releases up to `limit` expired holds and finishes reservations abandoned by a crash.
        /// Puts unreadable ones into quarantine. Returns their number.
        async fn expire_due(&self, now: OffsetDateTime, limit: u32) -> Result<u32, Error> = change("expire_due", "reservations");

        /// Deletes up to `limit` reservations that own no units (refused, released, expired or
        /// fulfilled) and have not changed since `before`. Returns their number.
        async fn delete_settled(&self, before: OffsetDateTime, limit: u32) -> Result<u64, Error> = call("delete_settled", "reservations");

        /// Returns reservations that own units (held or confirmed), sorted by id, after the id
        /// `after`.
        async fn list_reservations(&self, after: Option<Uuid>, limit: u32) -> Result<Vec<Reservation>, Error>
            = call("list", "reservations");
    }
}

instrumented_role! {
    /// Outbox of product changes.
    pub trait OutboxStore {
        /// Acquires or renews the lease of `relay` to `destination` until `until`. A relay to a
        /// broker takes over from one that stays in its process at once.
        async fn lease_relay(
            &self,
            relay: Uuid,
            destination: Destination,
            now: OffsetDateTime,
            until: OffsetDateTime,
        ) -> Result<Lease, Error> = call("lease_relay", "news");

        /// Ends every lease and forgets the destination, for operators: the outbox belongs to the
        /// next relay.
        async fn reset_relay(&self) -> Result<(), Error> = call("reset_relay", "news");

        /// Returns about `limit` products whose latest version is unpublished, oldest change first.
        async fn unpublished_changes(&self, limit: u32) -> Result<Vec<PendingChange>, Error> = call("unpublished", "products");

        /// Marks these versions as published to `destination`. A product that has changed since
        /// then stays in the outbox, and so does one of an outbox that belongs to a broker unless
        /// its change went there.
        async fn mark_published(&self, changes: Vec<PendingChange>, destination: Destination) -> Result<(), Error>
            = call("mark_published", "products");
    }
}

instrumented_role! {
    /// Migration, readiness, statistics and stock audit.
    pub trait Maintenance {
        /// Creates or migrates the schema. Idempotent, and safe with several replicas at once.
        /// Takes as long as it needs.
        async fn migrate(&self) -> Result<(), Error> = untimed_call("prepare", "");

        /// Ends the leases of a process that no longer runs, if this process is the only one that
        /// can use the database.
        async fn take_over(&self, now: OffsetDateTime) -> Result<(), Error> = call("take_over", "news");

        /// Returns the amount of overdue and unreadable rows, for gauges. Settled reservations are
        /// overdue if they have not changed since `settled_before`.
        async fn stats(&self, now: OffsetDateTime, settled_before: OffsetDateTime) -> Result<Stats, Error> = call("stats", "reservations");

        /// Returns up to `limit` reservations in quarantine, oldest first.
        async fn quarantined(&self, limit: u32) -> Result<Vec<Quarantined>, Error> = call("quarantined", "quarantined_reservations");

        /// Releases a reservation from quarantine, after an operator has repaired it. Returns
        /// `false` if it is not there.
        async fn end_quarantine(&self, reservation_id: Uuid) -> Result<bool, Error>
            = call("end_quarantine", "quarantined_reservations");

        /// Checks the balance of every product. Concurrent traffic causes no false violations.
        async fn audit(&self, now: OffsetDateTime) -> Result<Audit, Error> = long_call("audit", "products");

        /// Checks whether the database can be read and, every few seconds, written. Returns the
        /// time of its server, if it has one.
        async fn ping(&self) -> Result<Option<OffsetDateTime>, Error> = call("ping", "");
    }
}

/// Idempotency key of a create or of a stock adjustment. The keys of both are apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Owner of the key: different callers may use equal keys.
    pub subject: Subject,
    /// Value of `Idempotency-Key`.
    pub key: String,
    /// Digest of the request body.
    pub fingerprint: [u8; 32],
}

/// Outcome of a create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateOutcome {
    /// The product exists, or existed. The value is its state at creation.
    Created {
        /// The product.
        product: Product,
        /// Whether an earlier call created it.
        replayed: bool,
    },
    /// The key was used with another body.
    KeyReused,
}

/// Outcome of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateOutcome {
    /// The updated product.
    Updated(Product),
    /// The product does not exist.
    NotFound,
    /// The version of the product does not satisfy the preconditions.
    VersionMismatch,
}

/// Outcome of a remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveOutcome {
    /// The product is removed.
    Removed,
    /// The product does not exist.
    NotFound,
    /// The version of the product does not satisfy the preconditions.
    VersionMismatch,
    /// Open reservations hold units of the product.
    InUse,
}

/// Unpublished change of a product (outbox record).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingChange {
    /// Id of the product.
    pub product_id: Uuid,
    /// Latest version, or [`Self::REMOVED`].
    pub version: i64,
    /// Time of the first unpublished change.
    pub since: OffsetDateTime,
}

/// Reservation that cannot be read. The sweeper leaves it alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// The reservation.
    pub reservation_id: Uuid,
    /// Reason why it cannot be read.
    pub reason: String,
    /// Time of the first failure.
    pub since: OffsetDateTime,
}

/// Rows that need attention, each counted up to 10,000.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Expired idempotency keys.
    pub overdue_keys: u64,
    /// Settled reservations past their retention.
    pub overdue_reservations: u64,
    /// Reservations in quarantine.
    pub quarantined: u64,
}

/// Result of [`Maintenance::audit`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// Number of audited products.
    pub products_checked: u64,
    /// Products that violate the balance.
    pub violations: Vec<Imbalance>,
    /// Units in held reservations.
    pub held_units: i64,
    /// Units in confirmed reservations.
    pub confirmed_units: i64,
    /// Units available for sale.
    pub available_units: i64,
    /// Number of products without available units.
    pub out_of_stock_products: u64,
    /// Number of expired holds that are not released yet.
    pub overdue_holds: u64,
    /// Number of products and reservations that cannot be read, and were not audited.
    pub unreadable: u64,
}

/// Product that violates `quantity + taken = supply`, `taken = reserved`, `ledger = supply` or
/// `quantity ≥ 0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imbalance {
    /// Id of the product.
    pub product_id: Uuid,
    /// Opening stock plus all adjustments, less the fulfilled units.
    pub supply: i64,
    /// Units available for sale.
    pub quantity: i64,
    /// Reserved units according to the product.
    pub taken: i64,
    /// Reserved units according to the reservations.
    pub reserved: i64,
    /// Supply according to the stock ledger.
    pub ledger: i64,
}

impl PendingChange {
    /// Version of a removed product: above all others. Ids are never reused.
    pub const REMOVED: i64 = i64::MAX;
}

impl Imbalance {
    /// Returns the violation, or `None` if the product is balanced.
    pub(super) fn check(self) -> Option<Self> {
        let Self { supply, quantity, taken, reserved, ledger, .. } = self;
        let balanced = quantity >= 0 && taken == reserved && quantity.checked_add(taken) == Some(supply) && ledger == supply;
        (!balanced).then_some(self)
    }
}

impl fmt::Display for Imbalance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { product_id, supply, quantity, taken, reserved, ledger } = self;
        write!(f, "product {product_id}: quantity {quantity}, taken {taken}, reserved {reserved}, supply {supply}, ledger {ledger}")
    }
}
