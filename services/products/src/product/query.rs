//! List queries: filter, sort order, keyset pagination.

use palisade_middleware::rejection::Violation;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{MAX_CATEGORY, Product, normalize, normalize_legacy, validate_single_line};

// Page size, products.
const MAX_LIMIT: u32 = 100;
const DEFAULT_LIMIT: u32 = 20;
const MAX_TEXT: usize = 200;
/// Maximum price of a filter, minor units. As a JSON number it is exact, and far above
/// [`super::MAX_PRICE_MINOR`].
const MAX_FILTER_PRICE_MINOR: i64 = 999_999_999_999_999;

/// Validated query for one page of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    filter: Filter,
    sort: Sort,
    limit: u32,
    after: Option<Position>,
}

/// Conditions on the listed products. `None` does not filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Exact category, composed (NFC).
    pub category: Option<String>,
    /// Only active or only inactive products.
    pub is_active: Option<bool>,
    /// Literal substring of name or description, by canonical caseless matching.
    pub text: Option<String>,
    /// Minimum price, minor units.
    pub min_price_minor: Option<i64>,
    /// Maximum price, minor units.
    pub max_price_minor: Option<i64>,
}

/// Sort order. The id breaks ties in the same direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    /// By creation time, descending.
    #[default]
    Newest,
    /// By creation time, ascending.
    Oldest,
    /// By price, ascending.
    PriceAsc,
    /// By price, descending.
    PriceDesc,
    /// By name, ascending by code point.
    NameAsc,
    /// By name, descending by code point.
    NameDesc,
}

/// Keyset position: the last product of a page. The next page starts after it, regardless of
/// inserts in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Its sort key.
    pub key: SortKey,
    /// Its id.
    pub id: Uuid,
}

/// Value of the field that is sorted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SortKey {
    /// Creation time.
    CreatedAt(OffsetDateTime),
    /// Price, minor units.
    PriceMinor(i64),
    /// Name.
    Name(String),
}

/// One page of products.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Products in the requested order.
    pub items: Vec<Product>,
    /// Position of the next page; `None` on the last page.
    pub next: Option<Position>,
}

impl Query {
    /// Validates a query. The error contains every violation by query parameter. A `limit` of 0
    /// means 20.
    pub fn new(filter: Filter, sort: Sort, limit: u32, after: Option<Position>) -> Result<Self, Vec<Violation>> {
        let limit = if limit == 0 { DEFAULT_LIMIT } else { limit };
        let price = |field: &str, price: Option<i64>| {
            let is_valid = price.is_none_or(|price| (0..=MAX_FILTER_PRICE_MINOR).contains(&price));
            (!is_valid).then(|| Violation::new(field, "out_of_range", "must be between 0 and 9999999999999.99"))
        };
        let violations: Vec<_> = [
            filter.category.as_deref().and_then(|category| validate_single_line("category", category, MAX_CATEGORY)),
            filter.text.as_deref().and_then(|text| validate_single_line("q", text, MAX_TEXT)),
            price("minPrice", filter.min_price_minor),
            price("maxPrice", filter.max_price_minor),
            (limit > MAX_LIMIT).then(|| Violation::new("limit", "out_of_range", "must be between 1 and 100")),
        ]
        .into_iter()
        .flatten()
        .collect();
        if violations.is_empty() { Ok(Self { filter, sort, limit, after }) } else { Err(violations) }
    }

    /// Returns the filter.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Returns the sort order.
    pub fn sort(&self) -> Sort {
        self.sort
    }

    /// Returns the page size, 1 to 100.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Returns the end of the previous page.
    pub fn after(&self) -> Option<&Position> {
        self.after.as_ref()
    }

    /// Builds a page from the result of a store query for [`Query::limit`] + 1 products. A row that
    /// cannot be read is `None`, and is left out.
    pub fn page(&self, rows: Vec<Option<Product>>) -> Page {
        let limit = self.limit as usize;
        let has_more = rows.len() > limit;
        let products: Vec<Product> = rows.into_iter().take(limit).flatten().collect();
        let next = products.last().filter(|_| has_more).map(|last| self.position(last));
        Page { items: products, next }
    }

