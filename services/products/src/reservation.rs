//! Stock reservations: states, validation and outcomes. No I/O.

use std::collections::{HashMap, HashSet};

use palisade_middleware::rejection::Violation;
use time::OffsetDateTime;
use uuid::Uuid;

mod revision;

pub use self::revision::{Difference, ReviseOutcome, Revision};

/// Maximum number of lines of a reservation.
pub const MAX_LINES: usize = 100;
/// Maximum quantity of a line, units.
pub const MAX_LINE_QUANTITY: i64 = 1_000_000;

/// Requested quantity of one product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Id of the product.
    pub product_id: Uuid,
    /// Quantity, units.
    pub quantity: i64,
}

/// Validated lines of a reservation, 1 to [`MAX_LINES`], each product once, sorted by product id,
/// and the limit of their total.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    lines: Vec<Line>,
    max_total_minor: Option<i64>,
}

/// Reserved line with a copy of the product's name and price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLine {
    /// Id of the product.
    pub product_id: Uuid,
    /// Quantity, units.
    pub quantity: i64,
    /// Name of the product at the time of the reservation; empty if the product was unknown.
    pub name: String,
    /// Price of one unit at the time of the reservation, minor units; 0 if the product was unknown.
    pub unit_price_minor: i64,
}

/// Stock reservation of one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Id of the order.
    pub id: Uuid,
    /// Current state.
    pub state: State,
    /// Lines, sorted by product id; empty for a tombstone.
    pub lines: Vec<HeldLine>,
    /// Expiry of the hold unless it is confirmed. For a tombstone, its creation time.
    pub expires_at: OffsetDateTime,
}

/// State of a reservation. Only `Held` and `Confirmed` own units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Units are held until the reservation expires.
    Held,
    /// Units are sold; a release can still return them.
    Confirmed,
    /// Units are delivered: they have left the stock for good.
    Fulfilled,
    /// Released, possibly before it was reserved (tombstone).
    Released,
    /// Released because it was not confirmed in time.
    Expired,
    /// Rejected: no line was taken.
    Refused {
        /// Reason.
        reason: Refusal,
        /// First product that could not be reserved; any one if only the total is too high.
        product_id: Uuid,
    },
}

/// Reason of a rejected reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Fewer units available than requested.
    InsufficientStock,
    /// The product does not exist.
    UnknownProduct,
    /// The product is inactive.
    ProductInactive,
    /// The total at the current prices exceeds the limit of the request.
    PriceChanged,
}

/// Stock and sales data of a product, as read for a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductStock {
    /// Name to copy.
    pub name: String,
    /// Price of one unit to copy, minor units.
    pub unit_price_minor: i64,
    /// Units available.
    pub quantity: i64,
    /// Whether the product can be reserved.
    pub is_active: bool,
}

/// Outcome of a reserve. A repeated call returns the same outcome unless the reservation has
/// changed since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReserveOutcome {
    /// All lines are reserved. The state may be `Confirmed` by then.
    Held(Reservation),
    /// No line was reserved.
    Refused {
        /// Reason.
        reason: Refusal,
        /// First product that could not be reserved.
        product_id: Uuid,
    },
    /// The id belongs to a reservation with other lines.
    DifferentLines,
    /// The reservation was released, possibly before this call arrived.
    Released,
    /// The hold expired.
    Expired,
}

/// Outcome of a confirm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfirmOutcome {
    /// The reservation is confirmed, by this or an earlier call.
    Confirmed(Reservation),
    /// The reservation was released before.
    Released,
    /// The hold expired before.
    Expired,
    /// The reservation was rejected.
    Refused,
    /// No reservation has this id.
    Unknown,
}

/// Outcome of a fulfilment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FulfilOutcome {
    /// The reservation is fulfilled, by this or an earlier call.
    Fulfilled(Reservation),
    /// The reservation was never confirmed, or was released.
    NotConfirmed,
    /// No reservation has this id.
    Unknown,
}

impl Lines {
    /// Validates `lines`. The error contains every violation.
    pub fn new(mut lines: Vec<Line>) -> Result<Self, Vec<Violation>> {
        let mut violations = Vec::new();
        if lines.is_empty() {
            violations.push(Violation::new("lines", "required", "must have at least one line"));
        }
        if lines.len() > MAX_LINES {
            return Err(vec![Violation::new("lines", "out_of_range", format!("must have at most {MAX_LINES} lines"))]);
        }
        let mut seen = HashSet::new();
        for (index, line) in lines.iter().enumerate() {
            if !(1..=MAX_LINE_QUANTITY).contains(&line.quantity) {
                let message = format!("must be between 1 and {MAX_LINE_QUANTITY}");
                violations.push(Violation::new(format!("lines[{index}].quantity"), "out_of_range", message));
            }
            if !seen.insert(line.product_id) {
                violations.push(Violation::new(format!("lines[{index}].product_id"), "duplicate", "is in an earlier line already"));
            }
        }
        lines.sort_by_key(|line| line.product_id);
        if violations.is_empty() { Ok(Self { lines, max_total_minor: None }) } else { Err(violations) }
    }

    /// Sets the maximum of the total, minor units: quantities times prices. `None`: unlimited.
    #[must_use]
    pub fn with_max_total(self, max_total_minor: Option<i64>) -> Self {
        Self { max_total_minor, ..self }
    }

    /// Returns the lines, sorted by product id.
    pub fn as_slice(&self) -> &[Line] {
        &self.lines
    }

