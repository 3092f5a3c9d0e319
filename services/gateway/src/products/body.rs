//! JSON representation of products.

use palisade_middleware::rejection::{Rejection, Violation};
use palisade_proto::products::v1 as proto;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    extract::{Integer, Limit, non_null},
    money::{Amount, NumberText},
    text::non_empty,
    timestamp,
};

/// Price or quantity that the service always rejects. An invalid input is sent with it, because the
/// service adds further violations and can never accept the value.
pub(super) const NEVER_VALID: i64 = -1;

/// A product of the catalogue.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Product {
    #[schema(format = Uuid)]
    pub(super) id: String,
    #[schema(example = "Kettle")]
    name: String,
    #[schema(example = "1.7 l, steel")]
    description: String,
    /// Price of one unit. Exact decimal number without trailing zeros.
    #[schema(value_type = f64, example = 24.9, minimum = 0, maximum = 9_999_999.99)]
    price: Amount,
    /// Units available for sale. Units held by open reservations are already deducted.
    #[schema(example = 120, minimum = 0, maximum = 1_000_000_000)]
    quantity: i64,
    #[schema(example = "kitchen")]
    category: String,
    is_active: bool,
    /// Incremented with every change of the product, stock included. In quotes, it is the entity
    /// tag.
    #[schema(example = 3, minimum = 1)]
    pub(super) version: i64,
    #[schema(format = DateTime, example = "2026-01-31T12:00:00.000Z")]
    created_at: String,
    #[schema(format = DateTime, example = "2026-01-31T12:00:00.000Z")]
    updated_at: String,
}

impl TryFrom<proto::Product> for Product {
    type Error = Rejection;

    fn try_from(product: proto::Product) -> Result<Self, Rejection> {
        Ok(Self {
            id: product.id,
            name: product.name,
            description: product.description,
            price: Amount(product.price_minor),
            quantity: product.quantity,
            category: product.category,
            is_active: product.is_active,
            version: product.version,
            created_at: timestamp::to_rfc3339(product.created_at)?,
            updated_at: timestamp::to_rfc3339(product.updated_at)?,
        })
    }
}

/// A new or replaced product. Unknown fields are rejected.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ProductInput {
    /// 1 to 200 characters after trimming.
    #[serde(default, deserialize_with = "non_null")]
    #[schema(value_type = String, required = true, min_length = 1, example = "Kettle")]
    name: Option<String>,
    #[serde(default)]
    #[schema(max_length = 4_000, example = "1.7 l, steel")]
    description: String,
    /// Plain decimal number with at most 2 decimals and no exponent.
    #[serde(default, deserialize_with = "non_null")]
    #[schema(value_type = f64, required = true, minimum = 0, maximum = 9_999_999.99, multiple_of = 0.01, example = 24.9)]
    price: Option<NumberText>,
    #[serde(default, deserialize_with = "non_null")]
    #[schema(value_type = i64, required = true, minimum = 0, maximum = 1_000_000_000, example = 120)]
    quantity: Option<Integer>,
    /// 1 to 100 characters after trimming.
    #[serde(default, deserialize_with = "non_null")]
    #[schema(value_type = String, required = true, min_length = 1, example = "kitchen")]
    category: Option<String>,
    #[serde(default = "active")]
    #[schema(default = true)]
    is_active: bool,
}

/// Default of `isActive`.
fn active() -> bool {
    true
}

impl ProductInput {
    /// Converts the input for the service and returns the violations that are visible only in the
    /// JSON.
    pub(super) fn into_proto(self) -> (proto::ProductInput, Vec<Violation>) {
        let mut violations = Vec::new();
        let mut required = |field: &str, is_missing: bool| {
            if is_missing {
                violations.push(Violation::new(field, "required", "must be given"));
            }
        };
        required("name", self.name.is_none());
        required("price", self.price.is_none());
        required("quantity", self.quantity.is_none());
        required("category", self.category.is_none());
        let price = self.price.map_or(Ok(Amount(NEVER_VALID)), |price| price.amount()).unwrap_or_else(|error| {
            violations.push(Violation::new("price", error.code(), error.to_string()));
            Amount(NEVER_VALID)
        });
        let product = proto::ProductInput {
            // The service also reports an empty name or category as missing.
            name: self.name.unwrap_or_default(),
            description: self.description,
            price_minor: price.0,
            quantity: self.quantity.map_or(NEVER_VALID, |quantity| quantity.0),
            category: self.category.unwrap_or_default(),
            is_active: Some(self.is_active),
        };
        (product, violations)
    }
}

/// Filters, order and page of a list of products.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filters {
    /// Only products of exactly this category.
    #[param(min_length = 1, max_length = 100)]
    category: Option<String>,
    /// Only active (`true`) or only inactive (`false`) products.
    is_active: Option<bool>,
    /// Only products with this text in name or description, case-insensitive.
    #[param(min_length = 1, max_length = 200)]
    q: Option<String>,
    /// Minimum price, a plain decimal number.
    #[param(value_type = Option<f64>, minimum = 0, maximum = 9_999_999_999_999.99, multiple_of = 0.01)]
    min_price: Option<Amount>,
    /// Maximum price, a plain decimal number.
    #[param(value_type = Option<f64>, minimum = 0, maximum = 9_999_999_999_999.99, multiple_of = 0.01)]
    max_price: Option<Amount>,
    /// Sort order. Default: newest first.
    #[param(inline)]
    sort: Option<Sort>,
    /// Maximum number of products on the page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100, default = 20)]
    limit: Option<Limit>,
    /// `nextCursor` of the previous page. Filters and sort order must be the same.
    cursor: Option<String>,
}

/// Sort order of a list of products.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sort {
    Newest,
    Oldest,
    PriceAsc,
    PriceDesc,
    NameAsc,
    NameDesc,
}

impl From<Filters> for proto::FindAllRequest {
    fn from(filters: Filters) -> Self {
        let sort = match filters.sort.unwrap_or(Sort::Newest) {
            Sort::Newest => proto::ProductSort::Newest,
            Sort::Oldest => proto::ProductSort::Oldest,
            Sort::PriceAsc => proto::ProductSort::PriceAsc,
            Sort::PriceDesc => proto::ProductSort::PriceDesc,
            Sort::NameAsc => proto::ProductSort::NameAsc,
            Sort::NameDesc => proto::ProductSort::NameDesc,
        };
        Self {
            category: filters.category,
            is_active: filters.is_active,
            q: filters.q,
            min_price_minor: filters.min_price.map(|price| price.0),
            max_price_minor: filters.max_price.map(|price| price.0),
            sort: sort.into(),
            limit: filters.limit.map_or(0, |limit| limit.0),
            cursor: filters.cursor.unwrap_or_default(),
        }
    }
}

/// One page of products.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProductPage {
    items: Vec<Product>,
    /// Cursor of the next page; `null` on the last page.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

impl TryFrom<proto::FindAllResponse> for ProductPage {
    type Error = Rejection;

    fn try_from(page: proto::FindAllResponse) -> Result<Self, Rejection> {
        let items = page.items.into_iter().map(Product::try_from).collect::<Result<_, _>>()?;
        Ok(Self { items, next_cursor: non_empty(page.next_cursor) })
    }
}
