//! Entries that a crash left in a product, and changes by the previous release.

use futures_util::TryStreamExt;
use mongodb::bson::{self, Bson, Document, doc};
use uuid::Uuid;

use super::{
    super::{
        collections::{Collections, MAX_TIME, decode},
        documents::{bson_id, domain_id},
        ledger_documents::{EntryDocument, Unsettled},
    },
    move_to_ledger,
};
use crate::{
    stock_ledger::{Kind, NewEntry},
    store::database::{Error, from_millis, readable},
};

/// Number of products that a migration reads at once.
const MIGRATION_PAGE: u32 = 500;

/// Document of the leases that records that all ledgers were opened.
const OPENED: &str = "ledgers_opened";

/// Opens the ledger of every product without one, once: it reads all products. The job opens those
/// that a replica of the previous release creates later. Several processes may do so at once.
pub(in super::super) async fn open_all(db: &Collections) -> Result<(), Error> {
    if db.leases.find_one(doc! { "_id": OPENED }).await?.is_some() {
        return Ok(());
    }
    let mut after = None;
    while let Some(last) = settle_page(db, doc! { "ledgerSequence": { "$exists": false } }, after, MIGRATION_PAGE).await? {
        after = Some(last);
    }
    db.leases.update_one(doc! { "_id": OPENED }, doc! { "$set": { "opened": true } }).upsert(true).await?;
    Ok(())
}

/// Settles up to `limit` products after the id `after` that match `filter`. Returns the last one.
pub(super) async fn settle_page(db: &Collections, mut filter: Document, after: Option<Uuid>, limit: u32) -> Result<Option<Uuid>, Error> {
    // The nil id sorts before every other id and is never used.
    filter.insert("_id", doc! { "$gt": bson_id(after.unwrap_or_default()) });
    let products = db.products.clone_with_type::<Document>();
    let page = products.find(filter).sort(doc! { "_id": 1 }).limit(i64::from(limit)).projection(fields());
    let page: Vec<Document> = page.await?.try_collect().await?;
    let last = page.last().and_then(|last| last.get("_id").cloned());
    for document in page {
        if let Some(product) = readable("products", decode::<Unsettled>(document)) {
            settle(db, &product).await?;
        }
    }
    Ok(last.and_then(|last| bson::deserialize_from_bson::<bson::Uuid>(last).ok()).map(domain_id))
}

/// Settles one product. Returns whether it exists.
pub(super) async fn settle_one(db: &Collections, product: bson::Uuid) -> Result<bool, Error> {
    let products = db.products.clone_with_type::<Unsettled>();
    let found = products.find_one(doc! { "_id": product }).projection(fields()).max_time(MAX_TIME).await?;
    match found {
        Some(product) => settle(db, &product).await.map(|()| true),
        None => Ok(false),
    }
}

fn fields() -> Document {
    doc! {
        "supply": 1, "quantity": 1, "updatedAt": 1, "booked": 1, "ledgerSequence": 1, "pendingLedger": 1, "search.detailsVersion": 1,
    }
}

/// Moves the entries of the product to the ledger, and records a difference.
async fn settle(db: &Collections, product: &Unsettled) -> Result<(), Error> {
    move_to_ledger(db, product.id, &product.pending_ledger).await?;
    let difference = product.supply.saturating_sub(product.booked.unwrap_or_default());
    if product.ledger_sequence.is_none() || difference != 0 {
        reconcile(db, product, difference).await?;
    }
    if product.search.as_ref().is_some_and(|search| search.details_version.is_none()) {
        // The current version is an upper bound.
        let unknown = doc! { "_id": product.id, "search.text": { "$exists": true }, "search.detailsVersion": { "$exists": false } };
        db.stock.update_one(unknown, vec![doc! { "$set": { "search.detailsVersion": "$version" } }]).await?;
    }
    Ok(())
}

/// Records that the supply of the product changed by `difference` without an entry. Does nothing if
/// the product has changed since it was read: the next pass examines it again.
async fn reconcile(db: &Collections, product: &Unsettled, difference: i64) -> Result<(), Error> {
    let kind = if product.ledger_sequence.is_none() { Kind::Opening } else { Kind::Reconciled };
    let new = NewEntry::new(domain_id(product.id), kind, from_millis(product.updated_at.timestamp_millis())?);
    let sequence = product.ledger_sequence.unwrap_or_default() + 1;
    let entry = EntryDocument::new(&new, sequence, difference, product.quantity);
    if kind == Kind::Reconciled {
        tracing::warn!(product_id = %new.product_id, units = difference, "stock changed without a ledger entry, added one");
    }
    let pending = bson::serialize_to_document(&entry).map_err(|error| Error::Corrupt(error.to_string()))?;
    let unchanged = doc! {
        "_id": product.id,
        "supply": product.supply,
        "booked": product.booked.map_or(Bson::Null, Bson::from),
        "ledgerSequence": product.ledger_sequence.map_or(Bson::Null, Bson::from),
    };
    let change = doc! { "$set": { "booked": product.supply, "ledgerSequence": sequence }, "$push": { "pendingLedger": pending } };
    if db.stock.update_one(unchanged, change).await?.matched_count == 1 {
        move_to_ledger(db, product.id, &[entry]).await?;
    }
    Ok(())
}
