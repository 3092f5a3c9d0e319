//! Transactional outbox in MongoDB, without multi-document transactions.
//!
//! Every update that changes a product's version also sets `news`, the time of the first
//! unpublished change. It is removed when exactly the current version was published. A removal
//! cannot leave a marker in the removed document. It first records one in `removed_products`, which
//! is effective once the product is removed. A crash in between leaves an ineffective marker, which
//! a later removal reuses.

use async_trait::async_trait;
use futures_util::TryStreamExt;
use mongodb::{
    bson::{self, DateTime, Document, doc},
    options::ReturnDocument,
};
use serde::Deserialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    MongoStore,
    collections::{Collections, MAX_TIME, is_duplicate},
    documents::{RemovedDocument, bson_id, bson_time, domain_id},
};
use crate::store::{
    database::{Error, from_millis},
    roles::{OutboxStore, PendingChange},
};

/// Product with an unpublished change.
#[derive(Debug, Deserialize)]
struct Changed {
    #[serde(rename = "_id")]
    id: bson::Uuid,
    version: i64,
    #[serde(rename = "news")]
    since: DateTime,
}

#[async_trait]
impl OutboxStore for MongoStore {
    async fn lease_relay(&self, relay: Uuid, now: OffsetDateTime, until: OffsetDateTime) -> Result<bool, Error> {
        let filter = doc! { "_id": "relay", "$or": [{ "relay": bson_id(relay) }, { "leasedUntil": { "$lte": bson_time(now) } }] };
        let lease = doc! { "$set": { "relay": bson_id(relay), "leasedUntil": bson_time(until) } };
        let leased = self.collections.leases.find_one_and_update(filter, lease).upsert(true).return_document(ReturnDocument::After).await;
        match leased {
            Ok(_) => Ok(true),
            // Another relay holds the lease.
            Err(error) if is_duplicate(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn unpublished_changes(&self, limit: u32) -> Result<Vec<PendingChange>, Error> {
        let products = self.collections.products.clone_with_type::<Changed>();
        let changed = products
            .find(doc! { "news": { "$exists": true } })
            .sort(doc! { "news": 1 })
            .limit(limit.into())
            .projection(doc! { "version": 1, "news": 1 })
            .max_time(MAX_TIME);
        let changed: Vec<Changed> = changed.await?.try_collect().await?;
        let mut pending = Vec::with_capacity(changed.len());
        for Changed { id, version, since } in changed {
            pending.push(PendingChange { product_id: domain_id(id), version, since: from_millis(since.timestamp_millis())? });
        }
        pending.extend(unpublished_removals(&self.collections, limit).await?);
        Ok(pending)
    }

    async fn mark_published(&self, changes: Vec<PendingChange>) -> Result<(), Error> {
        let db = &self.collections;
        for change in changes {
            let id = bson_id(change.product_id);
            if change.version == PendingChange::REMOVED {
                db.removed.delete_one(doc! { "_id": id }).await?;
            } else {
                db.stock.update_one(doc! { "_id": id, "version": change.version }, doc! { "$unset": { "news": "" } }).await?;
            }
        }
        Ok(())
    }
}

/// Returns the removal markers whose product no longer exists.
async fn unpublished_removals(db: &Collections, limit: u32) -> Result<Vec<PendingChange>, Error> {
    let markers: Vec<RemovedDocument> =
        db.removed.find(doc! {}).sort(doc! { "since": 1 }).limit(limit.into()).max_time(MAX_TIME).await?.try_collect().await?;
    let mut removals = Vec::new();
    for marker in markers {
        if db.stock.find_one(doc! { "_id": marker.id }).max_time(MAX_TIME).await?.is_none() {
            let since = from_millis(marker.since.timestamp_millis())?;
            removals.push(PendingChange { product_id: domain_id(marker.id), version: PendingChange::REMOVED, since });
        }
    }
    Ok(removals)
}

/// Records the removal marker. Must be called before a product is removed.
pub(super) async fn record_removal(db: &Collections, id: Uuid, now: OffsetDateTime) -> Result<(), Error> {
    db.removed.update_one(doc! { "_id": bson_id(id) }, doc! { "$min": { "since": bson_time(now) } }).upsert(true).await?;
    Ok(())
}

/// Outbox part of an update that changes a product's version; for use with `$min`.
pub(super) fn change_marker(now: OffsetDateTime) -> Document {
    doc! { "news": bson_time(now) }
}
