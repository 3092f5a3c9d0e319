//! Retention of ledger entries.
//!
//! One update turns the last of the old entries of a product into an `opening` of their sum: from
//! then on, the entries before it do not count. They are deleted afterwards. A crash in between
//! leaves them to the next fold.

use futures_util::TryStreamExt;
use mongodb::bson::{self, Bson, Document, doc};
use time::OffsetDateTime;

use super::super::{
    collections::{Collections, MAX_TIME, decode},
    documents::bson_time,
    ledger_documents::EntryDocument,
};
use crate::{
    stock_ledger::{Fold, Kind},
    store::database::Error,
};

/// See [`LedgerStore::fold_ledger`](crate::store::LedgerStore::fold_ledger).
pub(super) async fn fold(db: &Collections, before: OffsetDateTime, limit: u32) -> Result<u64, Error> {
    let ledger = db.ledger.clone_with_type::<Document>();
    let mut folded = 0_u64;
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Opening) {
        let old = doc! { "kind": kind.as_str(), "createdAt": { "$lt": bson_time(before) } };
        let old = ledger.find(old).sort(doc! { "createdAt": 1 });
        let old: Vec<Document> =
            old.projection(doc! { "productId": 1 }).limit(limit.into()).max_time(MAX_TIME).await?.try_collect().await?;
        let mut products: Vec<bson::Uuid> = Vec::new();
        for mut entry in old {
            let product = entry.remove("productId").unwrap_or(Bson::Null);
            let product = bson::deserialize_from_bson(product).map_err(|error| Error::Corrupt(error.to_string()))?;
            if !products.contains(&product) {
                products.push(product);
            }
        }
        for product in products {
            let left = i64::from(limit).saturating_sub_unsigned(folded);
            if left <= 0 {
                return Ok(folded);
            }
            folded += fold_product(db, product, before, left).await?;
        }
    }
    Ok(folded)
}

/// Replaces up to `limit` old entries of a product by one. Returns their number.
async fn fold_product(db: &Collections, product: bson::Uuid, before: OffsetDateTime, limit: i64) -> Result<u64, Error> {
    let ledger = db.ledger.clone_with_type::<Document>();
    // In this order, an opening is read after the entries that it contains.
    let oldest = ledger.find(doc! { "productId": product }).sort(doc! { "sequence": 1 }).limit(limit.max(2)).max_time(MAX_TIME);
    let oldest: Vec<Document> = oldest.await?.try_collect().await?;
    let oldest = oldest.into_iter().map(decode::<EntryDocument>).collect::<Result<Vec<_>, _>>()?;
    let foldable = oldest.iter().map(EntryDocument::foldable).collect::<Result<Vec<_>, _>>()?;
    let Some(Fold { through, units, entries }) = Fold::of(&foldable, before) else { return Ok(0) };
    // Another process may fold at the same time: the last entry must be as it was read.
    let unchanged = doc! { "productId": product, "sequence": through.sequence, "kind": through.kind.as_str(), "delta": through.delta };
    let opening = doc! { "$set": {
        "kind": Kind::Opening.as_str(), "delta": units, "reason": "", "actor": Bson::Null, "orderId": Bson::Null,
    } };
    if db.ledger.update_one(unchanged, opening).await?.matched_count == 1 {
        db.ledger.delete_many(doc! { "productId": product, "sequence": { "$lt": through.sequence } }).await?;
        return Ok(entries);
    }
    Ok(0)
}
