//! Sweep: releases expired holds, and finishes what a crash left: reservations, and revisions that
//! a replica of the previous release interrupted.

use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};
use palisade_middleware::clock;
use time::OffsetDateTime;
use tracing::warn;

use super::{
    collections::{Collections, MAX_TIME, decode},
    documents::{Phase, ReservationDocument, bson_time, domain_id},
    maintenance, reservations, revision,
};
use crate::store::database::Error;

/// Time without progress after which an unfinished reservation counts as abandoned.
pub(super) const ABANDONED_AFTER: Duration = Duration::from_secs(5);

/// Ends up to `limit` holds and unfinished steps, see
/// [`ReservationStore::expire_due`](crate::store::ReservationStore::expire_due). A reservation that
/// fails does not block the others; one that cannot be read goes into quarantine.
pub(super) async fn sweep(db: &Collections, now: OffsetDateTime, limit: u32) -> Result<u32, Error> {
    let abandoned = doc! { "$lte": bson_time(clock::before(now, ABANDONED_AFTER)) };
    let unfinished = doc! { "$or": [
        { "state": { "$in": [Phase::Held, Phase::Reserving] }, "expiresAt": { "$lte": bson_time(now) } },
        { "state": Phase::Undoing, "updatedAt": abandoned.clone() },
    ] };
    let revised = doc! { "revision": { "$exists": true }, "updatedAt": abandoned };
    let (mut finished, mut failed) = (0, None);
    for due in [unfinished, revised] {
        for document in find(db, due, limit.saturating_sub(finished)).await? {
            let id = document.get("_id").cloned().unwrap_or(Bson::Null);
            match finish(db, document, now).await {
                Ok(()) => finished += 1,
                Err(error @ Error::Corrupt(_)) => maintenance::quarantine(db, &id, &error, now).await?,
                Err(error) => {
                    warn!(reservation_id = %id, error = &error as &dyn std::error::Error, "the end of a reservation or revision failed");
                    failed = Some(error);
                }
            }
        }
    }
    match failed {
        Some(error) if finished == 0 => Err(error),
        _ => Ok(finished),
    }
}

async fn find(db: &Collections, mut due: Document, limit: u32) -> Result<Vec<Document>, Error> {
    // 0 is no limit.
    if limit == 0 {
        return Ok(Vec::new());
    }
    due.insert(maintenance::QUARANTINED, doc! { "$exists": false });
    let reservations = db.reservations.clone_with_type::<Document>();
    let due = reservations.find(due).limit(limit.into()).max_time(MAX_TIME);
    Ok(due.await?.try_collect().await?)
}

async fn finish(db: &Collections, document: Document, now: OffsetDateTime) -> Result<(), Error> {
    let document = decode::<ReservationDocument>(document)?;
    revision::finish(db, &document, now).await?;
    reservations::finish(db, domain_id(document.id), now).await.map(drop)
}