    /// Decides a reservation by the stock of its products and copies names and prices. The state is
    /// `Held` if every line is available and the total is within its limit, else `Refused`.
    pub fn evaluate(&self, stock: &HashMap<Uuid, ProductStock>) -> (State, Vec<HeldLine>) {
        let mut state = State::Held;
        let copy = |line: &Line| {
            let product = stock.get(&line.product_id);
            let refusal = match product {
                None => Some(Refusal::UnknownProduct),
                Some(product) => product.refusal_for(line.quantity),
            };
            if let (State::Held, Some(reason)) = (state, refusal) {
                state = State::Refused { reason, product_id: line.product_id };
            }
            HeldLine {
                product_id: line.product_id,
                quantity: line.quantity,
                name: product.map(|product| product.name.clone()).unwrap_or_default(),
                unit_price_minor: product.map(|product| product.unit_price_minor).unwrap_or_default(),
            }
        };
        let lines: Vec<HeldLine> = self.lines.iter().map(copy).collect();
        if let (State::Held, Some(product_id)) = (state, self.product_over_limit(&lines)) {
            state = State::Refused { reason: Refusal::PriceChanged, product_id };
        }
        (state, lines)
    }

    /// Returns the first product if the total of the priced `lines` exceeds the limit: a total has
    /// no product of its own.
    fn product_over_limit(&self, lines: &[HeldLine]) -> Option<Uuid> {
        let is_over = self.max_total_minor.is_some_and(|max| total_minor(lines) > i128::from(max));
        lines.first().filter(|_| is_over).map(|line| line.product_id)
    }

    fn matches(&self, held: &[HeldLine]) -> bool {
        let held = held.iter().map(|line| Line { product_id: line.product_id, quantity: line.quantity });
        self.lines.iter().copied().eq(held)
    }
}

/// Sum of quantities times prices, minor units. Cannot overflow: at most [`MAX_LINES`] quantities,
/// none above [`MAX_LINE_QUANTITY`].
fn total_minor(lines: &[HeldLine]) -> i128 {
    lines.iter().map(|line| i128::from(line.quantity) * i128::from(line.unit_price_minor)).sum()
}

impl ProductStock {
    /// Returns why `quantity` units cannot be reserved, or `None` if they can.
    pub fn refusal_for(&self, quantity: i64) -> Option<Refusal> {
        if !self.is_active {
            Some(Refusal::ProductInactive)
        } else if self.quantity < quantity {
            Some(Refusal::InsufficientStock)
        } else {
            None
        }
    }
}

impl Reservation {
    /// Whether this is an expired hold that has not been released yet.
    pub fn is_overdue(&self, now: OffsetDateTime) -> bool {
        self.state == State::Held && self.expires_at <= now
    }

    /// Whether these are the lines of the reservation. A tombstone has no lines to compare.
    pub fn has_lines(&self, lines: &Lines) -> bool {
        self.lines.is_empty() || lines.matches(&self.lines)
    }

    /// Returns the outcome of another reserve of `lines`.
    pub fn reserve_outcome(self, lines: &Lines) -> ReserveOutcome {
        if !self.has_lines(lines) {
            return ReserveOutcome::DifferentLines;
        }
        match self.state {
            State::Held | State::Confirmed | State::Fulfilled => ReserveOutcome::Held(self),
            State::Released => ReserveOutcome::Released,
            State::Expired => ReserveOutcome::Expired,
            State::Refused { reason, product_id } => ReserveOutcome::Refused { reason, product_id },
        }
    }

    /// Returns the outcome of a fulfilment. A confirmed reservation must already be fulfilled.
    pub fn fulfil_outcome(self) -> FulfilOutcome {
        match self.state {
            State::Fulfilled => FulfilOutcome::Fulfilled(self),
            State::Held | State::Confirmed | State::Released | State::Expired | State::Refused { .. } => FulfilOutcome::NotConfirmed,
        }
    }

    /// Returns the outcome of a confirm. A hold must already be confirmed.
    pub fn confirm_outcome(self) -> ConfirmOutcome {
        match self.state {
            State::Held | State::Confirmed | State::Fulfilled => ConfirmOutcome::Confirmed(self),
            State::Released => ConfirmOutcome::Released,
            State::Expired => ConfirmOutcome::Expired,
            State::Refused { .. } => ConfirmOutcome::Refused,
        }
    }
}

impl State {
    /// Returns the stable name of the proto contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "HELD",
            Self::Confirmed => "CONFIRMED",
            Self::Fulfilled => "FULFILLED",
            Self::Released => "RELEASED",
            Self::Expired => "EXPIRED",
            Self::Refused { .. } => "REFUSED",
        }
    }

    /// Parses a stored name. `refused` supplies the details of `REFUSED`. `FULFILLED` is no stored
    /// name: replicas of the previous release would not know it. Such a reservation is stored as
    /// `RELEASED` with a mark.
    pub fn parse(name: &str, refused: Option<(Refusal, Uuid)>) -> Option<Self> {
        match name {
            "HELD" => Some(Self::Held),
            "CONFIRMED" => Some(Self::Confirmed),
            "RELEASED" => Some(Self::Released),
            "EXPIRED" => Some(Self::Expired),
            "REFUSED" => refused.map(|(reason, product_id)| Self::Refused { reason, product_id }),
            _ => None,
        }
    }
}

impl Refusal {
    /// Returns the stable slug, which becomes the order's `failureReason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InsufficientStock => "insufficient_stock",
            Self::UnknownProduct => "unknown_product",
            Self::ProductInactive => "product_inactive",
            Self::PriceChanged => "price_changed",
        }
    }

    /// Parses a slug.
    pub fn parse(slug: &str) -> Option<Self> {
        let all = [Self::InsufficientStock, Self::UnknownProduct, Self::ProductInactive, Self::PriceChanged];
        all.into_iter().find(|refusal| refusal.as_str() == slug)
    }
}

#[cfg(test)]
mod tests;
