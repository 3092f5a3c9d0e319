//! Which products a client asks for, in what order, and from where on.

use palisade_middleware::rejection::Violation;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{MAX_CATEGORY, Product, text};

// Most products on a page.
const MAX_LIMIT: u32 = 100;
const DEFAULT_LIMIT: u32 = 20;
const MAX_TEXT: usize = 200;

/// One page of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    filter: Filter,
    sort: Sort,
    limit: u32,
    after: Option<Position>,
}

/// What the listed products have in common. `None` does not filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Exactly this category.
    pub category: Option<String>,
    /// Active, or inactive, ones only.
    pub is_active: Option<bool>,
    /// Literal substring of name or description, in any case.
    pub text: Option<String>,
    /// At least this price in minor units.
    pub min_price_minor: Option<i64>,
    /// At most this price in minor units.
    pub max_price_minor: Option<i64>,
}

/// The orders offered; the id breaks ties in the same direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    /// Latest created first.
    #[default]
    Newest,
    /// Earliest created first.
    Oldest,
    /// Cheapest first.
    PriceAsc,
    /// Dearest first.
    PriceDesc,
    /// By name, code point by code point.
    NameAsc,
    /// By name, backwards.
    NameDesc,
}

/// The last product of a page: the next page starts behind it, whatever was inserted in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Its value of what is sorted by.
    pub key: SortKey,
    /// Its id.
    pub id: Uuid,
}

/// A value that is sorted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SortKey {
    /// When the product was created.
    CreatedAt(OffsetDateTime),
    /// Its price in minor units.
    PriceMinor(i64),
    /// Its name.
    Name(String),
}

/// Some products, and where the next page starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In the order asked for.
    pub items: Vec<Product>,
    /// `None` on the last page.
    pub next: Option<Position>,
}

impl Query {
    /// Checks what a client asked for; the error holds every broken rule by query parameter. A `limit` of 0 means 20.
    pub fn new(filter: Filter, sort: Sort, limit: u32, after: Option<Position>) -> Result<Self, Vec<Violation>> {
        let limit = if limit == 0 { DEFAULT_LIMIT } else { limit };
        let negative = |price: Option<i64>| price.is_some_and(|price| price < 0);
        let violations: Vec<_> = [
            filter.category.as_deref().and_then(|category| text::validate_single_line("category", category, MAX_CATEGORY)),
            filter.text.as_deref().and_then(|text| text::validate_single_line("q", text, MAX_TEXT)),
            negative(filter.min_price_minor).then(|| Violation::new("minPrice", "out_of_range", "must not be negative")),
            negative(filter.max_price_minor).then(|| Violation::new("maxPrice", "out_of_range", "must not be negative")),
            (limit > MAX_LIMIT).then(|| Violation::new("limit", "out_of_range", "must be between 1 and 100")),
        ]
        .into_iter()
        .flatten()
        .collect();
        if violations.is_empty() { Ok(Self { filter, sort, limit, after }) } else { Err(violations) }
    }

    /// What the listed products have in common.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Their order.
    pub fn sort(&self) -> Sort {
        self.sort
    }

    /// Most products on the page, 1 to 100.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Where the page before ended.
    pub fn after(&self) -> Option<&Position> {
        self.after.as_ref()
    }

    /// Makes the page of what a store found when it asked for one product more than [`Query::limit`].
    pub fn page(&self, mut found: Vec<Product>) -> Page {
        let limit = self.limit as usize;
        let has_more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| has_more).map(|last| Position { key: self.sort.key(last), id: last.id });
        Page { items: found, next }
    }
}

impl Filter {
    /// The search text in the case of [`super::searchable`].
    pub fn normalized_text(&self) -> Option<String> {
        self.text.as_deref().map(text::normalize_for_search)
    }

    /// Tells this filter in this order from every other one, for signing positions: a position means nothing elsewhere.
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
                // The length before the text: no two filters run together into the same bytes.
                Some(part) => bytes.extend([&[1], &part.len().to_be_bytes()[..], part.as_bytes()].concat()),
                None => bytes.push(0),
            }
        }
        bytes
    }
}

impl Sort {
    /// The value of `product` that is sorted by.
    pub fn key(self, product: &Product) -> SortKey {
        match self {
            Self::Newest | Self::Oldest => SortKey::CreatedAt(product.created_at),
            Self::PriceAsc | Self::PriceDesc => SortKey::PriceMinor(product.price_minor),
            Self::NameAsc | Self::NameDesc => SortKey::Name(product.name.clone()),
        }
    }

    /// Greatest first?
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
    /// The position as bytes, to be sealed into a cursor.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.id.as_bytes().to_vec();
        match &self.key {
            SortKey::CreatedAt(at) => bytes.extend(at.unix_timestamp_nanos().to_be_bytes()),
            SortKey::PriceMinor(price) => bytes.extend(price.to_be_bytes()),
            SortKey::Name(name) => bytes.extend(name.as_bytes()),
        }
        bytes
    }

    /// What [`Position::to_bytes`] made of a position in this order; `None` if it never did.
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
