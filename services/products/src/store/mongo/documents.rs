//! The documents as they lie in the collections, and their way to and from the domain.

use mongodb::bson::{self, Binary, Bson, DateTime};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    product::{Product, searchable},
    reservation::{HeldLine, ProductStock, Refusal, Reservation, State},
    store::{
        Error,
        timestamp::{from_millis, to_millis},
    },
};

/// A product as it is shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProductDocument {
    #[serde(rename = "_id")]
    id: bson::Uuid,
    name: String,
    description: String,
    price_minor: i64,
    quantity: i64,
    category: String,
    is_active: bool,
    version: i64,
    created_at: DateTime,
    updated_at: DateTime,
}

/// A product as it is first written.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewProduct {
    #[serde(flatten)]
    product: ProductDocument,
    folded: String,
    taken: i64,
    supply: i64,
    marks: Vec<String>,
    epoch: i64,
    /// Since when there is something to tell of it, see [`super::news`].
    news: DateTime,
}

/// A product as far as reservations are concerned.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stock {
    #[serde(rename = "_id")]
    pub(super) id: bson::Uuid,
    pub(super) name: String,
    pub(super) price_minor: i64,
    pub(super) is_active: bool,
    pub(super) version: i64,
    /// Units that can still be sold.
    pub(super) quantity: i64,
    /// Units in reservations, unsettled ones included.
    pub(super) taken: i64,
    /// Opening stock plus all adjustments.
    pub(super) supply: i64,
    /// What reservations did here, see [`super::marks`].
    pub(super) marks: Vec<String>,
    /// How often marks were pruned.
    pub(super) epoch: i64,
}

/// A reservation and how far the work on it has come.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReservationDocument {
    #[serde(rename = "_id")]
    pub(super) id: bson::Uuid,
    pub(super) state: Phase,
    pub(super) lines: Vec<LineDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) refusal: Option<RefusalDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) undo: Option<Undo>,
    pub(super) expires_at: DateTime,
    pub(super) updated_at: DateTime,
}

/// The states of a reservation, and the two in which work on it is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Phase {
    Reserving,
    Held,
    Confirmed,
    Undoing,
    Refused,
    Released,
    Expired,
}

/// What an `UNDOING` reservation becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Undo {
    pub(super) to: Phase,
    /// Whether every line is known to be taken: it was held or confirmed before.
    pub(super) all_lines_taken: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LineDocument {
    pub(super) product_id: bson::Uuid,
    pub(super) quantity: i64,
    name: String,
    unit_price_minor: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RefusalDocument {
    pub(super) reason: String,
    pub(super) product_id: bson::Uuid,
}

/// The stored answer to a create.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyDocument {
    #[serde(rename = "_id")]
    pub(super) id: KeyId,
    pub(super) fingerprint: Binary,
    pub(super) product: ProductDocument,
    /// Whether the product was inserted: it is not inserted again, even if it was removed since.
    pub(super) done: bool,
    pub(super) expires_at: DateTime,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyId {
    pub(super) subject: String,
    pub(super) key: String,
}

/// An id as BSON keeps it.
pub(super) fn bson_id(id: Uuid) -> bson::Uuid {
    bson::Uuid::from_bytes(id.into_bytes())
}

/// An id as the domain knows it.
pub(super) fn domain_id(id: bson::Uuid) -> Uuid {
    Uuid::from_bytes(id.bytes())
}

/// A moment as BSON keeps it.
pub(super) fn bson_time(at: OffsetDateTime) -> DateTime {
    DateTime::from_millis(to_millis(at))
}

impl From<&Product> for ProductDocument {
    fn from(product: &Product) -> Self {
        Self {
            id: bson_id(product.id),
            name: product.name.clone(),
            description: product.description.clone(),
            price_minor: product.price_minor,
            quantity: product.quantity,
            category: product.category.clone(),
            is_active: product.is_active,
            version: product.version,
            created_at: bson_time(product.created_at),
            updated_at: bson_time(product.updated_at),
        }
    }
}

impl TryFrom<ProductDocument> for Product {
    type Error = Error;

    fn try_from(document: ProductDocument) -> Result<Self, Error> {
        Ok(Self {
            id: domain_id(document.id),
            name: document.name,
            description: document.description,
            price_minor: document.price_minor,
            quantity: document.quantity,
            category: document.category,
            is_active: document.is_active,
            version: document.version,
            created_at: from_millis(document.created_at.timestamp_millis())?,
            updated_at: from_millis(document.updated_at.timestamp_millis())?,
        })
    }
}

impl From<ProductDocument> for NewProduct {
    fn from(product: ProductDocument) -> Self {
        Self {
            folded: searchable(&product.name, &product.description),
            taken: 0,
            supply: product.quantity,
            marks: vec![],
            epoch: 0,
            news: product.created_at,
            product,
        }
    }
}

impl Stock {
    /// What it has to offer to a reservation.
    pub(super) fn product_stock(&self) -> ProductStock {
        ProductStock { name: self.name.clone(), unit_price_minor: self.price_minor, quantity: self.quantity, is_active: self.is_active }
    }
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Self::Reserving => "RESERVING",
            Self::Held => "HELD",
            Self::Confirmed => "CONFIRMED",
            Self::Undoing => "UNDOING",
            Self::Refused => "REFUSED",
            Self::Released => "RELEASED",
            Self::Expired => "EXPIRED",
        }
    }
}

