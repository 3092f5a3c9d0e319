//! Validation of new orders. All violations are reported at once.

use palisade_middleware::{auth::Subject, rejection::Violation};
use uuid::Uuid;

use super::Line;

/// Maximum number of items per order.
pub const MAX_ITEMS: usize = 100;
/// Maximum units of one product per order.
pub const MAX_QUANTITY: i64 = 1_000_000;

/// A validated order request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOrder {
    user_id: Subject,
    lines: Vec<Line>,
    max_total: Option<MaxTotal>,
}

/// Maximum total that a customer accepts, minor units, 0..=[`MaxTotal::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxTotal(i64);

impl NewOrder {
    /// Validates `items` (product id, quantity) ordered for `user_id`. Merges the items of a
    /// product into one line.
    pub fn new(user_id: impl Into<Subject>, items: &[(&str, i64)]) -> Result<Self, Vec<Violation>> {
        let mut violations = Vec::new();
        match items.len() {
            0 => violations.push(Violation::new("items", "required", "must have at least one item")),
            n if n > MAX_ITEMS => violations.push(Violation::new("items", "too_many", format!("must have at most {MAX_ITEMS} items"))),
            _ => {}
        }
        let mut lines: Vec<Line> = Vec::new();
        for (index, (product_id, quantity)) in items.iter().take(MAX_ITEMS).enumerate() {
            let quantity_is_valid = check_quantity(index, *quantity, &mut violations);
            let Some(product_id) = check_product_id(index, product_id, &mut violations) else { continue };
            if quantity_is_valid {
                merge(&mut lines, index, product_id, *quantity, &mut violations);
            }
        }
        if violations.is_empty() { Ok(Self { user_id: user_id.into(), lines, max_total: None }) } else { Err(violations) }
    }

    /// Sets the maximum of the total. `None`: unlimited.
    #[must_use]
    pub fn with_max_total(self, max_total: Option<MaxTotal>) -> Self {
        Self { max_total, ..self }
    }

    /// Returns the maximum of the total. `None`: unlimited.
    pub fn max_total(&self) -> Option<MaxTotal> {
        self.max_total
    }

    /// Returns the owner of the order.
    pub fn user_id(&self) -> &Subject {
        &self.user_id
    }

    /// Returns one line per product, in the order of first occurrence.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Converts to the lines.
    pub fn into_lines(self) -> Vec<Line> {
        self.lines
    }

    pub(super) fn into_parts(self) -> (Subject, Vec<Line>) {
        (self.user_id, self.lines)
    }
}

impl MaxTotal {
    /// Largest value, minor units.
    pub const MAX: i64 = 999_999_999_999;

    /// Validates a maximum in minor units.
    pub fn new(minor: i64) -> Result<Self, Violation> {
        let is_valid = (0..=Self::MAX).contains(&minor);
        is_valid.then_some(Self(minor)).ok_or_else(|| Violation::new("maxTotal", "out_of_range", "must be between 0 and 9999999999.99"))
    }

    /// Returns the maximum in minor units.
    pub fn minor(self) -> i64 {
        self.0
    }

    /// Whether a total in minor units is within the maximum.
    pub fn allows(self, total_minor: i64) -> bool {
        total_minor <= self.0
    }
}

fn check_quantity(index: usize, quantity: i64, violations: &mut Vec<Violation>) -> bool {
    let valid = (1..=MAX_QUANTITY).contains(&quantity);
    if !valid {
        let message = format!("must be between 1 and {MAX_QUANTITY}");
        violations.push(Violation::new(format!("items[{index}].quantity"), "out_of_range", message));
    }
    valid
}

fn check_product_id(index: usize, text: &str, violations: &mut Vec<Violation>) -> Option<Uuid> {
    // `Uuid::try_parse` also accepts braces and URNs; product ids must be hyphenated.
    let id = Uuid::try_parse(text).ok().filter(|_| text.len() == uuid::fmt::Hyphenated::LENGTH);
    if id.is_none() {
        violations.push(Violation::new(format!("items[{index}].productId"), "invalid_uuid", "must be a UUID"));
    }
    id
}

fn merge(lines: &mut Vec<Line>, index: usize, product_id: Uuid, quantity: i64, violations: &mut Vec<Violation>) {
    let Some(line) = lines.iter_mut().find(|line| line.product_id == product_id) else {
        lines.push(Line { product_id, quantity, snapshot: None });
        return;
    };
    // Cannot overflow: at most 100 quantities, none above `MAX_QUANTITY`.
    line.quantity += quantity;
    if line.quantity > MAX_QUANTITY {
        let message = format!("the items of one product must not be more than {MAX_QUANTITY} together");
        violations.push(Violation::new(format!("items[{index}].quantity"), "out_of_range", message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "018f2d3e-7c1a-7000-8000-00000000000a";
    const B: &str = "018f2d3e-7c1a-7000-8000-00000000000b";

    fn violations(items: &[(&str, i64)]) -> Vec<(String, String)> {
        NewOrder::new("u", items).unwrap_err().into_iter().map(|v| (v.field, v.code.into_owned())).collect()
    }

    fn pair(field: &str, code: &str) -> (String, String) {
        (field.to_owned(), code.to_owned())
    }

    #[test]
    fn all_violations_are_reported_together() {
        assert_eq!(
            violations(&[("nonsense", 0), (A, MAX_QUANTITY + 1), (&format!("{{{A}}}"), 1)]),
            [
                pair("items[0].quantity", "out_of_range"),
                pair("items[0].productId", "invalid_uuid"),
                pair("items[1].quantity", "out_of_range"),
                pair("items[2].productId", "invalid_uuid"),
            ]
        );
    }

    #[test]
    fn max_total_has_bounds() {
        for minor in [-1, MaxTotal::MAX + 1, i64::MIN, i64::MAX] {
            assert_eq!(MaxTotal::new(minor).unwrap_err().code, "out_of_range");
        }
        let most = MaxTotal::new(MaxTotal::MAX).unwrap();
        assert!(most.allows(MaxTotal::MAX) && !most.allows(MaxTotal::MAX + 1));
        assert!(MaxTotal::new(0).unwrap().allows(0));
    }

    #[test]
    fn order_has_1_to_100_items() {
        assert_eq!(violations(&[]), [pair("items", "required")]);
        let ids: Vec<String> = (0..=MAX_ITEMS as u128).map(|n| Uuid::from_u128(n).to_string()).collect();
        let items: Vec<(&str, i64)> = ids.iter().map(|id| (id.as_str(), 1)).collect();
        assert_eq!(violations(&items), [pair("items", "too_many")]);
        assert_eq!(NewOrder::new("u", &items[..MAX_ITEMS]).unwrap().lines().len(), MAX_ITEMS);
    }

    #[test]
    fn items_of_a_product_are_merged_at_first_position() {
        let upper = A.to_uppercase();
        let order = NewOrder::new("u", &[(A, 1), (B, 2), (&upper, 3)]).unwrap();
        let lines: Vec<(String, i64)> = order.lines().iter().map(|line| (line.product_id.to_string(), line.quantity)).collect();
        assert_eq!(lines, [(A.to_owned(), 4), (B.to_owned(), 2)]);
    }

    #[test]
    fn merged_quantity_is_limited() {
        assert_eq!(violations(&[(A, MAX_QUANTITY), (A, 1)]), [pair("items[1].quantity", "out_of_range")]);
    }
}
