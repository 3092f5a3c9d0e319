//! History of a product: each change of its catalogue fields, with its actor. Changes of the
//! quantity are in the stock ledger.

use palisade_middleware::auth::Subject;
use time::OffsetDateTime;

use super::Product;

/// Maximum number of changes that a history keeps: the latest ones.
pub const MAX_HISTORY: u32 = 50;

/// One change of a product: its creation, or an update or patch of a catalogue field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Version of the product after the change.
    pub version: i64,
    /// Fields that changed.
    pub fields: ChangedFields,
    /// Caller that made the change; `None` if it is unknown.
    pub actor: Option<Subject>,
    /// Time of the change.
    pub at: OffsetDateTime,
}

/// Catalogue fields that changed. `None` and `false`: unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangedFields {
    /// See [`Product::name`].
    pub name: Option<Edit<String>>,
    /// Whether the description changed. Its texts are not kept, to bound the size of a history.
    pub description: bool,
    /// See [`Product::price_minor`].
    pub price_minor: Option<Edit<i64>>,
    /// See [`Product::category`].
    pub category: Option<Edit<String>>,
    /// See [`Product::is_active`].
    pub is_active: Option<Edit<bool>>,
}

/// Value of a field before and after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit<T> {
    /// Value before the change; `None` for the creation.
    pub from: Option<T>,
    /// Value after the change.
    pub to: T,
}

impl Change {
    /// Returns the creation of `product` by `actor`.
    pub fn creation(product: &Product, actor: Subject) -> Self {
        let fields = ChangedFields {
            name: Some(Edit::initial(product.name.clone())),
            description: !product.description.is_empty(),
            price_minor: Some(Edit::initial(product.price_minor)),
            category: Some(Edit::initial(product.category.clone())),
            is_active: Some(Edit::initial(product.is_active)),
        };
        Self { version: product.version, fields, actor: Some(actor), at: product.created_at }
    }
}

impl<T> Edit<T> {
    fn initial(to: T) -> Self {
        Self { from: None, to }
    }
}
