//! Catalogue in MongoDB.

use async_trait::async_trait;
use futures_util::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};
use palisade_middleware::{
    auth::Subject,
    preconditions::{Condition, VersionPreconditions},
};
use time::OffsetDateTime;
use tracing::warn;
use uuid::Uuid;

use super::{
    MongoStore,
    collections::{MAX_TIME, decode},
    documents::{ProductDocument, bson_id, bson_time},
    keys, ledger, outbox, replace, search, stock_marks,
};
use crate::{
    product::{Filter, Page, Product, Query, Sort, SortKey, ValidatedPatch, ValidatedProduct},
    store::{
        database::{Error, readable},
        roles::{CreateOutcome, IdempotencyKey, ProductStore, RemoveOutcome, UpdateOutcome},
    },
};

#[async_trait]
impl ProductStore for MongoStore {
    async fn create(
        &self,
        id: Uuid,
        draft: ValidatedProduct,
        key: Option<IdempotencyKey>,
        actor: Subject,
        now: OffsetDateTime,
    ) -> Result<CreateOutcome, Error> {
        keys::create(&self.collections, draft.into_product(id, now), key, actor, now).await
    }

    async fn find(&self, id: Uuid) -> Result<Option<Product>, Error> {
        let find = self.collections.products.find_one(doc! { "_id": bson_id(id) });
        find.projection(projection()).max_time(MAX_TIME).await?.map(Product::try_from).transpose()
    }

    async fn list(&self, query: Query) -> Result<Page, Error> {
        let cursor = self
            .collections
            .products
            .clone_with_type::<Document>()
            .find(filter(&query))
            .sort(order(query.sort()))
            .limit(i64::from(query.limit()) + 1)
            .projection(projection())
            .max_time(MAX_TIME)
            .await?;
        let documents: Vec<Document> = cursor.try_collect().await?;
        let product = |document| decode::<ProductDocument>(document).and_then(Product::try_from);
        Ok(query.page(documents.into_iter().map(|document| readable("products", product(document))).collect()))
    }

    async fn update(
        &self,
        id: Uuid,
        draft: ValidatedProduct,
        preconditions: VersionPreconditions,
        actor: Subject,
        now: OffsetDateTime,
    ) -> Result<UpdateOutcome, Error> {
        replace::update(&self.collections, id, &draft, &preconditions, &replace::set_entry(id, actor, now)).await
    }

    async fn patch(
        &self,
        id: Uuid,
        patch: ValidatedPatch,
        preconditions: VersionPreconditions,
        actor: Subject,
        now: OffsetDateTime,
    ) -> Result<UpdateOutcome, Error> {
        replace::patch(&self.collections, id, &patch, &preconditions, &replace::set_entry(id, actor, now)).await
    }

    async fn remove(&self, id: Uuid, preconditions: VersionPreconditions, now: OffsetDateTime) -> Result<RemoveOutcome, Error> {
        let db = &self.collections;
        loop {
            let Some(stock) = stock_marks::find(db, bson_id(id)).await? else { return Ok(RemoveOutcome::NotFound) };
            if !preconditions.allow_write(&stock.version) {
                return Ok(RemoveOutcome::VersionMismatch);
            }
            if stock.taken > 0 {
                return Ok(RemoveOutcome::InUse);
            }
            ledger::move_to_ledger(db, stock.id, &stock.pending_ledger).await?;
            // Prevents a repeated create from inserting the product again.
            db.keys.update_many(doc! { "product._id": bson_id(id) }, doc! { "$set": { "done": true } }).await?;
            outbox::record_removal(db, id, now).await?;
            // Nothing is taken, so no reservation, finished or not, has units here to give back.
            let mut unused = match_version(id, &preconditions);
            unused.insert("taken", 0_i64);
            // Entries that it got in between are moved first: an idempotency key gets its answer.
            unused.insert("pendingLedger.0", doc! { "$exists": false });
            if db.products.delete_one(unused).await?.deleted_count == 1 {
                if let Err(error) = ledger::delete(db, &[bson_id(id)]).await {
                    warn!(error = &error as &dyn std::error::Error, "the ledger of a removed product was left, the relay deletes it");
                }
                return Ok(RemoveOutcome::Removed);
            }
        }
    }

