//! What the service asks of whoever keeps its products and their stock.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    product::{ValidatedProduct, Page, Product, Query},
    reservation::{Confirmed, Lines, Reservation, ReserveOutcome},
};

mod instrumented;
mod timestamp;
mod mongo;
mod sqlite;

pub use instrumented::InstrumentedStore;
pub use mongo::MongoStore;
pub use sqlite::SqliteStore;

/// How long a create's answer is kept for its idempotency key.
pub const KEY_TTL: Duration = Duration::from_hours(24);

/// Products and their stock. Whatever the interleaving, crashes included, for each product
/// `quantity + held + confirmed = opening + adjustments` and `quantity ≥ 0`.
///
/// Every method may be repeated, and none leaves a trace when it fails that a repetition would not complete or undo.
/// `now` is the service's clock: the store has none of its own.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Adds a product. The same `key` again gives the stored answer for [`KEY_KEPT_FOR`].
    async fn create(&self, id: Uuid, draft: ValidatedProduct, key: Option<IdempotencyKey>, now: OffsetDateTime) -> Result<Created, Error>;

    /// The product, if there is one.
    async fn find(&self, id: Uuid) -> Result<Option<Product>, Error>;

    /// One page of the catalogue.
    async fn list(&self, query: Query) -> Result<Page, Error>;

    /// Replaces everything a client may set, at once. The difference in `quantity` is an adjustment of the supply.
    async fn update(&self, id: Uuid, draft: ValidatedProduct, expected_version: Option<i64>, now: OffsetDateTime) -> Result<Updated, Error>;

    /// Removes a product that no open reservation holds.
    async fn remove(&self, id: Uuid, expected_version: Option<i64>, now: OffsetDateTime) -> Result<Removed, Error>;

    /// Sets all lines aside for `hold_for`, or none.
    async fn reserve(&self, id: Uuid, lines: Lines, now: OffsetDateTime, hold_for: Duration) -> Result<ReserveOutcome, Error>;

    /// Makes a hold that has not run out permanent.
    async fn confirm(&self, id: Uuid, now: OffsetDateTime) -> Result<Confirmed, Error>;

    /// Gives a reservation back, once. What is refused or expired stays so; an unknown id leaves a tombstone.
    async fn release(&self, id: Uuid, now: OffsetDateTime) -> Result<Reservation, Error>;

    /// Gives back at most `limit` holds that ran out, and finishes what a crash left half done. Says how many that were.
    async fn expire_due(&self, now: OffsetDateTime, limit: u32) -> Result<u32, Error>;

    /// Forgets the idempotency keys that are older than [`KEY_KEPT_FOR`]. Says how many that were.
    async fn delete_expired_keys(&self, now: OffsetDateTime) -> Result<u64, Error>;

    /// Reservations that still own units (held and confirmed), in the order of their ids, behind `after`.
    async fn list_reservations(&self, after: Option<Uuid>, limit: u32) -> Result<Vec<Reservation>, Error>;

    /// Makes `relay` the one that tells of changes, until `until`. `false`: another one is.
    async fn lease_relay(&self, relay: Uuid, now: OffsetDateTime, until: OffsetDateTime) -> Result<bool, Error>;

    /// About `limit` products of whose latest version nobody was told, longest waiting first.
    async fn unpublished_changes(&self, limit: u32) -> Result<Vec<PendingChange>, Error>;

    /// Notes that others were told of these versions; what changed again meanwhile stays news.
    async fn mark_published(&self, news: &[PendingChange]) -> Result<(), Error>;

    /// Checks each product's balance. Raises no false alarm beside live traffic.
    async fn audit(&self, now: OffsetDateTime) -> Result<Audit, Error>;

    /// Does it answer?
    async fn ping(&self) -> Result<(), Error>;
}

/// Whether a connection string is one of a store that there is, without connecting.
pub fn is_supported_url(url: &str) -> bool {
    match url.split_once("://") {
        Some(("mongodb" | "mongodb+srv", _)) => MongoStore::is_valid_url(url),
        Some(("sqlite", path)) => !path.is_empty(),
        _ => false,
    }
}

/// Who repeats which call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Whose key: two callers may use the same.
    pub subject: String,
    /// The `Idempotency-Key`.
    pub key: String,
    /// Tells one request body from another.
    pub fingerprint: [u8; 32],
}

/// The answer to a create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// There is a product, exactly as it was when it was created.
    Created {
        /// The product.
        product: Product,
        /// Whether an earlier call created it.
        replayed: bool,
    },
    /// The key belongs to another body.
    KeyReused,
}

/// The answer to an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Updated {
    /// As it is now.
    Updated(Product),
    /// No such product.
    NotFound,
    /// It has another version than the expected one.
    VersionMismatch,
}

/// The answer to a remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Removed,
    /// No such product.
    NotFound,
    /// It has another version than the expected one.
    VersionMismatch,
    /// Open reservations hold units of it.
    InUse,
}

/// A product changed, and nobody was told yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingChange {
    /// Which product.
    pub product_id: Uuid,
    /// Its latest version, or [`Self::REMOVED`].
    pub version: i64,
    /// When the first change was of which nobody was told.
    pub since: OffsetDateTime,
}

impl PendingChange {
    /// The last version of all: the product is gone, and its id does not come back.
    pub const REMOVED: i64 = i64::MAX;
}

/// What [`Store::audit`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// Products whose balance was judged.
    pub products_checked: u64,
    /// Those that do not add up.
    pub violations: Vec<Imbalance>,
    /// Units in reservations that are held.
    pub held_units: i64,
    /// Units in reservations that are confirmed.
    pub confirmed_units: i64,
    /// Units that can still be sold.
    pub available_units: i64,
    /// Products without a unit to sell.
    pub out_of_stock_products: u64,
    /// Holds that ran out and are not given back yet.
    pub overdue_holds: u64,
}

/// A product for which `quantity + taken = supply`, `taken = reserved` or `quantity ≥ 0` does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imbalance {
    /// Which product.
    pub product_id: Uuid,
    /// Opening stock plus all adjustments.
    pub supply: i64,
    /// What can still be sold.
    pub quantity: i64,
    /// What the product says is in reservations.
    pub taken: i64,
    /// What the reservations say is in them.
    pub reserved: i64,
}

impl Imbalance {
    /// `None` if it adds up.
    fn check(product_id: Uuid, supply: i64, quantity: i64, taken: i64, reserved: i64) -> Option<Self> {
        let balanced = quantity >= 0 && taken == reserved && quantity.checked_add(taken) == Some(supply);
        (!balanced).then_some(Self { product_id, supply, quantity, taken, reserved })
    }
}

impl fmt::Display for Imbalance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { product_id, supply, quantity, taken, reserved } = self;
        write!(f, "product {product_id}: quantity {quantity}, taken {taken}, reserved {reserved}, supply {supply}")
    }
}

/// Why a store gave no answer. Whether the work was done is then unknown: repeat the call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached or refused to work.
    #[error("the store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time.
    #[error("the store did not answer in time")]
    Timeout,
    /// It holds something this service never wrote.
    #[error("the store holds something unreadable: {0}")]
    Corrupt(String),
}
