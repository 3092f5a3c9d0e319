//! Indexes, readiness, statistics and quarantine in MongoDB.

use async_trait::async_trait;
use futures_util::TryStreamExt;
use mongodb::bson::{self, Bson, Document, doc};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    MongoStore, audit,
    collections::{Collections, MAX_TIME},
    documents::{Fulfilment, Phase, bson_id, bson_time, domain_id},
    ledger,
};
use crate::store::{
    database::{Error, from_millis},
    roles::{Audit, Maintenance, Quarantined, Stats},
};

/// Limit of counts that are unbounded.
const MAX_COUNT: u64 = 10_000;
/// Field of a reservation in quarantine, which the sweeper leaves out.
pub(super) const QUARANTINED: &str = "quarantined";

#[async_trait]
impl Maintenance for MongoStore {
    /// Creates the indexes, and the ledgers of products of a release without one. Queries work
    /// without the indexes, but scan whole collections.
    async fn migrate(&self) -> Result<(), Error> {
        self.collections.create_indexes().await?;
        ledger::open_all(&self.collections).await
    }

    /// Other replicas may use the database.
    async fn take_over(&self, _: OffsetDateTime) -> Result<(), Error> {
        Ok(())
    }

    async fn stats(&self, now: OffsetDateTime, settled_before: OffsetDateTime) -> Result<Stats, Error> {
        let db = &self.collections;
        let mut overdue_reservations = 0;
        for filter in settled(settled_before) {
            overdue_reservations += db.reservations.count_documents(filter).limit(MAX_COUNT).max_time(MAX_TIME).await?;
        }
        let expired = doc! { "expiresAt": { "$lte": bson_time(now) } };
        let expired_adjustments = db.adjustment_keys.count_documents(expired.clone()).limit(MAX_COUNT).max_time(MAX_TIME).await?;
        let expired_creates = db.keys.count_documents(expired).limit(MAX_COUNT).max_time(MAX_TIME).await?;
        Ok(Stats {
            overdue_reservations: overdue_reservations.min(MAX_COUNT),
            overdue_keys: (expired_creates + expired_adjustments).min(MAX_COUNT),
            quarantined: db.quarantine.count_documents(doc! {}).limit(MAX_COUNT).max_time(MAX_TIME).await?,
        })
    }

    async fn quarantined(&self, limit: u32) -> Result<Vec<Quarantined>, Error> {
        let entries = self.collections.quarantine.find(doc! {}).sort(doc! { "since": 1, "_id": 1 }).limit(limit.into());
        let entries: Vec<Document> = entries.max_time(MAX_TIME).await?.try_collect().await?;
        let entry = |entry: &Document| {
            let since = entry.get_datetime("since").map_or(0, |since| since.timestamp_millis());
            Ok(Quarantined {
                reservation_id: entry.get("_id").and_then(uuid_of).unwrap_or_default(),
                reason: entry.get_str("reason").unwrap_or_default().to_owned(),
                since: from_millis(since)?,
            })
        };
        entries.iter().map(entry).collect()
    }

    async fn end_quarantine(&self, reservation_id: Uuid) -> Result<bool, Error> {
        let of = doc! { "_id": bson_id(reservation_id) };
        self.collections.reservations.update_one(of.clone(), doc! { "$unset": { QUARANTINED: "" } }).await?;
        Ok(self.collections.quarantine.delete_one(of).await?.deleted_count == 1)
    }

    async fn audit(&self, now: OffsetDateTime) -> Result<Audit, Error> {
        audit::audit(&self.collections, now).await
    }

    async fn ping(&self) -> Result<Option<OffsetDateTime>, Error> {
        let hello = self.database.run_command(doc! { "hello": 1 }).await?;
        if self.write_probe.is_due() {
            let probe = doc! { "$inc": { "writes": 1_i64 } };
            self.collections.write_probe.update_one(doc! { "_id": "probe" }, probe).upsert(true).await?;
            self.write_probe.succeeded();
        }
        hello.get_datetime("localTime").ok().map(|now| from_millis(now.timestamp_millis())).transpose()
    }
}

/// Deletes up to `limit` settled reservations that have not changed since `before`.
///
/// Their marks may still be in products: a mark whose reservation does not exist counts as
/// finished.
pub(super) async fn delete_settled(db: &Collections, before: OffsetDateTime, limit: u32) -> Result<u64, Error> {
    let reservations = db.reservations.clone_with_type::<Document>();
    let mut deleted = 0;
    for mut filter in settled(before) {
        let left = i64::from(limit).saturating_sub_unsigned(deleted);
        if left <= 0 {
            break;
        }
        let batch = reservations.find(filter.clone()).projection(doc! { "_id": 1 }).limit(left).max_time(MAX_TIME);
        let batch: Vec<Document> = batch.await?.try_collect().await?;
        let ids: Vec<Bson> = batch.into_iter().filter_map(|mut reservation| reservation.remove("_id")).collect();
        if !ids.is_empty() {
            filter.insert("_id", doc! { "$in": ids });
            deleted += reservations.delete_many(filter).await?.deleted_count;
        }
    }
    Ok(deleted)
}

/// Filters of the reservations that own no units and have not changed since `before`, one per
/// state: each is a range of the index by state and expiry.
fn settled(before: OffsetDateTime) -> [Document; 3] {
    [Phase::Refused, Phase::Released, Phase::Expired].map(|state| {
        doc! {
            "state": state,
            "expiresAt": { "$lte": bson_time(before) },
            "updatedAt": { "$lte": bson_time(before) },
            "fulfilment": { "$in": [Bson::Null, Bson::from(Fulfilment::Done)] },
            "revision": Bson::Null,
        }
    })
}

/// Puts the reservation with this `_id` into quarantine.
pub(super) async fn quarantine(db: &Collections, id: &Bson, error: &Error, now: OffsetDateTime) -> Result<(), Error> {
    tracing::error!(reservation_id = %id, error = error as &dyn std::error::Error, "unreadable reservation put into quarantine");
    let entry = doc! { "$setOnInsert": { "reason": error.to_string(), "since": bson_time(now) } };
    db.quarantine.update_one(doc! { "_id": id }, entry).upsert(true).await?;
    // Last: without the mark it is found, and put into quarantine, again.
    db.reservations.update_one(doc! { "_id": id }, doc! { "$set": { QUARANTINED: true } }).await?;
    Ok(())
}

fn uuid_of(id: &Bson) -> Option<Uuid> {
    let Bson::Binary(binary) = id else { return None };
    let bytes = binary.bytes.as_slice().try_into().ok()?;
    Some(domain_id(bson::Uuid::from_bytes(bytes)))
}

#[cfg(test)]
mod tests;
