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
    bson::{self, Bson, DateTime, Document, doc},
    options::ReturnDocument,
};
use palisade_events::{Destination, Lease};
use serde::Deserialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    MongoStore,
    collections::{Collections, MAX_TIME, decode_all, is_duplicate},
    documents::{RemovedDocument, bson_id, bson_time, domain_id},
    ledger,
};
use crate::store::{
    database::{Error, from_millis},
    roles::{OutboxStore, PendingChange},
};

/// Number of removal markers per query.
const MARKER_PAGE: u32 = 256;
/// Maximum number of queries for removal markers per call.
const MAX_MARKER_PAGES: usize = 16;
/// Id of the relay lease.
const RELAY: &str = "relay";

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
    async fn lease_relay(&self, relay: Uuid, destination: Destination, now: OffsetDateTime, until: OffsetDateTime) -> Result<Lease, Error> {
        let leases = &self.collections.leases;
        let not_the_broker = doc! { "destination": { "$ne": Destination::Broker.as_str() } };
        let mut free = vec![doc! { "relay": bson_id(relay) }, doc! { "leasedUntil": { "$lte": bson_time(now) } }];
        let mut filter = doc! { "_id": RELAY };
        match destination {
            Destination::Broker => free.push(not_the_broker),
            Destination::InProcess => filter.extend(not_the_broker),
        }
        filter.insert("$or", free);
        let lease = doc! { "$set": { "relay": bson_id(relay), "leasedUntil": bson_time(until), "destination": destination.as_str() } };
        match leases.find_one_and_update(filter, lease).upsert(true).return_document(ReturnDocument::After).await {
            Ok(_) => Ok(Lease::Held),
            // The filter excludes the lease of another relay.
            Err(error) if is_duplicate(&error) => {
                let lease = leases.find_one(doc! { "_id": RELAY }).max_time(MAX_TIME).await?;
                Ok(Lease::denied(destination, lease.as_ref().and_then(|lease| lease.get_str("destination").ok())))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn reset_relay(&self) -> Result<(), Error> {
        self.collections.leases.delete_one(doc! { "_id": RELAY }).await?;
        Ok(())
    }

    async fn unpublished_changes(&self, limit: u32) -> Result<Vec<PendingChange>, Error> {
        let products = self.collections.products.clone_with_type::<Document>();
        let changed = products
            .find(doc! { "news": { "$exists": true } })
            .sort(doc! { "news": 1 })
            .limit(limit.into())
            .projection(doc! { "version": 1, "news": 1 })
            .max_time(MAX_TIME);
        let changed: Vec<Changed> = decode_all("products", changed.await?).await?;
        let mut pending = Vec::with_capacity(changed.len());
        for Changed { id, version, since } in changed {
            pending.push(PendingChange { product_id: domain_id(id), version, since: time_or_epoch(since) });
        }
        pending.extend(self.unpublished_removals(limit as usize).await?);
        Ok(pending)
    }

    async fn mark_published(&self, changes: Vec<PendingChange>, destination: Destination) -> Result<(), Error> {
        let db = &self.collections;
        if destination != Destination::Broker {
            let broker = doc! { "_id": RELAY, "destination": Destination::Broker.as_str() };
            if db.leases.find_one(broker).max_time(MAX_TIME).await?.is_some() {
                return Ok(());
            }
        }
        let (removed, updated): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| change.version == PendingChange::REMOVED);
        if !removed.is_empty() {
            let ids: Vec<_> = removed.iter().map(|change| bson_id(change.product_id)).collect();
            // A crash may have left them.
            ledger::delete(db, &ids).await?;
            db.removed.delete_many(doc! { "_id": { "$in": ids } }).await?;
        }
        if !updated.is_empty() {
            let unupdated = |change: &PendingChange| doc! { "_id": bson_id(change.product_id), "version": change.version };
            let unupdated: Vec<Document> = updated.iter().map(unupdated).collect();
            db.stock.update_many(doc! { "$or": unupdated }, doc! { "$unset": { "news": "" } }).await?;
        }
        Ok(())
    }
}

impl MongoStore {
    /// Returns up to `limit` removal markers whose product no longer exists. Markers of products
    /// that still exist are skipped, however many there are: each call continues where the last one
    /// ended, and starts over at the end.
    async fn unpublished_removals(&self, limit: usize) -> Result<Vec<PendingChange>, Error> {
        let mut removals = Vec::new();
        for _ in 0..MAX_MARKER_PAGES {
            let after = self.removal_scan.lock().clone();
            let markers = self.removal_markers(after).await?;
            *self.removal_scan.lock() = markers.last().filter(|_| markers.len() == MARKER_PAGE as usize).cloned();
            let ids: Vec<bson::Uuid> = markers.iter().map(|marker| marker.id).collect();
            let products = self.collections.stock.clone_with_type::<Document>();
            let existing = products.find(doc! { "_id": { "$in": ids } });
            let existing: Vec<Document> = existing.projection(doc! { "_id": 1 }).max_time(MAX_TIME).await?.try_collect().await?;
            let exists = |marker: &RemovedDocument| existing.iter().any(|product| product.get("_id") == Some(&Bson::from(marker.id)));
            let gone = markers.iter().filter(|marker| !exists(marker));
            removals.extend(gone.map(|marker| PendingChange {
                product_id: domain_id(marker.id),
                version: PendingChange::REMOVED,
                since: time_or_epoch(marker.since),
            }));
            if removals.len() >= limit || markers.len() < MARKER_PAGE as usize {
                break;
            }
        }
        Ok(removals)
    }

    /// Returns a page of removal markers after `after`, in the order of their time.
    async fn removal_markers(&self, after: Option<RemovedDocument>) -> Result<Vec<RemovedDocument>, Error> {
        let filter = after.map_or_else(
            || doc! {},
            |after| {
                let same_time = doc! { "since": after.since, "_id": { "$gt": after.id } };
                doc! { "$or": [{ "since": { "$gt": after.since } }, same_time] }
            },
        );
        let markers = self.collections.removed.clone_with_type::<Document>();
        let markers = markers.find(filter).sort(doc! { "since": 1, "_id": 1 });
        decode_all("removed_products", markers.limit(MARKER_PAGE.into()).max_time(MAX_TIME).await?).await
    }
}

/// The time only tells the age: a change with an unreadable one is published all the same.
fn time_or_epoch(at: DateTime) -> OffsetDateTime {
    from_millis(at.timestamp_millis()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
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
