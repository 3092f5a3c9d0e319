//! Documents of the stock ledger.

use mongodb::bson::{self, Binary, Bson, DateTime, Document, doc};
use palisade_middleware::auth::Subject;
use serde::{Deserialize, Serialize};

use super::documents::{KeyId, bson_id, bson_time, domain_id};
use crate::{
    stock_ledger::{Entry, Foldable, Kind, NewEntry},
    store::database::{Error, from_millis},
};

/// Ledger entry: in the product that it belongs to until it is in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EntryDocument {
    #[serde(rename = "_id")]
    pub(super) id: bson::Uuid,
    pub(super) product_id: bson::Uuid,
    pub(super) sequence: i64,
    pub(super) kind: String,
    pub(super) delta: i64,
    pub(super) reason: String,
    pub(super) quantity_after: i64,
    pub(super) actor: Option<String>,
    pub(super) order_id: Option<bson::Uuid>,
    pub(super) created_at: DateTime,
    /// Idempotency key of the adjustment, whose answer is this entry. Only in a product.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<KeyId>,
    /// Whether too few units were available: the answer of `key`, and no entry of the ledger.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) refused: bool,
}

/// Idempotency key of an adjustment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AdjustmentKeyDocument {
    #[serde(rename = "_id")]
    pub(super) id: KeyId,
    pub(super) fingerprint: Binary,
    /// Id and time of the entry, chosen by the first call.
    pub(super) entry_id: bson::Uuid,
    pub(super) created_at: DateTime,
    /// Absent until the adjustment is decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<AnswerDocument>,
    pub(super) expires_at: DateTime,
}

/// Stored answer of an adjustment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct AnswerDocument {
    /// The entry; `None` if too few units were available.
    pub(super) entry: Option<EntryDocument>,
}

/// Product with the entries that are not in the ledger yet.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Unsettled {
    #[serde(rename = "_id")]
    pub(super) id: bson::Uuid,
    pub(super) supply: i64,
    pub(super) quantity: i64,
    pub(super) updated_at: DateTime,
    /// Sum of the ledger, `pending_ledger` included.
    #[serde(default)]
    pub(super) booked: Option<i64>,
    /// Sequence of the last entry; absent if a release without a ledger created the product.
    #[serde(default)]
    pub(super) ledger_sequence: Option<i64>,
    #[serde(default)]
    pub(super) pending_ledger: Vec<EntryDocument>,
    #[serde(default)]
    pub(super) search: Option<DetailsVersion>,
}

/// Version of a product at the last change of another field than the quantity. It is part of the
/// search data, which every write of the texts replaces. So a replica of the previous release,
/// which does not maintain this version, removes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DetailsVersion {
    #[serde(default)]
    pub(super) details_version: Option<i64>,
}

impl EntryDocument {
    /// Creates the document of an entry whose values are known.
    pub(super) fn new(new: &NewEntry, sequence: i64, delta: i64, quantity_after: i64) -> Self {
        Self {
            id: bson_id(new.id),
            product_id: bson_id(new.product_id),
            sequence,
            kind: new.kind.as_str().to_owned(),
            delta,
            reason: new.reason.clone(),
            quantity_after,
            actor: new.actor.as_ref().map(ToString::to_string),
            order_id: new.order_id.map(bson_id),
            created_at: bson_time(new.created_at),
            key: None,
            refused: false,
        }
    }

    /// Returns the entry as an expression whose sequence, units and quantity are expressions.
    pub(super) fn expression(new: &NewEntry, key: Option<&KeyId>, sequence: &Bson, delta: &Bson, quantity_after: &Bson) -> Document {
        let mut entry = doc! {
            "_id": bson_id(new.id),
            "productId": bson_id(new.product_id),
            "sequence": sequence,
            "kind": new.kind.as_str(),
            "delta": delta,
            // Text is literal: a reason may start with a dollar sign.
            "reason": { "$literal": &new.reason },
            "quantityAfter": quantity_after,
            "actor": { "$literal": new.actor.as_ref().map(Subject::as_str) },
            "orderId": { "$literal": new.order_id.map(bson_id) },
            "createdAt": bson_time(new.created_at),
        };
        if let Some(key) = key {
            entry.insert("key", doc! { "$literal": { "subject": &key.subject, "key": &key.key } });
        }
        entry
    }

    /// Converts to the domain.
    pub(super) fn into_entry(self) -> Result<Entry, Error> {
        let Foldable { sequence, kind, delta, created_at } = self.foldable()?;
        let actor = self.actor.as_deref().map(Subject::parse).transpose();
        Ok(Entry {
            id: domain_id(self.id),
            product_id: domain_id(self.product_id),
            sequence,
            kind,
            delta,
            reason: self.reason,
            quantity_after: self.quantity_after,
            actor: actor.map_err(|error| Error::Corrupt(format!("actor {error}")))?,
            order_id: self.order_id.map(domain_id),
            created_at,
        })
    }

    /// Returns the part that decides about a fold.
    pub(super) fn foldable(&self) -> Result<Foldable, Error> {
        Ok(Foldable {
            sequence: self.sequence,
            kind: Kind::parse(&self.kind).ok_or_else(|| Error::Corrupt(format!("unknown kind {}", self.kind)))?,
            delta: self.delta,
            created_at: from_millis(self.created_at.timestamp_millis())?,
        })
    }
}