    /// Returns a page of the first `count` products of `page`, at least 1. The others begin the
    /// next page.
    #[must_use]
    pub fn truncate(&self, mut page: Page, count: usize) -> Page {
        if count < page.items.len() {
            page.items.truncate(count);
            page.next = page.items.last().map(|last| self.position(last));
        }
        page
    }

    fn position(&self, last: &Product) -> Position {
        Position { key: self.sort.key(last), id: last.id }
    }
}

impl Filter {
    /// Returns the search text, normalized like [`super::searchable`].
    pub fn normalized_text(&self) -> Option<String> {
        self.text.as_deref().map(normalize)
    }

    /// Returns the search text, normalized like [`super::legacy_searchable`].
    pub fn legacy_text(&self) -> Option<String> {
        self.text.as_deref().map(normalize_legacy)
    }

    /// Fingerprint of this filter and sort order. A cursor is sealed with it and is valid for no
    /// other query.
    pub fn fingerprint(&self, sort: Sort) -> Vec<u8> {
        let parts = [
            Some(sort.as_str().to_owned()),
            self.category.clone(),
            self.is_active.map(|is_active| is_active.to_string()),
            self.text.clone(),
            self.min_price_minor.map(|price| price.to_string()),
            self.max_price_minor.map(|price| price.to_string()),
        ];
        let mut bytes = b"products".to_vec();
        for part in parts {
            match part {
                // Length prefix: distinct filters never yield the same bytes.
                Some(part) => bytes.extend([&[1], &part.len().to_be_bytes()[..], part.as_bytes()].concat()),
                None => bytes.push(0),
            }
        }
        bytes
    }
}

impl Sort {
    /// Returns the sort key of `product`.
    pub fn key(self, product: &Product) -> SortKey {
        match self {
            Self::Newest | Self::Oldest => SortKey::CreatedAt(product.created_at),
            Self::PriceAsc | Self::PriceDesc => SortKey::PriceMinor(product.price_minor),
            Self::NameAsc | Self::NameDesc => SortKey::Name(product.name.clone()),
        }
    }

    /// Whether the order is descending.
    pub fn is_descending(self) -> bool {
        matches!(self, Self::Newest | Self::PriceDesc | Self::NameDesc)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Oldest => "oldest",
            Self::PriceAsc => "price_asc",
            Self::PriceDesc => "price_desc",
            Self::NameAsc => "name_asc",
            Self::NameDesc => "name_desc",
        }
    }
}

impl Position {
    /// Encodes the position, to be sealed into a cursor.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.id.as_bytes().to_vec();
        match &self.key {
            SortKey::CreatedAt(at) => bytes.extend(at.unix_timestamp_nanos().to_be_bytes()),
            SortKey::PriceMinor(price) => bytes.extend(price.to_be_bytes()),
            SortKey::Name(name) => bytes.extend(name.as_bytes()),
        }
        bytes
    }

    /// Decodes the result of [`Position::to_bytes`] for this sort order; `None` for any other
    /// bytes.
    pub fn from_bytes(sort: Sort, bytes: &[u8]) -> Option<Self> {
        let (id, key) = bytes.split_first_chunk()?;
        let key = match sort {
            Sort::Newest | Sort::Oldest => {
                let nanos = i128::from_be_bytes(key.try_into().ok()?);
                SortKey::CreatedAt(OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?)
            }
            Sort::PriceAsc | Sort::PriceDesc => SortKey::PriceMinor(i64::from_be_bytes(key.try_into().ok()?)),
            Sort::NameAsc | Sort::NameDesc => SortKey::Name(String::from_utf8(key.to_vec()).ok()?),
        };
        Some(Self { key, id: Uuid::from_bytes(*id) })
    }
}
