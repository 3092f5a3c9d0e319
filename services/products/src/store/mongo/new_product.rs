//! Document of a new product.

use mongodb::bson::DateTime;
use palisade_middleware::auth::Subject;
use serde::Serialize;

use super::{documents::ProductDocument, history::ChangeDocument, ledger_documents::EntryDocument, search_document::SearchDocument};
use crate::{
    product::{Change, Product, legacy_searchable},
    stock_ledger::{Kind, NewEntry},
    store::database::Error,
};

/// Complete document of a new product.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewProduct {
    #[serde(flatten)]
    product: ProductDocument,
    /// Search text of the previous release, whose replicas search in it.
    folded: String,
    search: NewSearch,
    taken: i64,
    supply: i64,
    marks: Vec<String>,
    epoch: i64,
    /// Sum of the ledger, its last sequence and the entries that are not in it yet, see
    /// [`super::ledger`].
    booked: i64,
    ledger_sequence: i64,
    pending_ledger: Vec<EntryDocument>,
    /// See [`super::history`].
    history: Vec<ChangeDocument>,
    /// Time of the first unpublished change, see [`super::outbox`].
    #[serde(rename = "news")]
    unpublished_since: DateTime,
}

/// Search data of a new product, with the version of its details, see
/// [`super::ledger_documents::DetailsVersion`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NewSearch {
    #[serde(flatten)]
    search: SearchDocument,
    details_version: i64,
}

impl NewProduct {
    /// Creates the document of a product that `actor` creates.
    pub(super) fn new(product: ProductDocument, actor: Subject) -> Result<Self, Error> {
        let created = Product::try_from(product.clone())?;
        let opening = NewEntry::new(created.id, Kind::Opening, created.created_at).by(actor.clone());
        Ok(Self {
            folded: legacy_searchable(&product.name, &product.description),
            search: NewSearch { search: SearchDocument::new(&product.name, &product.description), details_version: product.version },
            taken: 0,
            supply: product.quantity,
            marks: vec![],
            epoch: 0,
            booked: product.quantity,
            ledger_sequence: 1,
            pending_ledger: vec![EntryDocument::new(&opening, 1, product.quantity, product.quantity)],
            history: vec![Change::creation(&created, actor).into()],
            unpublished_since: product.created_at,
            product,
        })
    }
}
