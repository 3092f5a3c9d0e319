//! Stock ledger in MongoDB, without multi-document transactions.
//!
//! The update that changes the supply of a product also adds the entry to the product
//! (`pendingLedger`). The entry is then inserted into the ledger under its own id, and removed from
//! the product. Each step can be repeated. A crash leaves entries in the product: the next change,
//! a reader of the ledger or the background job moves them. `booked` is the sum of all entries of
//! the product, wherever they are. The sequence of an entry is that of the changes.
//!
//! A replica of the previous release changes the supply only. [`reconcile`] records the difference
//! between `supply` and `booked`.

mod adjust;
mod fold;
mod reconcile;

use std::collections::HashSet;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use mongodb::bson::{self, Bson, Document, doc};
use palisade_middleware::auth::Subject;
use time::OffsetDateTime;
use tracing::warn;
use uuid::Uuid;

use super::{
    MongoStore,
    collections::{Collections, MAX_TIME, decode},
    documents::{KeyId, bson_id},
    ledger_documents::EntryDocument,
    reserve_batch::duplicates,
    stock_marks,
};
use crate::{
    stock_ledger::{AdjustOutcome, Adjustment, Kind, LedgerPage, LedgerQuery, NewEntry},
    store::{
        database::{Error, readable},
        ledger_metrics,
        ledger_role::LedgerStore,
        roles::IdempotencyKey,
    },
};

pub(super) use reconcile::open_all;

#[async_trait]
impl LedgerStore for MongoStore {
    async fn adjust(
        &self,
        adjustment: Adjustment,
        key: Option<IdempotencyKey>,
        actor: Subject,
        now: OffsetDateTime,
    ) -> Result<AdjustOutcome, Error> {
        let db = &self.collections;
        match key {
            Some(key) => adjust::adjust_once(db, &adjustment, key, actor, now).await,
            None => adjust::adjust(db, &adjustment, actor, now).await,
        }
    }

    async fn ledger(&self, query: LedgerQuery) -> Result<Option<LedgerPage>, Error> {
        let db = &self.collections;
        let product = bson_id(query.product_id());
        if !reconcile::settle_one(db, product).await? {
            return Ok(None);
        }
        let ledger = db.ledger.clone_with_type::<Document>();
        let page = ledger.find(doc! { "productId": product, "sequence": { "$lt": query.before() } }).sort(doc! { "sequence": -1 });
        let rows: Vec<Document> = page.limit(query.rows().into()).max_time(MAX_TIME).await?.try_collect().await?;
        // The filter selects rows with a sequence.
        let sequence = |row: &Document| row.get_i64("sequence").unwrap_or_default();
        let entry = |row| decode(row).and_then(EntryDocument::into_entry);
        let rows = rows.into_iter().map(|row| (sequence(&row), readable("stock_adjustments", entry(row))));
        Ok(Some(query.page(rows.collect())))
    }

    async fn reconcile_ledger(&self, after: Option<Uuid>, limit: u32) -> Result<Option<Uuid>, Error> {
        reconcile::settle_page(&self.collections, Document::new(), after, limit).await
    }

    async fn fold_ledger(&self, before: OffsetDateTime, limit: u32) -> Result<u64, Error> {
        fold::fold(&self.collections, before, limit).await
    }
}

/// Returns the part of an update (a `$set` stage) that records a change of the supply by `delta`,
/// an expression. A change by 0 units is not recorded.
pub(super) fn record(new: &NewEntry, key: Option<&KeyId>, delta: &Bson, quantity_after: &Bson) -> Document {
    let is_change = doc! { "$ne": [delta, 0_i64] };
    let last = doc! { "$ifNull": ["$ledgerSequence", 0_i64] };
    let next = Bson::from(doc! { "$add": [last.clone(), 1_i64] });
    let entry = EntryDocument::expression(new, key, &next, delta, quantity_after);
    let pending = doc! { "$ifNull": ["$pendingLedger", []] };
    doc! {
        "booked": { "$add": [{ "$ifNull": ["$booked", 0_i64] }, delta] },
        "ledgerSequence": { "$cond": [is_change.clone(), next, last] },
        "pendingLedger": { "$cond": [is_change, { "$concatArrays": [pending.clone(), [entry]] }, pending] },
    }
}

/// Moves the entries of a product to the ledger. The change that they record is made, so a failure
/// is not one of the change: the next call or the background job repeats it.
pub(super) async fn flush(db: &Collections, product: bson::Uuid) {
    let flushed = async {
        match stock_marks::find(db, product).await? {
            Some(stock) => move_to_ledger(db, product, &stock.pending_ledger).await,
            None => Ok(()),
        }
    };
    if let Err(error) = flushed.await {
        warn!(error = &error as &dyn std::error::Error, "ledger entries were left in their product, a later call moves them");
    }
}

/// Moves these entries of a product to the ledger. An idempotency key gets its answer before its
/// entry leaves the product.
pub(super) async fn move_to_ledger(db: &Collections, product: bson::Uuid, pending: &[EntryDocument]) -> Result<(), Error> {
    if pending.is_empty() {
        return Ok(());
    }
    for entry in pending {
        adjust::record_answer(db, entry).await?;
    }
    let entries: Vec<EntryDocument> =
        pending.iter().filter(|entry| !entry.refused).map(|entry| EntryDocument { key: None, ..entry.clone() }).collect();
    let present = if entries.is_empty() {
        HashSet::new()
    } else {
        match db.ledger.insert_many(&entries).ordered(false).await {
            Ok(_) => HashSet::new(),
            Err(error) => duplicates(&error).ok_or_else(|| Error::from(error))?,
        }
    };
    let ids: Vec<bson::Uuid> = pending.iter().map(|entry| entry.id).collect();
    db.stock.update_one(doc! { "_id": product }, doc! { "$pull": { "pendingLedger": { "_id": { "$in": ids } } } }).await?;
    for (_, entry) in entries.iter().enumerate().filter(|(n, _)| !present.contains(n)) {
        if let Some(kind) = Kind::parse(&entry.kind) {
            ledger_metrics::record(kind, 1);
        }
    }
    Ok(())
}

/// Deletes the ledgers of removed products.
pub(super) async fn delete(db: &Collections, products: &[bson::Uuid]) -> Result<(), Error> {
    db.ledger.delete_many(doc! { "productId": { "$in": products } }).await?;
    Ok(())
}

/// Returns the sum of the ledger of a product without the `pending` entries, some of which may be
/// in the ledger already.
pub(super) async fn settled_units(db: &Collections, product: bson::Uuid, pending: &[EntryDocument]) -> Result<i64, Error> {
    // In this order, an opening is read after the entries that it contains.
    let ledger = db.ledger.clone_with_type::<Document>();
    let mut entries = ledger.find(doc! { "productId": product }).sort(doc! { "sequence": 1 }).await?;
    let mut units = 0_i64;
    while let Some(entry) = entries.try_next().await? {
        let Some(entry) = readable("stock_adjustments", decode::<EntryDocument>(entry)) else { continue };
        if entry.kind == Kind::Opening.as_str() {
            units = 0;
        }
        if pending.iter().all(|pending| pending.id != entry.id) {
            units = units.saturating_add(entry.delta);
        }
    }
    Ok(units)
}

#[cfg(test)]
mod tests;
