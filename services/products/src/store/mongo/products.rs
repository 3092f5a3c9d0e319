//! Catalogue queries and writes in `MongoDB`.

use futures_util::TryStreamExt;
use mongodb::{
    bson::{Bson, Document, doc},
    options::ReturnDocument,
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Collections, MAX_TIME,
    documents::{NewProduct, ProductDocument, bson_id, bson_time},
    is_duplicate, outbox,
};
use crate::{
    product::{Filter, Page, Product, Query, Sort, SortKey, ValidatedProduct, searchable},
    store::{Error, Removed, Updated},
};

pub(super) async fn find(db: &Collections, id: Uuid) -> Result<Option<Product>, Error> {
    let found = db.products.find_one(doc! { "_id": bson_id(id) }).projection(projection()).max_time(MAX_TIME).await?;
    found.map(Product::try_from).transpose()
}

pub(super) async fn list(db: &Collections, query: &Query) -> Result<Page, Error> {
    let cursor = db
        .products
        .find(filter(query))
        .sort(order(query.sort()))
        .limit(i64::from(query.limit()) + 1)
        .projection(projection())
        .max_time(MAX_TIME)
        .await?;
    let found: Vec<ProductDocument> = cursor.try_collect().await?;
    Ok(query.page(found.into_iter().map(Product::try_from).collect::<Result<_, _>>()?))
}

/// Inserts a product unless it exists.
pub(super) async fn insert_once(db: &Collections, product: ProductDocument) -> Result<(), Error> {
    match db.products.clone_with_type().insert_one(NewProduct::from(product)).await {
        Err(error) if !is_duplicate(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

pub(super) async fn update(
    db: &Collections,
    id: Uuid,
    draft: &ValidatedProduct,
    expected_version: Option<i64>,
    now: OffsetDateTime,
) -> Result<Updated, Error> {
    // All expressions of one stage read the original document. Text is literal: a name may start
    // with a dollar sign.
    let change = doc! { "$set": {
        "name": { "$literal": &draft.name },
        "description": { "$literal": &draft.description },
        "folded": { "$literal": searchable(&draft.name, &draft.description) },
        "priceMinor": draft.price_minor,
        "supply": { "$add": ["$supply", { "$subtract": [draft.quantity, "$quantity"] }] },
        "quantity": draft.quantity,
        "category": { "$literal": &draft.category },
        "isActive": draft.is_active,
        "version": { "$add": ["$version", 1_i64] },
        "updatedAt": bson_time(now),
        "news": { "$ifNull": ["$news", bson_time(now)] },
    } };
    let updated = db
        .products
        .find_one_and_update(match_version(id, expected_version), vec![change])
        .return_document(ReturnDocument::After)
        .projection(projection())
        .max_time(MAX_TIME)
        .await?;
    match updated {
        Some(product) => Ok(Updated::Updated(product.try_into()?)),
        None if find(db, id).await?.is_some() => Ok(Updated::VersionMismatch),
        None => Ok(Updated::NotFound),
    }
}

pub(super) async fn remove(db: &Collections, id: Uuid, expected_version: Option<i64>, now: OffsetDateTime) -> Result<Removed, Error> {
    loop {
        let Some(stock) = db.stock.find_one(doc! { "_id": bson_id(id) }).max_time(MAX_TIME).await? else {
            return Ok(Removed::NotFound);
        };
        if expected_version.is_some_and(|expected| stock.version != expected) {
            return Ok(Removed::VersionMismatch);
        }
        if stock.taken > 0 {
            return Ok(Removed::InUse);
        }
        // Prevents a repeated create from inserting the product again.
        db.keys.update_many(doc! { "product._id": bson_id(id) }, doc! { "$set": { "done": true } }).await?;
        outbox::record_removal(db, id, now).await?;
        // Nothing is taken, so no reservation, settled or not, has units here to give back.
        let mut unused = match_version(id, expected_version);
        unused.insert("taken", 0_i64);
        if db.products.delete_one(unused).await?.deleted_count == 1 {
            return Ok(Removed::Removed);
        }
    }
}

fn match_version(id: Uuid, expected_version: Option<i64>) -> Document {
    let mut filter = doc! { "_id": bson_id(id) };
    if let Some(version) = expected_version {
        filter.insert("version", version);
    }
    filter
}

/// Projection without internal fields.
fn projection() -> Document {
    doc! { "folded": 0, "marks": 0, "news": 0 }
}

/// Builds the filter of a query. Every value is typed, so client input cannot be interpreted as an
/// operator.
pub(super) fn filter(query: &Query) -> Document {
    let Filter { category, is_active, min_price_minor, max_price_minor, .. } = query.filter();
    let mut all = Vec::new();
    if let Some(category) = category {
        all.push(doc! { "category": category });
    }
    if let Some(is_active) = is_active {
        all.push(doc! { "isActive": is_active });
    }
    if let Some(text) = query.filter().normalized_text() {
        all.push(doc! { "folded": { "$regex": escape_regex(&text) } });
    }
    if let Some(price) = min_price_minor {
        all.push(doc! { "priceMinor": { "$gte": price } });
    }
    if let Some(price) = max_price_minor {
        all.push(doc! { "priceMinor": { "$lte": price } });
    }
    if let Some(after) = query.after() {
        let field = field(query.sort());
        let (behind, at_or_behind) = if query.sort().is_descending() { ("$lt", "$lte") } else { ("$gt", "$gte") };
        let key: Bson = match &after.key {
            SortKey::CreatedAt(at) => bson_time(*at).into(),
            SortKey::PriceMinor(price) => (*price).into(),
            SortKey::Name(name) => name.into(),
        };
        // The range bounds the index scan; the `$or` only skips ties.
        all.push(doc! { field: { at_or_behind: key.clone() } });
        all.push(doc! { "$or": [{ field: { behind: key } }, { "_id": { behind: bson_id(after.id) } }] });
    }
    if all.is_empty() {
        doc! {}
    } else {
        doc! { "$and": all }
    }
}

pub(super) fn order(sort: Sort) -> Document {
    let direction = if sort.is_descending() { -1 } else { 1 };
    doc! { field(sort): direction, "_id": direction }
}

fn field(sort: Sort) -> &'static str {
    match sort {
        Sort::Newest | Sort::Oldest => "createdAt",
        Sort::PriceAsc | Sort::PriceDesc => "priceMinor",
        Sort::NameAsc | Sort::NameDesc => "name",
    }
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
