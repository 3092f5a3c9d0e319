//! Search in MongoDB: an index of n-grams finds the candidates, a regular expression compares them.

use futures_util::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};
use uuid::Uuid;

use super::{
    collections::{Collections, MAX_TIME},
    documents::{bson_id, domain_id},
    history,
    search_document::{SearchDocument, Searched},
};
use crate::{
    product::{Filter, compose, legacy_searchable, query_grams, searchable},
    store::database::Error,
};

/// Returns the condition of a text filter. Products without search data have the text of the
/// previous release.
pub(super) fn condition(filter: &Filter) -> Option<Document> {
    let (text, legacy) = (filter.normalized_text()?, filter.legacy_text()?);
    let indexed = doc! { "search.grams": { "$all": query_grams(&text) }, "search.text": { "$regex": escape_regex(&text) } };
    let unindexed = doc! { "search.grams": null, "folded": { "$regex": escape_regex(&legacy) } };
    Some(doc! { "$or": [indexed, unindexed] })
}

/// See [`ProductStore::refresh_search`](crate::store::ProductStore::refresh_search).
pub(super) async fn refresh(db: &Collections, after: Option<Uuid>, limit: u32) -> Result<Option<Uuid>, Error> {
    // The nil id sorts before every other id and is never used.
    let products = db.products.clone_with_type::<Searched>();
    let page = products
        .find(doc! { "_id": { "$gt": bson_id(after.unwrap_or_default()) } })
        .sort(doc! { "_id": 1 })
        .limit(i64::from(limit))
        .projection(doc! { "name": 1, "description": 1, "category": 1, "search.text": 1 })
        .max_time(MAX_TIME);
    let products: Vec<Searched> = page.await?.try_collect().await?;
    let last = products.last().map(|product| domain_id(product.id));
    for product in products {
        let is_current = product.search.as_ref().is_some_and(|search| search.text == searchable(&product.name, &product.description));
        let category = compose(&product.category);
        if !is_current || category != product.category {
            rewrite(db, &product, category).await?;
        }
    }
    Ok(last)
}

/// Writes the search data of a product whose texts are unchanged. A changed category is a change of
/// the representation.
async fn rewrite(db: &Collections, product: &Searched, category: String) -> Result<(), Error> {
    let unchanged = doc! {
        "_id": product.id, "name": &product.name, "description": &product.description, "category": &product.category,
    };
    let mut change = doc! {
        "folded": { "$literal": legacy_searchable(&product.name, &product.description) },
        "search": { "$literal": SearchDocument::new(&product.name, &product.description) },
    };
    if category != product.category {
        let details = [("category", Bson::from(category))];
        let is_unchanged = doc! { "$eq": ["$category", { "$literal": &details[0].1 }] };
        change.extend(doc! {
            "category": { "$literal": &details[0].1 },
            "version": { "$add": ["$version", 1_i64] },
            "news": { "$ifNull": ["$news", "$$NOW"] },
            "history": history::record(&details, &is_unchanged, None, &"$updatedAt".into()),
        });
    }
    db.stock.update_one(unchanged, vec![doc! { "$set": change }]).await?;
    Ok(())
}

/// Returns a regular expression that matches exactly `text`.
fn escape_regex(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$#/-".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests;
