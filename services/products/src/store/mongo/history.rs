//! Histories of the products in MongoDB: an array in the product, written by the update that
//! changes it. Only [`HistoryStore::history`] reads it.
//!
//! A replica of the previous release leaves the array as it is: its changes have no entry.

use async_trait::async_trait;
use mongodb::bson::{self, Bson, DateTime, Document, doc};
use palisade_middleware::auth::Subject;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    MongoStore,
    collections::{MAX_TIME, decode},
    documents::{bson_id, bson_time},
};
use crate::{
    product::{Change, MAX_HISTORY},
    store::{
        database::{Error, from_millis, readable},
        history_documents::{FieldsDocument, parse_actor},
        history_role::HistoryStore,
    },
};

/// Entry of a history.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ChangeDocument {
    version: i64,
    changes: FieldsDocument,
    actor: Option<String>,
    at: DateTime,
}

#[async_trait]
impl HistoryStore for MongoStore {
    async fn history(&self, id: Uuid) -> Result<Option<Vec<Change>>, Error> {
        let products = self.collections.products.clone_with_type::<Document>();
        let found = products.find_one(doc! { "_id": bson_id(id) }).projection(doc! { "history": 1 }).max_time(MAX_TIME).await?;
        let Some(mut found) = found else { return Ok(None) };
        // A product of a release without histories has none until its next change.
        let stored = found.remove("history").unwrap_or_else(|| Bson::Array(Vec::new()));
        let stored: Vec<Document> = bson::deserialize_from_bson(stored).map_err(|error| Error::Corrupt(error.to_string()))?;
        let change = |stored| decode::<ChangeDocument>(stored).and_then(Change::try_from);
        Ok(Some(stored.into_iter().rev().filter_map(|stored| readable("product_changes", change(stored))).collect()))
    }
}

/// Returns the history after a change of the fields in `details` to their values, as an expression
/// for the `$set` stage that makes the change. The history stays as it is if `is_unchanged`.
/// `at` is an expression.
pub(super) fn record(details: &[(&str, Bson)], is_unchanged: &Document, actor: Option<&Subject>, at: &Bson) -> Document {
    let mut changes = Document::new();
    for (field, value) in details {
        let (from, to) = (format!("${field}"), doc! { "$literal": value });
        let is_changed = doc! { "$ne": [&from, &to] };
        let edit = if *field == "description" { Bson::from(true) } else { doc! { "from": from, "to": to }.into() };
        changes.insert(*field, doc! { "$cond": [is_changed, edit, "$$REMOVE"] });
    }
    let entry = doc! {
        "version": { "$add": ["$version", 1_i64] },
        "changes": changes,
        "actor": { "$literal": actor.map(Subject::as_str) },
        "at": at,
    };
    let before = doc! { "$ifNull": ["$history", []] };
    let latest = doc! { "$slice": [{ "$concatArrays": [&before, [entry]] }, -i64::from(MAX_HISTORY)] };
    doc! { "$cond": [is_unchanged, before, latest] }
}

impl From<Change> for ChangeDocument {
    fn from(change: Change) -> Self {
        let Change { version, fields, actor, at } = change;
        Self { version, changes: fields.into(), actor: actor.as_ref().map(ToString::to_string), at: bson_time(at) }
    }
}

impl TryFrom<ChangeDocument> for Change {
    type Error = Error;

    fn try_from(document: ChangeDocument) -> Result<Self, Error> {
        let ChangeDocument { version, changes, actor, at } = document;
        Ok(Self { version, fields: changes.into(), actor: parse_actor(actor.as_deref())?, at: from_millis(at.timestamp_millis())? })
    }
}

#[cfg(test)]
mod tests;
