//! Patch of a product: some fields change, the others keep their values. Its conditions protect
//! only the fields that it overwrites.

use std::ops::Deref;

use palisade_middleware::{
    preconditions::{Condition, VersionPreconditions},
    rejection::Violation,
};

use super::{
    Input, MAX_CATEGORY, MAX_DESCRIPTION, MAX_NAME, MAX_PRICE_MINOR, MAX_QUANTITY, Product, compose, validate_multiline,
    validate_single_line, within,
};

/// Unvalidated changes of a product from a client. `None` keeps the value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patch {
    /// As [`Input::name`].
    pub name: Option<String>,
    /// As [`Input::description`].
    pub description: Option<String>,
    /// As [`Input::price_minor`].
    pub price_minor: Option<i64>,
    /// As [`Input::quantity`].
    pub quantity: Option<i64>,
    /// As [`Input::category`].
    pub category: Option<String>,
    /// As [`Input::is_active`].
    pub is_active: Option<bool>,
}

/// Validated [`Patch`]. Dereferences to the patch and is immutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatedPatch(Patch);

impl Patch {
    /// Returns the patch that sets every field.
    pub fn all_of(input: &Input) -> Self {
        let Input { name, description, price_minor, quantity, category, is_active } = input.clone();
        Self {
            name: Some(name),
            description: Some(description),
            price_minor: Some(price_minor),
            quantity: Some(quantity),
            category: Some(category),
            is_active: Some(is_active),
        }
    }
}

impl ValidatedPatch {
    /// Trims and validates `patch`, and composes its category. `removed` are the JSON names of the
    /// fields to remove. The error contains every violation.
    pub fn new(mut patch: Patch, removed: &[String]) -> Result<Self, Vec<Violation>> {
        let mut violations = Vec::new();
        for field in removed {
            if field == "description" {
                patch.description = Some(String::new());
            } else {
                violations.push(Violation::new(field, "required", "must not be null"));
            }
        }
        let patch = Patch {
            name: patch.name.map(|name| name.trim().to_owned()),
            category: patch.category.map(|category| compose(category.trim())),
            ..patch
        };
        let invalid = [
            patch.name.as_deref().and_then(|name| validate_single_line("name", name, MAX_NAME)),
            patch.description.as_deref().and_then(|text| validate_multiline("description", text, MAX_DESCRIPTION)),
            patch.price_minor.and_then(|price| within("price", price, MAX_PRICE_MINOR, "must be between 0 and 9999999.99")),
            patch.quantity.and_then(|quantity| within("quantity", quantity, MAX_QUANTITY, "must be between 0 and 1000000000")),
            patch.category.as_deref().and_then(|category| validate_single_line("category", category, MAX_CATEGORY)),
        ];
        violations.extend(invalid.into_iter().flatten());
        if violations.is_empty() { Ok(Self(patch)) } else { Err(violations) }
    }

    /// Whether the patch changes nothing.
    pub fn is_empty(&self) -> bool {
        self.0 == Patch::default()
    }

    /// Returns the fields of `product` after the patch.
    pub fn apply(&self, product: &Product) -> Input {
        let Patch { name, description, price_minor, quantity, category, is_active } = self.0.clone();
        Input {
            name: name.unwrap_or_else(|| product.name.clone()),
            description: description.unwrap_or_else(|| product.description.clone()),
            price_minor: price_minor.unwrap_or(product.price_minor),
            quantity: quantity.unwrap_or(product.quantity),
            category: category.unwrap_or_else(|| product.category.clone()),
            is_active: is_active.unwrap_or(product.is_active),
        }
    }

    /// Whether a product in `version` may be patched. `details_version` is its version at the last
    /// change of a field other than the quantity, or `None` if that is unknown.
    ///
    /// A patch without a quantity overwrites no stock. Its `If-Match` holds for every version since
    /// `details_version`: until then only the stock has changed.
    pub fn is_allowed(&self, preconditions: &VersionPreconditions, version: i64, details_version: Option<i64>) -> bool {
        if preconditions.allow_write(&version) {
            return true;
        }
        let (Some(since), None, Some(Condition::Listed(listed))) = (details_version, self.quantity, &preconditions.if_match) else {
            return false;
        };
        let others = VersionPreconditions { if_match: None, if_none_match: preconditions.if_none_match.clone() };
        others.allow_write(&version) && listed.iter().any(|listed| (since..=version).contains(listed))
    }
}

impl Deref for ValidatedPatch {
    type Target = Patch;

    fn deref(&self) -> &Patch {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;
    use crate::product::ValidatedProduct;

    fn lamp() -> Product {
        let [name, description, category] = ["Lamp", "warm", "home"].map(str::to_owned);
        let input = Input { name, description, price_minor: 1, quantity: 7, category, is_active: true };
        ValidatedProduct::new(input).unwrap().into_product(Uuid::nil(), OffsetDateTime::UNIX_EPOCH)
    }

    #[test]
    fn patch_keeps_absent_fields() {
        let patch = Patch { name: Some("  Lantern ".into()), is_active: Some(false), ..Patch::default() };
        let patched = ValidatedPatch::new(patch, &["description".to_owned()]).unwrap().apply(&lamp());
        assert_eq!((patched.name.as_str(), patched.description.as_str(), patched.is_active), ("Lantern", "", false));
        assert_eq!((patched.price_minor, patched.quantity, patched.category.as_str()), (1, 7, "home"));
        assert!(ValidatedPatch::new(Patch::default(), &[]).unwrap().is_empty());
    }

    #[test]
    fn patch_reports_all_violations() {
        let patch = Patch {
            name: Some(" ".into()),
            description: Some("\0".into()),
            price_minor: Some(-1),
            quantity: Some(-1),
            category: Some(String::new()),
            is_active: None,
        };
        let violations = ValidatedPatch::new(patch, &["isActive".to_owned()]).unwrap_err();
        let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["isActive", "name", "description", "price", "quantity", "category"]);
    }

    #[test]
    fn stock_changes_do_not_fail_a_patch_of_details() {
        let details = ValidatedPatch::new(Patch { name: Some("Lantern".into()), ..Patch::default() }, &[]).unwrap();
        let stock = ValidatedPatch::new(Patch { quantity: Some(3), ..Patch::default() }, &[]).unwrap();
        let if_match =
            |versions: &[i64]| VersionPreconditions { if_match: Some(Condition::Listed(versions.to_vec())), if_none_match: None };
        // The product is in version 9. Its details changed last in version 5.
        for (listed, details_version, expected) in [
            (vec![9], Some(5), true),
            (vec![5], Some(5), true),
            (vec![1, 7], Some(5), true),
            (vec![4], Some(5), false),
            (vec![10], Some(5), false),
            (vec![], Some(5), false),
            (vec![7], None, false),
            (vec![9], None, true),
        ] {
            assert_eq!(details.is_allowed(&if_match(&listed), 9, details_version), expected, "{listed:?} {details_version:?}");
            assert_eq!(stock.is_allowed(&if_match(&listed), 9, details_version), listed == [9], "{listed:?}");
        }
        let both = VersionPreconditions { if_none_match: Some(Condition::Listed(vec![9])), ..if_match(&[7]) };
        assert!(!details.is_allowed(&both, 9, Some(5)));
        assert!(details.is_allowed(&VersionPreconditions::default(), 9, None));
    }
}
