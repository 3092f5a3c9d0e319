//! Order domain model, free of I/O, clocks and wire formats.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    str::FromStr,
};

use palisade_middleware::auth::Subject;
use time::OffsetDateTime;
use uuid::{NoContext, Timestamp, Uuid};

mod actor;
mod history;
mod new_order;
mod status;

pub use self::{
    actor::{Actor, Role},
    history::{HistoryEntry, MAX_HISTORY},
    new_order::{MAX_ITEMS, MAX_QUANTITY, MaxTotal, NewOrder},
    status::{FailureReason, Status, UnknownName},
};

/// Order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Id, chosen by this service. It is also the id of the reservation at products.
    pub id: OrderId,
    /// Owner.
    pub user_id: Subject,
    /// 1..=[`MAX_ITEMS`] lines, one per product, in the order of the request.
    pub lines: Vec<Line>,
    /// Sum of the subtotals in minor units. `None` until the stock is reserved.
    pub total_minor: Option<i64>,
    /// Current status.
    pub status: Status,
    /// Reason of the failure. Set only with [`Status::Failed`].
    pub failure_reason: Option<FailureReason>,
    /// Time of acceptance.
    pub created_at: OffsetDateTime,
    /// Time of the last change of the status or the lines.
    pub updated_at: OffsetDateTime,
    /// Number of changes so far, from 1.
    pub version: i64,
    /// Pending revision. Set only with [`Status::Confirmed`].
    pub revision: Option<Revision>,
    /// Removal by its owner or an administrator: from then on only administrators see the order.
    pub removed: Option<Removal>,
}

/// Requested change of the lines of an order, whose outcome is not known yet. The order has its old
/// lines until then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// All lines after the revision, without names and prices.
    pub lines: Vec<Line>,
    /// Maximum total that the customer accepts. `None`: unlimited.
    pub max_total: Option<MaxTotal>,
    /// [`Order::updated_at`] before the request, which a refused revision restores.
    pub updated_before: OffsetDateTime,
}

/// Removal of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Time of the removal.
    pub at: OffsetDateTime,
    /// Subject that removed the order. `None` if an earlier version of the service removed it.
    pub by: Option<Subject>,
    /// Service that called. `None` if it is unknown.
    pub service: Option<String>,
}

/// Order id, a UUID v7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(Uuid);

impl OrderId {
    /// Greatest id.
    pub(crate) const MAX: Self = Self(Uuid::max());
}

/// Order line: one product and its quantity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Id of the product.
    pub product_id: Uuid,
    /// Units, 1..=[`MAX_QUANTITY`].
    pub quantity: i64,
    /// Name and price from products. `None` until the stock is reserved.
    pub snapshot: Option<ProductSnapshot>,
}

/// Quantities of the lines of an order or a reservation, by product.
pub type Quantities = BTreeMap<Uuid, i64>;

/// Name and price of a product at the time of the reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductSnapshot {
    /// Name of the product.
    pub name: String,
    /// Unit price in minor units.
    pub unit_price_minor: i64,
}

/// One line of the reservation that products holds for an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLine {
    /// Id of the product.
    pub product_id: Uuid,
    /// Reserved units.
    pub quantity: i64,
    /// Name and price of the product.
    pub snapshot: ProductSnapshot,
}

/// Order lines with names and prices, and their total.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priced {
    lines: Vec<Line>,
    total_minor: i64,
}

/// The reservation does not fit the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PricingError {
    /// Products or quantities of the reservation differ from the order.
    #[error("the lines of the reservation differ from the order")]
    LineMismatch,
    /// A price is negative.
    #[error("the reservation has a negative price")]
    NegativePrice,
    /// The total does not fit in 64 bits.
    #[error("the total is out of range")]
    TotalOutOfRange,
}

impl Order {
    /// Creates a PENDING order from `new`, accepted at `now`.
    pub fn accepted(id: OrderId, new: NewOrder, now: OffsetDateTime) -> Self {
        let (user_id, lines) = new.into_parts();
        Self {
            id,
            user_id,
            removed: None,
            lines,
            total_minor: None,
            status: Status::Pending,
            failure_reason: None,
            created_at: now,
            updated_at: now,
            version: 1,
            revision: None,
        }
    }
}

impl Order {
    /// Returns the quantities of the lines by product.
    pub fn quantities(&self) -> Quantities {
        self.lines.iter().map(|line| (line.product_id, line.quantity)).collect()
    }
}

impl OrderId {
    /// Id before all others. No order has it.
    pub(crate) const NIL: Self = Self(Uuid::nil());

