//! Search data of a product document.

use mongodb::bson::{self, Bson};
use serde::{Deserialize, Serialize};

use crate::product::{grams, searchable};

/// Search data of a product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SearchDocument {
    pub(super) text: String,
    /// N-grams of the text, for the index.
    pub(super) grams: Vec<String>,
}

/// Fields of a product that decide about its search data.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Searched {
    #[serde(rename = "_id")]
    pub(super) id: bson::Uuid,
    pub(super) name: String,
    pub(super) description: String,
    pub(super) category: String,
    /// Text that the search data was computed from; absent if a replica of the previous release
    /// created the product.
    pub(super) search: Option<SearchedText>,
}

/// Search data without its n-grams.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct SearchedText {
    pub(super) text: String,
}

impl SearchDocument {
    /// Computes the search data of a product.
    pub(super) fn new(name: &str, description: &str) -> Self {
        let text = searchable(name, description);
        let grams = grams(&text).into_iter().map(str::to_owned).collect();
        Self { text, grams }
    }
}

impl From<SearchDocument> for Bson {
    fn from(search: SearchDocument) -> Self {
        bson::doc! { "text": search.text, "grams": search.grams }.into()
    }
}
