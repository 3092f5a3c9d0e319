//! Updates and patches of a product in MongoDB: one guarded update each.

use mongodb::{
    bson::{Bson, Document, doc},
    options::ReturnDocument,
};
use palisade_middleware::{
    auth::Subject,
    preconditions::{Condition, VersionPreconditions},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    collections::{Collections, MAX_TIME, decode},
    documents::{ProductDocument, bson_id, bson_time},
    history, ledger,
    products::{match_version, projection},
    search_document::SearchDocument,
    stock_marks,
};
use crate::{
    product::{Patch, Product, ValidatedPatch, ValidatedProduct, legacy_searchable},
    stock_ledger::{Kind, NewEntry},
    store::{database::Error, roles::UpdateOutcome},
};

/// See [`ProductStore::update`](crate::store::ProductStore::update).
pub(super) async fn update(
    db: &Collections,
    id: Uuid,
    draft: &ValidatedProduct,
    preconditions: &VersionPreconditions,
    entry: &NewEntry,
) -> Result<UpdateOutcome, Error> {
    let change = change(&Patch::all_of(draft), (&draft.name, &draft.description), entry);
    match write(db, match_version(id, preconditions), change).await? {
        Some(product) => Ok(UpdateOutcome::Updated(product)),
        None => match stock_marks::find(db, bson_id(id)).await? {
            Some(_) => Ok(UpdateOutcome::VersionMismatch),
            None => Ok(UpdateOutcome::NotFound),
        },
    }
}

/// See [`ProductStore::patch`](crate::store::ProductStore::patch).
pub(super) async fn patch(
    db: &Collections,
    id: Uuid,
    patch: &ValidatedPatch,
    preconditions: &VersionPreconditions,
    entry: &NewEntry,
) -> Result<UpdateOutcome, Error> {
    loop {
        let products = db.products.clone_with_type::<Document>();
        let mut fields = projection();
        fields.remove("search");
        fields.extend(doc! { "search.text": 0, "search.grams": 0 });
        let found = products.find_one(doc! { "_id": bson_id(id) }).projection(fields).max_time(MAX_TIME).await?;
        let Some(mut found) = found else { return Ok(UpdateOutcome::NotFound) };
        let details_version = match found.remove("search") {
            Some(Bson::Document(search)) => search.get_i64("detailsVersion").ok(),
            _ => None,
        };
        let current: Product = decode::<ProductDocument>(found)?.try_into()?;
        if !patch.is_allowed(preconditions, current.version, details_version) {
            return Ok(UpdateOutcome::VersionMismatch);
        }
        if patch.is_empty() {
            return Ok(UpdateOutcome::Updated(current));
        }
        let patched = patch.apply(&current);
        let mut guard = if patch.quantity.is_none() { match_details(id, preconditions) } else { match_version(id, preconditions) };
        // The search data is that of both texts.
        guard.extend(doc! { "name": &current.name, "description": &current.description });
        let change = change(patch, (&patched.name, &patched.description), entry);
        if let Some(product) = write(db, guard, change).await? {
            return Ok(UpdateOutcome::Updated(product));
        }
        // The product has changed in between: decide again.
    }
}

/// Runs the update and returns the new product, or `None` if no product matches `guard`.
async fn write(db: &Collections, guard: Document, change: Document) -> Result<Option<Product>, Error> {
    let changes_stock = change.contains_key("quantity");
    let updated = db
        .products
        .find_one_and_update(guard, vec![doc! { "$set": change }])
        .return_document(ReturnDocument::After)
        .projection(projection())
        .max_time(MAX_TIME)
        .await?;
    let updated: Option<Product> = updated.map(Product::try_from).transpose()?;
    if let Some(product) = updated.as_ref().filter(|_| changes_stock) {
        ledger::flush(db, bson_id(product.id)).await;
    }
    Ok(updated)
}

/// Returns the `$set` stage of a change of some fields. `name` and `description` are the texts
/// after it. `entry` records a change of the quantity, and has
/// the actor and the time of the change.
fn change(patch: &Patch, (name, description): (&str, &str), entry: &NewEntry) -> Document {
    // All expressions of one stage read the original document. Text is literal: a name may start
    // with a dollar sign.
    let details = [
        ("name", patch.name.as_deref().map(Bson::from)),
        ("description", patch.description.as_deref().map(Bson::from)),
        ("priceMinor", patch.price_minor.map(Bson::from)),
        ("category", patch.category.as_deref().map(Bson::from)),
        ("isActive", patch.is_active.map(Bson::from)),
    ];
    let details: Vec<(&str, Bson)> = details.into_iter().filter_map(|(field, value)| Some((field, value?))).collect();
    let search = SearchDocument::new(name, description);
    let now = bson_time(entry.created_at);
    let next = doc! { "$add": ["$version", 1_i64] };
    let mut change = doc! {
        "folded": { "$literal": legacy_searchable(name, description) },
        "search.text": { "$literal": search.text },
        "search.grams": { "$literal": search.grams },
        "version": next.clone(),
        "updatedAt": now,
        "news": { "$ifNull": ["$news", now] },
    };
    let mut unchanged = Vec::new();
    for (field, value) in &details {
        unchanged.push(doc! { "$eq": [format!("${field}"), { "$literal": value }] });
        change.insert(*field, doc! { "$literal": value });
    }
    let last = doc! { "$ifNull": ["$search.detailsVersion", next.clone()] };
    let details_version = if unchanged.is_empty() {
        last
    } else {
        let is_unchanged = doc! { "$and": unchanged };
        change.insert("history", history::record(&details, &is_unchanged, entry.actor.as_ref(), &now.into()));
        doc! { "$cond": [is_unchanged, last, next] }
    };
    change.insert("search.detailsVersion", details_version);
    if let Some(quantity) = patch.quantity {
        let delta = Bson::from(doc! { "$subtract": [quantity, "$quantity"] });
        change.insert("supply", doc! { "$add": ["$supply", &delta] });
        change.insert("quantity", quantity);
        change.extend(ledger::record(entry, None, &delta, &Bson::from(quantity)));
    }
    change
}

/// Matches the product if a patch without a quantity is allowed, like
/// [`ValidatedPatch::is_allowed`].
fn match_details(id: Uuid, preconditions: &VersionPreconditions) -> Document {
    let Some(Condition::Listed(listed)) = &preconditions.if_match else { return match_version(id, preconditions) };
    let others = VersionPreconditions { if_match: None, if_none_match: preconditions.if_none_match.clone() };
    let mut filter = match_version(id, &others);
    let since = |version: &i64| doc! { "version": { "$gte": version }, "search.detailsVersion": { "$lte": version } };
    let mut any: Vec<Document> = listed.iter().map(since).collect();
    any.push(doc! { "version": { "$in": listed } });
    filter.insert("$or", any);
    filter
}

/// Returns the entry of a change of the quantity of a product by `actor`.
pub(super) fn set_entry(id: Uuid, actor: Subject, now: OffsetDateTime) -> NewEntry {
    NewEntry::new(id, Kind::Set, now).by(actor)
}