    /// Generates an id that sorts by the time `now`.
    pub fn generate(now: OffsetDateTime) -> Self {
        Self(new_uuid(now))
    }

    /// Returns the id as a UUID.
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for OrderId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl FromStr for OrderId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::try_parse(text).map(Self)
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl Line {
    /// Unit price × quantity in minor units. `None` until the stock is reserved.
    pub fn subtotal_minor(&self) -> Option<i64> {
        self.snapshot.as_ref()?.unit_price_minor.checked_mul(self.quantity)
    }
}

impl Priced {
    /// Copies names and prices from the reservation to `lines`. Both must have the same products
    /// and quantities.
    pub fn new(lines: &[Line], held: &[HeldLine]) -> Result<Self, PricingError> {
        let mut by_product: HashMap<Uuid, &HeldLine> = held.iter().map(|line| (line.product_id, line)).collect();
        if held.len() != lines.len() {
            return Err(PricingError::LineMismatch);
        }
        let mut total_minor = 0_i64;
        let mut priced = Vec::with_capacity(lines.len());
        for line in lines {
            let held =
                by_product.remove(&line.product_id).filter(|held| held.quantity == line.quantity).ok_or(PricingError::LineMismatch)?;
            if held.snapshot.unit_price_minor < 0 {
                return Err(PricingError::NegativePrice);
            }
            let line = Line { snapshot: Some(held.snapshot.clone()), ..*line };
            total_minor =
                line.subtotal_minor().and_then(|subtotal| total_minor.checked_add(subtotal)).ok_or(PricingError::TotalOutOfRange)?;
            priced.push(line);
        }
        Ok(Self { lines: priced, total_minor })
    }

    /// Returns the lines with their names and prices.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Sum of the subtotals in minor units.
    pub fn total_minor(&self) -> i64 {
        self.total_minor
    }
}

/// Generates a UUID v7 for the time `now`.
pub(crate) fn new_uuid(now: OffsetDateTime) -> Uuid {
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.nanosecond()))
}

/// Lower bound of the ids of all orders created at `at` or later.
pub(crate) fn min_uuid_at(at: OffsetDateTime) -> Uuid {
    let millis = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
    Uuid::from_u128(u128::from(millis) << 80)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(n: u128, quantity: i64) -> Line {
        Line { product_id: Uuid::from_u128(n), quantity, snapshot: None }
    }

    fn held(n: u128, quantity: i64, unit_price_minor: i64) -> HeldLine {
        HeldLine { product_id: Uuid::from_u128(n), quantity, snapshot: ProductSnapshot { name: format!("product {n}"), unit_price_minor } }
    }

    #[test]
    fn total_is_the_sum_of_subtotals() {
        let priced = Priced::new(&[line(1, 3), line(2, 1)], &[held(2, 1, 5), held(1, 3, 1999)]).unwrap();
        assert_eq!(priced.total_minor(), 3 * 1999 + 5);
        assert_eq!(priced.lines()[0].subtotal_minor(), Some(5997), "lines keep the sequence of the order");
    }

    #[test]
    fn reservation_with_other_lines_is_rejected() {
        for wrong in
            [vec![], vec![held(1, 2, 5)], vec![held(2, 3, 5)], vec![held(1, 3, 5), held(2, 1, 5)], vec![held(1, 3, 5), held(1, 3, 5)]]
        {
            assert_eq!(Priced::new(&[line(1, 3)], &wrong), Err(PricingError::LineMismatch), "{wrong:?}");
        }
    }

    #[test]
    fn negative_price_is_rejected() {
        assert_eq!(Priced::new(&[line(1, 1)], &[held(1, 1, -1)]), Err(PricingError::NegativePrice));
    }

    proptest! {
        #[test]
        fn total_is_exact_or_rejected(items in prop::collection::vec((1..=MAX_QUANTITY, 0..=i64::MAX), 1..=MAX_ITEMS)) {
            let lines: Vec<Line> = (0..).zip(&items).map(|(n, (quantity, _))| line(n, *quantity)).collect();
            let holds: Vec<HeldLine> = (0..).zip(&items).map(|(n, (quantity, price))| held(n, *quantity, *price)).collect();
            let exact: i128 = items.iter().map(|(quantity, price)| i128::from(*quantity) * i128::from(*price)).sum();
            match Priced::new(&lines, &holds) {
                Ok(priced) => prop_assert_eq!(i128::from(priced.total_minor()), exact),
                Err(error) => {
                    prop_assert_eq!(error, PricingError::TotalOutOfRange);
                    prop_assert!(exact > i128::from(i64::MAX));
                }
            }
        }
    }
}