impl From<Phase> for Bson {
    fn from(phase: Phase) -> Self {
        phase.as_str().into()
    }
}

impl ReservationDocument {
    /// A new reservation: to be worked on if it is to be held, else settled from the start.
    pub(super) fn new(reservation: &Reservation, now: OffsetDateTime) -> Self {
        let (state, refusal) = match reservation.state {
            State::Held => (Phase::Reserving, None),
            State::Confirmed => (Phase::Confirmed, None),
            State::Released => (Phase::Released, None),
            State::Expired => (Phase::Expired, None),
            State::Refused { reason, product_id } => (Phase::Refused, Some(RefusalDocument::new(reason, bson_id(product_id)))),
        };
        Self {
            id: bson_id(reservation.id),
            state,
            lines: reservation.lines.iter().map(LineDocument::from).collect(),
            refusal,
            undo: None,
            expires_at: bson_time(reservation.expires_at),
            updated_at: bson_time(now),
        }
    }

    /// The reservation, if no work on it is under way.
    pub(super) fn settled(self) -> Result<Option<Reservation>, Error> {
        if matches!(self.state, Phase::Reserving | Phase::Undoing) {
            return Ok(None);
        }
        let refused = self.refusal.and_then(|refusal| Refusal::parse(&refusal.reason).zip(Some(domain_id(refusal.product_id))));
        let name = self.state.as_str();
        Ok(Some(Reservation {
            id: domain_id(self.id),
            state: State::parse(name, refused).ok_or_else(|| Error::Corrupt(format!("reservation {} lacks its refusal", self.id)))?,
            lines: self.lines.into_iter().map(HeldLine::from).collect(),
            expires_at: from_millis(self.expires_at.timestamp_millis())?,
        }))
    }
}

impl RefusalDocument {
    pub(super) fn new(reason: Refusal, product_id: bson::Uuid) -> Self {
        Self { reason: reason.as_str().to_owned(), product_id }
    }
}

impl From<&HeldLine> for LineDocument {
    fn from(line: &HeldLine) -> Self {
        Self {
            product_id: bson_id(line.product_id),
            quantity: line.quantity,
            name: line.name.clone(),
            unit_price_minor: line.unit_price_minor,
        }
    }
}

impl From<LineDocument> for HeldLine {
    fn from(line: LineDocument) -> Self {
        Self { product_id: domain_id(line.product_id), quantity: line.quantity, name: line.name, unit_price_minor: line.unit_price_minor }
    }
}
