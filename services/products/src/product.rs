//! One thing for sale, and the rules a client's words must keep to become one. No I/O.

use std::ops::Deref;

use palisade_middleware::rejection::Violation;
use time::OffsetDateTime;
use uuid::Uuid;

mod query;
mod text;

pub use query::{Filter, Page, Position, Query, Sort, SortKey};
pub use text::searchable;

/// Most characters in a name.
pub const MAX_NAME: usize = 200;
/// Most characters in a description.
pub const MAX_DESCRIPTION: usize = 4_000;
/// Most characters in a category.
pub const MAX_CATEGORY: usize = 100;
/// Highest price of one unit in minor units: 9,999,999.99.
pub const MAX_PRICE_MINOR: i64 = 999_999_999;
/// Most units a client may set.
pub const MAX_QUANTITY: i64 = 1_000_000_000;

/// One thing for sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// Chosen by the service, version 7.
    pub id: Uuid,
    /// Shown to buyers.
    pub name: String,
    /// Free text, may be empty.
    pub description: String,
    /// Price of one unit in minor units (cents).
    pub price_minor: i64,
    /// What can still be sold: units held by open reservations are already taken off.
    pub quantity: i64,
    /// Exact label to filter by.
    pub category: String,
    /// Only active products can be reserved.
    pub is_active: bool,
    /// Starts at 1 and grows with every change of the representation, stock included.
    pub version: i64,
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// When the representation last changed.
    pub updated_at: OffsetDateTime,
}

/// What a client may send of a product, not yet checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// 1 to [`MAX_NAME`] characters after trimming.
    pub name: String,
    /// At most [`MAX_DESCRIPTION`] characters.
    pub description: String,
    /// 0 to [`MAX_PRICE_MINOR`].
    pub price_minor: i64,
    /// 0 to [`MAX_QUANTITY`].
    pub quantity: i64,
    /// 1 to [`MAX_CATEGORY`] characters after trimming.
    pub category: String,
    /// Whether it can be reserved.
    pub is_active: bool,
}

/// An [`Input`] that keeps every rule. It reads like one and cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatedProduct(Input);

impl ValidatedProduct {
    /// Trims and checks `input`; the error holds every broken rule, with the field names of the JSON contract.
    pub fn new(input: Input) -> Result<Self, Vec<Violation>> {
        let input = Input { name: input.name.trim().to_owned(), category: input.category.trim().to_owned(), ..input };
        let violations: Vec<_> = [
            text::validate_single_line("name", &input.name, MAX_NAME),
            text::validate_multiline("description", &input.description, MAX_DESCRIPTION),
            within("price", input.price_minor, MAX_PRICE_MINOR, "must be between 0 and 9999999.99"),
            within("quantity", input.quantity, MAX_QUANTITY, "must be between 0 and 1000000000"),
            text::validate_single_line("category", &input.category, MAX_CATEGORY),
        ]
        .into_iter()
        .flatten()
        .collect();
        if violations.is_empty() { Ok(Self(input)) } else { Err(violations) }
    }

    /// The product this becomes when it is created `now`.
    pub fn into_product(self, id: Uuid, now: OffsetDateTime) -> Product {
        let Input { name, description, price_minor, quantity, category, is_active } = self.0;
        Product { id, name, description, price_minor, quantity, category, is_active, version: 1, created_at: now, updated_at: now }
    }
}

impl Deref for ValidatedProduct {
    type Target = Input;

    fn deref(&self) -> &Input {
        &self.0
    }
}

fn within(field: &str, value: i64, max: i64, message: &str) -> Option<Violation> {
    (!(0..=max).contains(&value)).then(|| Violation::new(field, "out_of_range", message))
}

#[cfg(test)]
mod tests;