    async fn refresh_search(&self, after: Option<Uuid>, limit: u32) -> Result<Option<Uuid>, Error> {
        search::refresh(&self.collections, after, limit).await
    }

    async fn delete_expired_keys(&self, now: OffsetDateTime, limit: u32) -> Result<u64, Error> {
        let db = &self.collections;
        let mut deleted = 0;
        for keys in [db.keys.clone_with_type::<Document>(), db.adjustment_keys.clone_with_type()] {
            // 0 is no limit.
            let left = i64::from(limit).saturating_sub_unsigned(deleted);
            if left <= 0 {
                break;
            }
            let mut expired = doc! { "expiresAt": { "$lte": bson_time(now) } };
            let batch = keys.find(expired.clone()).sort(doc! { "expiresAt": 1 }).projection(doc! { "_id": 1 }).limit(left);
            let batch: Vec<Document> = batch.max_time(MAX_TIME).await?.try_collect().await?;
            let ids: Vec<Bson> = batch.into_iter().filter_map(|mut key| key.remove("_id")).collect();
            expired.insert("_id", doc! { "$in": ids });
            deleted += keys.delete_many(expired).await?.deleted_count;
        }
        Ok(deleted)
    }
}

/// Matches the product if its version satisfies the preconditions, like
/// [`VersionPreconditions::allow_write`].
pub(super) fn match_version(id: Uuid, preconditions: &VersionPreconditions) -> Document {
    let mut filter = doc! { "_id": bson_id(id) };
    let mut version = Document::new();
    if let Some(Condition::Listed(versions)) = &preconditions.if_match {
        version.insert("$in", versions);
    }
    match &preconditions.if_none_match {
        None => {}
        Some(Condition::Listed(versions)) => drop(version.insert("$nin", versions)),
        // Every product has a version.
        Some(Condition::Any) => drop(version.insert("$exists", false)),
    }
    if !version.is_empty() {
        filter.insert("version", version);
    }
    filter
}

/// Projection without internal fields.
pub(super) fn projection() -> Document {
    doc! { "folded": 0, "search": 0, "marks": 0, "fulfilling": 0, "revising": 0, "news": 0, "pendingLedger": 0, "history": 0 }
}

/// Builds the filter of a query. Every value is typed, so client input cannot be interpreted as an
/// operator.
pub(super) fn filter(query: &Query) -> Document {
    let Filter { category, is_active, min_price_minor, max_price_minor, .. } = query.filter();
    let mut conditions = Vec::new();
    if let Some(category) = category {
        conditions.push(doc! { "category": category });
    }
    if let Some(is_active) = is_active {
        conditions.push(doc! { "isActive": is_active });
    }
    conditions.extend(search::condition(query.filter()));
    if let Some(price) = min_price_minor {
        conditions.push(doc! { "priceMinor": { "$gte": price } });
    }
    if let Some(price) = max_price_minor {
        conditions.push(doc! { "priceMinor": { "$lte": price } });
    }
    if let Some(after) = query.after() {
        let field = field(query.sort());
        let (strict, inclusive) = if query.sort().is_descending() { ("$lt", "$lte") } else { ("$gt", "$gte") };
        let key: Bson = match &after.key {
            SortKey::CreatedAt(at) => bson_time(*at).into(),
            SortKey::PriceMinor(price) => (*price).into(),
            SortKey::Name(name) => name.into(),
        };
        // The range bounds the index scan; the `$or` only skips ties.
        conditions.push(doc! { field: { inclusive: key.clone() } });
        conditions.push(doc! { "$or": [{ field: { strict: key } }, { "_id": { strict: bson_id(after.id) } }] });
    }
    if conditions.is_empty() {
        doc! {}
    } else {
        doc! { "$and": conditions }
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

#[cfg(test)]
mod tests;
