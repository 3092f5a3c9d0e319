//! Validation of new orders. All violations are reported at once.

use palisade_middleware::rejection::Violation;
use uuid::Uuid;

use super::Line;

/// Maximum number of items per order.
pub const MAX_ITEMS: usize = 100;
/// Maximum units of one product per order.
pub const MAX_QUANTITY: i64 = 1_000_000;
/// Maximum length of a user id, characters.
const MAX_USER_ID: usize = 128;

/// A validated order request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOrder {
    user_id: String,
    lines: Vec<Line>,
}

impl NewOrder {
    /// Validates `items` (product id, quantity) ordered for `user_id`. Merges the items of a
    /// product into one line.
    pub fn new(user_id: &str, items: &[(&str, i64)]) -> Result<Self, Vec<Violation>> {
        let mut violations = Vec::new();
        check_user_id(user_id, &mut violations);
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
        if violations.is_empty() { Ok(Self { user_id: user_id.to_owned(), lines }) } else { Err(violations) }
    }

    /// Returns the owner of the order.
    pub fn user_id(&self) -> &str {
        &self.user_id
    }

    /// Returns one line per product, in the order of first occurrence.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    pub(super) fn into_parts(self) -> (String, Vec<Line>) {
        (self.user_id, self.lines)
    }
}

fn check_user_id(user_id: &str, violations: &mut Vec<Violation>) {
    if user_id.is_empty() {
        violations.push(Violation::new("userId", "required", "must not be empty"));
    } else if user_id.chars().count() > MAX_USER_ID {
        violations.push(Violation::new("userId", "too_long", format!("must have at most {MAX_USER_ID} characters")));
    }
    if !user_id.chars().all(is_visible) {
        violations.push(Violation::new("userId", "invalid_characters", "must have only visible characters"));
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

/// Rejects whitespace, control characters, and invisible or bidirectional Unicode characters.
fn is_visible(c: char) -> bool {
    let hidden = matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !c.is_control() && !c.is_whitespace() && !hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "018f2d3e-7c1a-7000-8000-00000000000a";
    const B: &str = "018f2d3e-7c1a-7000-8000-00000000000b";

    fn violations(user_id: &str, items: &[(&str, i64)]) -> Vec<(String, String)> {
        NewOrder::new(user_id, items).unwrap_err().into_iter().map(|v| (v.field, v.code.into_owned())).collect()
    }

    fn pair(field: &str, code: &str) -> (String, String) {
        (field.to_owned(), code.to_owned())
    }

    #[test]
    fn all_violations_are_reported_together() {
        assert_eq!(
            violations(" ", &[("nonsense", 0), (A, MAX_QUANTITY + 1), (&format!("{{{A}}}"), 1)]),
            [
                pair("userId", "invalid_characters"),
                pair("items[0].quantity", "out_of_range"),
                pair("items[0].productId", "invalid_uuid"),
                pair("items[1].quantity", "out_of_range"),
                pair("items[2].productId", "invalid_uuid"),
            ]
        );
    }

    #[test]
    fn order_has_1_to_100_items() {
        assert_eq!(violations("u", &[]), [pair("items", "required")]);
        let ids: Vec<String> = (0..=MAX_ITEMS as u128).map(|n| Uuid::from_u128(n).to_string()).collect();
        let items: Vec<(&str, i64)> = ids.iter().map(|id| (id.as_str(), 1)).collect();
        assert_eq!(violations("u", &items), [pair("items", "too_many")]);
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
        assert_eq!(violations("u", &[(A, MAX_QUANTITY), (A, 1)]), [pair("items[1].quantity", "out_of_range")]);
    }

    #[test]
    fn user_id_is_short_and_visible() {
        let long = "x".repeat(MAX_USER_ID + 1);
        for (user_id, code) in [("", "required"), (&*long, "too_long"), ("a b", "invalid_characters"), ("a\0", "invalid_characters")] {
            assert_eq!(violations(user_id, &[(A, 1)]), [pair("userId", code)], "{user_id:?}");
        }
        for user_id in ["a", "auth0|5f7", "Zoë", &long[1..]] {
            assert!(NewOrder::new(user_id, &[(A, 1)]).is_ok(), "{user_id:?}");
        }
    }
}
