//! Stored form of the changed fields of a product, in both stores.

use std::ops::Not;

use palisade_middleware::auth::Subject;
use serde::{Deserialize, Serialize};

use super::database::Error;
use crate::product::{ChangedFields, Edit};

/// Changed fields of a product. Unchanged ones are absent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FieldsDocument {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<EditDocument<String>>,
    #[serde(default, skip_serializing_if = "Not::not")]
    description: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    price_minor: Option<EditDocument<i64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    category: Option<EditDocument<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    is_active: Option<EditDocument<bool>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct EditDocument<T> {
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<T>,
    to: T,
}

/// Parses the stored actor of a change.
pub(super) fn parse_actor(actor: Option<&str>) -> Result<Option<Subject>, Error> {
    actor.map(Subject::parse).transpose().map_err(|error| Error::Corrupt(format!("actor {error}")))
}

impl From<ChangedFields> for FieldsDocument {
    fn from(fields: ChangedFields) -> Self {
        let ChangedFields { name, description, price_minor, category, is_active } = fields;
        Self {
            name: name.map(EditDocument::from),
            description,
            price_minor: price_minor.map(EditDocument::from),
            category: category.map(EditDocument::from),
            is_active: is_active.map(EditDocument::from),
        }
    }
}

impl From<FieldsDocument> for ChangedFields {
    fn from(fields: FieldsDocument) -> Self {
        let FieldsDocument { name, description, price_minor, category, is_active } = fields;
        Self {
            name: name.map(Edit::from),
            description,
            price_minor: price_minor.map(Edit::from),
            category: category.map(Edit::from),
            is_active: is_active.map(Edit::from),
        }
    }
}

impl<T> From<Edit<T>> for EditDocument<T> {
    fn from(Edit { from, to }: Edit<T>) -> Self {
        Self { from, to }
    }
}

impl<T> From<EditDocument<T>> for Edit<T> {
    fn from(EditDocument { from, to }: EditDocument<T>) -> Self {
        Self { from, to }
    }
}
