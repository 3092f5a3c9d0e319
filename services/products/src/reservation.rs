//! Stock set aside for one order: what may be asked, and what may be answered. No I/O.

use std::collections::{HashMap, HashSet};

use palisade_middleware::rejection::Violation;
use time::OffsetDateTime;
use uuid::Uuid;

/// Most lines of one reservation.
pub const MAX_LINES: usize = 100;
/// Most units of one line.
pub const MAX_LINE_QUANTITY: i64 = 1_000_000;

/// So many units of one product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Of what.
    pub product_id: Uuid,
    /// How many units.
    pub quantity: i64,
}

/// The lines of one reservation: 1 to [`MAX_LINES`], each product once, in the order of their products' ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines(Vec<Line>);

/// A line as it was reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLine {
    /// Of what.
    pub product_id: Uuid,
    /// How many units.
    pub quantity: i64,
    /// The product's name at that time; empty if it was unknown.
    pub name: String,
    /// The price of one unit in minor units at that time; 0 if the product was unknown.
    pub unit_price_minor: i64,
}

/// Stock set aside for one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The order's id.
    pub id: Uuid,
    /// How far it has come.
    pub state: State,
    /// In the order of their products' ids; none for a tombstone.
    pub lines: Vec<HeldLine>,
    /// When it is given back unless confirmed. A tombstone's is when it was made.
    pub expires_at: OffsetDateTime,
}

/// How far a reservation has come. Only `Held` and `Confirmed` still own units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Set aside until it expires.
    Held,
    /// Sold: set aside until it is released, if ever.
    Confirmed,
    /// Given back, or released before it was ever reserved.
    Released,
    /// Given back because nobody confirmed it in time.
    Expired,
    /// Not one line was taken.
    Refused {
        /// Why.
        reason: Refusal,
        /// The first product that stood in the way.
        product_id: Uuid,
    },
}

/// Why not one line was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Fewer units left than asked for.
    InsufficientStock,
    /// No such product.
    UnknownProduct,
    /// Not for sale now.
    ProductInactive,
}

/// What a product has to offer to a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductStock {
    /// Its name, to be copied.
    pub name: String,
    /// Its price of one unit in minor units, to be copied.
    pub unit_price_minor: i64,
    /// Units left.
    pub quantity: i64,
    /// Whether it can be reserved at all.
    pub is_active: bool,
}

/// The answer to a reserve. Repeating the call gives it again, unless the reservation has moved on since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReserveOutcome {
    /// All lines are set aside (its state may be `Confirmed` by now).
    Held(Reservation),
    /// None is.
    Refused {
        /// Why.
        reason: Refusal,
        /// The first product that stood in the way.
        product_id: Uuid,
    },
    /// The id belongs to a reservation of other lines.
    DifferentLines,
    /// It was released, perhaps before this call arrived.
    Released,
    /// It was held and ran out.
    Expired,
}

/// The answer to a confirm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirmed {
    /// It is confirmed, now or already.
    Confirmed(Reservation),
    /// Too late: it was released.
    Released,
    /// Too late: it ran out.
    Expired,
    /// There is nothing to confirm: it was refused.
    Refused,
    /// Nobody ever reserved under this id.
    Unknown,
}

impl Lines {
    /// Checks `lines`; the error holds every broken rule.
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
        if violations.is_empty() { Ok(Self(lines)) } else { Err(violations) }
    }

    /// The lines, in the order of their products' ids.
    pub fn as_slice(&self) -> &[Line] {
        &self.0
    }

    /// Copies names and prices, and says whether every line can be had (`Held`) or not (`Refused`).
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
        let lines = self.0.iter().map(copy).collect();
        (state, lines)
    }

    fn match_lines(&self, held: &[HeldLine]) -> bool {
        let held = held.iter().map(|line| Line { product_id: line.product_id, quantity: line.quantity });
        self.0.iter().copied().eq(held)
    }
}

impl ProductStock {
    /// Why `quantity` units cannot be had, if they cannot.
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
    /// Is this a hold that has run out but was not given back yet?
    pub fn is_overdue(&self, now: OffsetDateTime) -> bool {
        self.state == State::Held && self.expires_at <= now
    }

    /// What it answers to another reserve of `lines`. A tombstone has no lines to compare.
    pub fn reserve_outcome(self, lines: &Lines) -> ReserveOutcome {
        if !self.lines.is_empty() && !lines.match_lines(&self.lines) {
            return ReserveOutcome::DifferentLines;
        }
        match self.state {
            State::Held | State::Confirmed => ReserveOutcome::Held(self),
            State::Released => ReserveOutcome::Released,
            State::Expired => ReserveOutcome::Expired,
            State::Refused { reason, product_id } => ReserveOutcome::Refused { reason, product_id },
        }
    }

    /// What it answers to a confirm, when it has been confirmed if it could be.
    pub fn confirm_outcome(self) -> Confirmed {
        match self.state {
            State::Held | State::Confirmed => Confirmed::Confirmed(self),
            State::Released => Confirmed::Released,
            State::Expired => Confirmed::Expired,
            State::Refused { .. } => Confirmed::Refused,
        }
    }
}

impl State {
    /// Stable name, as in the proto contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "HELD",
            Self::Confirmed => "CONFIRMED",
            Self::Released => "RELEASED",
            Self::Expired => "EXPIRED",
            Self::Refused { .. } => "REFUSED",
        }
    }

    /// The state of this name. `refused` says why, for the one that needs it.
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
    /// Stable slug: the order's `failureReason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InsufficientStock => "insufficient_stock",
            Self::UnknownProduct => "unknown_product",
            Self::ProductInactive => "product_inactive",
        }
    }

    /// The refusal of this slug.
    pub fn parse(slug: &str) -> Option<Self> {
        [Self::InsufficientStock, Self::UnknownProduct, Self::ProductInactive].into_iter().find(|refusal| refusal.as_str() == slug)
    }
}

#[cfg(test)]
mod tests;
