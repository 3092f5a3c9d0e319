//! Transactional outbox in `MongoDB`, without multi-document transactions.
//!
//! Every update that changes a product's version also sets `news`, the time of the first
//! unpublished change. It is removed when exactly the current version was published. A removal
//! cannot leave a marker in the removed document. It first records one in `removed_products`, which
//! is effective once the product is gone. A crash in between leaves an ineffective marker, which a
//! later removal reuses.

use futures_util::TryStreamExt;
use mongodb::{
    bson::{self, DateTime, Document, doc},
    options::ReturnDocument,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Collections, MAX_TIME,
    documents::{bson_id, bson_time, domain_id},
    is_duplicate,
};
use crate::store::{Error, PendingChange, timestamp::from_millis};

/// Marker of a product that is, or was about to be, removed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RemovedDocument {
    #[serde(rename = "_id")]
    id: bson::Uuid,
    since: DateTime,
}

/// Product with an unpublished change.
#[derive(Debug, Deserialize)]
struct Changed {
    #[serde(rename = "_id")]
    id: bson::Uuid,
    version: i64,
    news: DateTime,
}

/// Records the removal marker. Must be called before a product is removed.
pub(super) async fn record_removal(db: &Collections, id: Uuid, now: OffsetDateTime) -> Result<(), Error> {
    db.removed.update_one(doc! { "_id": bson_id(id) }, doc! { "$min": { "since": bson_time(now) } }).upsert(true).await?;
    Ok(())
}

pub(super) async fn lease(db: &Collections, relay: Uuid, now: OffsetDateTime, until: OffsetDateTime) -> Result<bool, Error> {
    let free = doc! { "_id": "relay", "$or": [{ "relay": bson_id(relay) }, { "leasedUntil": { "$lte": bson_time(now) } }] };
    let ours = doc! { "$set": { "relay": bson_id(relay), "leasedUntil": bson_time(until) } };
    match db.leases.find_one_and_update(free, ours).upsert(true).return_document(ReturnDocument::After).await {
        Ok(_) => Ok(true),
        // Another relay holds the lease.
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn unpublished(db: &Collections, limit: u32) -> Result<Vec<PendingChange>, Error> {
    let products = db.products.clone_with_type::<Changed>();
    let changed = products
        .find(doc! { "news": { "$exists": true } })
        .sort(doc! { "news": 1 })
        .limit(limit.into())
        .projection(doc! { "version": 1, "news": 1 })
        .max_time(MAX_TIME);
    let changed: Vec<Changed> = changed.await?.try_collect().await?;
    let mut waiting = Vec::with_capacity(changed.len());
    for Changed { id, version, news } in changed {
        waiting.push(PendingChange { product_id: domain_id(id), version, since: from_millis(news.timestamp_millis())? });
    }
    waiting.extend(removed(db, limit).await?);
    Ok(waiting)
}

/// Returns the markers whose product is gone.
async fn removed(db: &Collections, limit: u32) -> Result<Vec<PendingChange>, Error> {
    let marks: Vec<RemovedDocument> =
        db.removed.find(doc! {}).sort(doc! { "since": 1 }).limit(limit.into()).max_time(MAX_TIME).await?.try_collect().await?;
    let mut gone = Vec::new();
    for mark in marks {
        if db.stock.find_one(doc! { "_id": mark.id }).max_time(MAX_TIME).await?.is_none() {
            let since = from_millis(mark.since.timestamp_millis())?;
            gone.push(PendingChange { product_id: domain_id(mark.id), version: PendingChange::REMOVED, since });
        }
    }
    Ok(gone)
}

/// A product that has changed again stays in the outbox.
pub(super) async fn mark_published(db: &Collections, news: &[PendingChange]) -> Result<(), Error> {
    for news in news {
        let id = bson_id(news.product_id);
        if news.version == PendingChange::REMOVED {
            db.removed.delete_one(doc! { "_id": id }).await?;
        } else {
            db.stock.update_one(doc! { "_id": id, "version": news.version }, doc! { "$unset": { "news": "" } }).await?;
        }
    }
    Ok(())
}

/// Outbox part of an update that changes a product's version; for use with `$min`.
pub(super) fn change_marker(now: OffsetDateTime) -> Document {
    doc! { "news": bson_time(now) }
}
