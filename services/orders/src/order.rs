//! An order as the business knows it: no I/O, no clock, no wire.

use std::{collections::HashMap, fmt, str::FromStr};

use time::OffsetDateTime;
use uuid::{NoContext, Timestamp, Uuid};

mod new_order;
mod status;

pub use self::{
    new_order::{MAX_ITEMS, MAX_QUANTITY, NewOrder},
    status::{Actor, FailureReason, Status, UnknownName},
};

/// An order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Chosen by this service; also the id of the reservation at products.
    pub id: OrderId,
    /// Whose order it is: a token's `sub`.
    pub user_id: String,
    /// 1..=[`MAX_ITEMS`], each product once, in the order they were sent.
    pub lines: Vec<Line>,
    /// Sum of the subtotals in minor units; absent until the stock was reserved.
    pub total_minor: Option<i64>,
    /// Where the order stands.
    pub status: Status,
    /// Why it failed; only with [`Status::Failed`].
    pub failure_reason: Option<FailureReason>,
    /// When it was accepted.
    pub created_at: OffsetDateTime,
    /// When its status changed last.
    pub updated_at: OffsetDateTime,
    /// Counts the statuses it has had, from 1.
    pub version: i64,
}

/// Names an order: a UUID v7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(Uuid);

/// One product of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The product's id.
    pub product_id: Uuid,
    /// Units, 1..=[`MAX_QUANTITY`].
    pub quantity: i64,
    /// What products said when it reserved the stock; absent until then.
    pub snapshot: Option<ProductSnapshot>,
}

/// Name and price of a product as they were when its stock was reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductSnapshot {
    /// The product's name.
    pub name: String,
    /// Price of one unit in minor units.
    pub unit_price_minor: i64,
}

/// One line of the reservation that products holds for an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLine {
    /// The product's id.
    pub product_id: Uuid,
    /// Units held.
    pub quantity: i64,
    /// The product's name and price.
    pub snapshot: ProductSnapshot,
}

/// The lines of an order with names and prices, and what they cost together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priced {
    lines: Vec<Line>,
    total_minor: i64,
}

/// What products holds cannot be the order's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PricingError {
    /// The reservation has other products or quantities than the order.
    #[error("the reservation has other lines than the order")]
    LineMismatch,
    /// A price is negative.
    #[error("the reservation has a negative price")]
    NegativePrice,
    /// The total does not fit in 64 bits.
    #[error("the total is out of range")]
    TotalOutOfRange,
}

impl Order {
    /// The order that `new` asks for, as it is when it is accepted at `now`.
    pub fn accepted(id: OrderId, new: NewOrder, now: OffsetDateTime) -> Self {
        let (user_id, lines) = new.into_parts();
        Self {
            id,
            user_id,
            lines,
            total_minor: None,
            status: Status::Pending,
            failure_reason: None,
            created_at: now,
            updated_at: now,
            version: 1,
        }
    }
}

impl OrderId {
    /// A new id whose order in time is `now`'s.
    pub fn generate(now: OffsetDateTime) -> Self {
        Self(new_uuid(now))
    }

    /// The id as a UUID.
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
    /// Price × quantity in minor units; absent until the stock was reserved.
    pub fn subtotal_minor(&self) -> Option<i64> {
        self.snapshot.as_ref()?.unit_price_minor.checked_mul(self.quantity)
    }
}

impl Priced {
    /// Copies what products holds onto `lines`, which it must match line by line.
    pub fn new(lines: &[Line], held: &[HeldLine]) -> Result<Self, PricingError> {
        let mut by_product: HashMap<Uuid, &HeldLine> = held.iter().map(|line| (line.product_id, line)).collect();
        if held.len() != lines.len() {
            return Err(PricingError::LineMismatch);
        }
        let mut total_minor = 0_i64;
        let mut priced = Vec::with_capacity(lines.len());
        for line in lines {
            let held = by_product.remove(&line.product_id).filter(|held| held.quantity == line.quantity).ok_or(PricingError::LineMismatch)?;
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

    /// The lines, each with its name and price.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Sum of the subtotals in minor units.
    pub fn total_minor(&self) -> i64 {
        self.total_minor
    }
}

/// A UUID v7 for `now`.
pub(crate) fn new_uuid(now: OffsetDateTime) -> Uuid {
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.nanosecond()))
}

/// Not above the id of any order that was made at `at` or later.
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
    fn a_total_is_the_sum_of_price_times_quantity() {
        let priced = Priced::new(&[line(1, 3), line(2, 1)], &[held(2, 1, 5), held(1, 3, 1999)]).unwrap();
        assert_eq!(priced.total_minor(), 3 * 1999 + 5);
        assert_eq!(priced.lines()[0].subtotal_minor(), Some(5997), "lines keep the order's order");
    }

    #[test]
    fn a_hold_of_other_lines_is_refused() {
        for wrong in
            [vec![], vec![held(1, 2, 5)], vec![held(2, 3, 5)], vec![held(1, 3, 5), held(2, 1, 5)], vec![held(1, 3, 5), held(1, 3, 5)]]
        {
            assert_eq!(Priced::new(&[line(1, 3)], &wrong), Err(PricingError::LineMismatch), "{wrong:?}");
        }
    }

    #[test]
    fn a_price_below_zero_is_refused() {
        assert_eq!(Priced::new(&[line(1, 1)], &[held(1, 1, -1)]), Err(PricingError::NegativePrice));
    }

    proptest! {
        #[test]
        fn a_total_is_exact_or_refused(items in prop::collection::vec((1..=MAX_QUANTITY, 0..=i64::MAX), 1..=MAX_ITEMS)) {
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
