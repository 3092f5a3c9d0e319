//! BSON documents and their conversions.

use mongodb::bson::{self, Binary, Bson, DateTime};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::ledger_documents::EntryDocument;
use crate::{
    product::Product,
    reservation::{HeldLine, ProductStock, Refusal, Reservation, State},
    store::database::{Error, from_millis, to_millis},
};

mod progress;

pub(super) use self::progress::{Fulfilment, LastRevision, RevisionDocument, RevisionStep, UnitsDocument};

/// Public fields of a product.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProductDocument {
    #[serde(rename = "_id")]
    pub(super) id: bson::Uuid,
    pub(super) name: String,
    pub(super) description: String,
    price_minor: i64,
    pub(super) quantity: i64,
    category: String,
    is_active: bool,
    pub(super) version: i64,
    pub(super) created_at: DateTime,
    updated_at: DateTime,
}

/// Fields of a product that reservations use.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stock {
    #[serde(rename = "_id")]
    pub(super) id: bson::Uuid,
    pub(super) name: String,
    pub(super) price_minor: i64,
    pub(super) is_active: bool,
    pub(super) version: i64,
    /// Units available for sale.
    pub(super) quantity: i64,
    /// Units in reservations, unfinished ones included.
    pub(super) taken: i64,
    /// Opening stock plus all adjustments, less the fulfilled units.
    pub(super) supply: i64,
    /// Steps of reservations in this product, see [`super::stock_marks`].
    pub(super) marks: Vec<String>,
    /// Number of prunes of the marks.
    pub(super) epoch: i64,
    /// Reservations whose fulfilment is under way and has been applied here, see
    /// [`super::fulfilment`].
    #[serde(default)]
    pub(super) fulfilling: Vec<bson::Uuid>,
    /// Steps of revisions under way that are done here, see [`super::revision`].
    #[serde(default)]
    pub(super) revising: Vec<String>,
    /// Sum of the ledger, `pending_ledger` included, see [`super::ledger`].
    #[serde(default)]
    pub(super) booked: i64,
    /// Sequence of the last entry of the ledger.
    #[serde(default)]
    pub(super) ledger_sequence: Option<i64>,
    /// Entries that are not in the ledger yet.
    #[serde(default)]
    pub(super) pending_ledger: Vec<EntryDocument>,
}

/// Reservation and the progress of its steps.
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fulfilment: Option<Fulfilment>,
    /// Revision under way. Replicas of the previous release ignore it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) revision: Option<RevisionDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_revision: Option<LastRevision>,
    pub(super) expires_at: DateTime,
    pub(super) updated_at: DateTime,
}

/// States of a reservation, with the two intermediate states `RESERVING` and `UNDOING`.
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

/// Target of an `UNDOING` reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Undo {
    pub(super) to: Phase,
    /// Whether every line is known to be taken, because the reservation was held or confirmed
    /// before.
    #[serde(rename = "sure")]
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

/// Stored response of a create.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyDocument {
    #[serde(rename = "_id")]
    pub(super) id: KeyId,
    pub(super) fingerprint: Binary,
    pub(super) product: ProductDocument,
    /// Whether the product was inserted. It is not inserted again, even if it was removed since.
    pub(super) done: bool,
    pub(super) expires_at: DateTime,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyId {
    pub(super) subject: String,
    pub(super) key: String,
}

/// Marker of a product that is, or was about to be, removed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RemovedDocument {
    #[serde(rename = "_id")]
    pub(super) id: bson::Uuid,
    pub(super) since: DateTime,
}

/// Converts an id to BSON.
pub(super) fn bson_id(id: Uuid) -> bson::Uuid {
    bson::Uuid::from_bytes(id.into_bytes())
}

/// Converts an id from BSON.
pub(super) fn domain_id(id: bson::Uuid) -> Uuid {
    Uuid::from_bytes(id.bytes())
}

/// Converts a timestamp to BSON.
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

impl Stock {
    /// Converts to the input of a reservation decision.
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
    /// Creates the document of a new reservation: `RESERVING` if it is to be held, else final.
    pub(super) fn new(reservation: &Reservation, now: OffsetDateTime) -> Self {
        let (state, refusal) = match reservation.state {
            State::Held => (Phase::Reserving, None),
            State::Confirmed => (Phase::Confirmed, None),
            State::Fulfilled | State::Released => (Phase::Released, None),
            State::Expired => (Phase::Expired, None),
            State::Refused { reason, product_id } => (Phase::Refused, Some(RefusalDocument::new(reason, bson_id(product_id)))),
        };
        Self {
            id: bson_id(reservation.id),
            state,
            lines: reservation.lines.iter().map(LineDocument::from).collect(),
            refusal,
            undo: None,
            fulfilment: (reservation.state == State::Fulfilled).then_some(Fulfilment::Done),
            revision: None,
            last_revision: None,
            expires_at: bson_time(reservation.expires_at),
            updated_at: bson_time(now),
        }
    }

    /// Converts a reservation in a final or held state; `None` in an intermediate state.
    pub(super) fn into_reservation(self) -> Result<Option<Reservation>, Error> {
        if matches!(self.state, Phase::Reserving | Phase::Undoing) {
            return Ok(None);
        }
        let refused = self.refusal.and_then(|refusal| Refusal::parse(&refusal.reason).zip(Some(domain_id(refusal.product_id))));
        let state = match self.fulfilment {
            Some(Fulfilment::Clearing | Fulfilment::Done) => Some(State::Fulfilled),
            Some(Fulfilment::Applying) | None => State::parse(self.state.as_str(), refused),
        };
        Ok(Some(Reservation {
            id: domain_id(self.id),
            state: state.ok_or_else(|| Error::Corrupt(format!("reservation {} has no refusal", self.id)))?,
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
