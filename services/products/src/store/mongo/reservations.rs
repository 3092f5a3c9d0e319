//! Reservations in MongoDB as a saga over products: record, take each line, set the final state.
//!
//! ```text
//!           ┌─ all lines taken ─▶ HELD ──▶ CONFIRMED
//! RESERVING ┤                      │          │  release
//!           └─ line unavailable,   │ expire   │
//!              release, expire     ▼          ▼
//!                        └──────▶ UNDOING ──────▶ REFUSED, RELEASED or EXPIRED
//! ```
//!
//! Each arrow is one compare-and-set of the reservation. Only RESERVING and UNDOING have steps left
//! in products, and every function here that finds one of them runs those steps before it returns.
//! The next call or the sweeper finishes the steps after a crash.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use futures_util::TryStreamExt;
use mongodb::bson::{self, Bson, Document, doc};
use palisade_middleware::clock;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    MongoStore,
    collections::{Collections, MAX_TIME, decode, is_duplicate},
    documents::{Phase, RefusalDocument, ReservationDocument, Undo, bson_id, bson_time, domain_id},
    fulfilment, maintenance,
    reserve_batch::NewReservation,
    revision,
    stock_marks::{self, TakeOutcome, epochs, load_stock, prune_all, run_all},
    sweep,
};
use crate::{
    reservation::{ConfirmOutcome, FulfilOutcome, Lines, Reservation, ReserveOutcome, ReviseOutcome, Revision, State},
    store::{
        database::{Error, readable},
        roles::ReservationStore,
    },
};

/// Maximum number of lines of a reservation that is made in a batch. A longer one does not delay
/// the others.
const MAX_BATCHED_LINES: usize = 8;

#[async_trait]
impl ReservationStore for MongoStore {
    async fn reserve(&self, id: Uuid, lines: Lines, now: OffsetDateTime, hold_for: Duration) -> Result<ReserveOutcome, Error> {
        let reservation = self.reserve_in_batch(id, &lines, Phase::Held, (now, hold_for)).await?;
        Ok(reservation.reserve_outcome(&lines))
    }

    async fn reserve_and_confirm(&self, id: Uuid, lines: Lines, now: OffsetDateTime, hold_for: Duration) -> Result<ReserveOutcome, Error> {
        let mut reservation = self.reserve_in_batch(id, &lines, Phase::Confirmed, (now, hold_for)).await?;
        // Held by an earlier call.
        while reservation.state == State::Held && reservation.has_lines(&lines) {
            self.confirm(id, now).await?;
            reservation = finished(&self.collections, id, now).await?;
        }
        Ok(reservation.reserve_outcome(&lines))
    }

    async fn confirm(&self, id: Uuid, now: OffsetDateTime) -> Result<ConfirmOutcome, Error> {
        let db = &self.collections;
        let unexpired = doc! { "_id": bson_id(id), "state": Phase::Held, "expiresAt": { "$gt": bson_time(now) } };
        let change = doc! { "$set": { "state": Phase::Confirmed, "updatedAt": bson_time(now) } };
        loop {
            // A guarded update and a read by id: some servers scan the collection for the combined
            // command.
            db.reservations.update_one(unexpired.clone(), change.clone()).await?;
            let reservation = finish(db, id, now).await?;
            match reservation {
                None => return Ok(ConfirmOutcome::Unknown),
                // Another executor has just finished the reserve: retry.
                Some(reservation) if reservation.state == State::Held => {}
                Some(reservation) => return Ok(reservation.confirm_outcome()),
            }
        }
    }

    async fn revise(&self, id: Uuid, revision: Revision, now: OffsetDateTime) -> Result<ReviseOutcome, Error> {
        revision::revise(&self.collections, id, &revision, now).await
    }

    async fn fulfil(&self, id: Uuid, now: OffsetDateTime) -> Result<FulfilOutcome, Error> {
        fulfilment::fulfil(&self.collections, id, now).await
    }

    async fn release(&self, id: Uuid, now: OffsetDateTime) -> Result<Reservation, Error> {
        let db = &self.collections;
        loop {
            let Some(document) = find(db, id).await? else {
                let tombstone = Reservation { id, state: State::Released, lines: vec![], expires_at: now };
                if insert(db, &ReservationDocument::new(&tombstone, now)).await? {
                    return Ok(tombstone);
                }
                continue;
            };
            match document.state {
                Phase::Reserving => undo(db, &document, Undo { to: Phase::Released, all_lines_taken: false }, None, now).await?,
                _ if document.revision.is_some() => revision::finish(db, &document, now).await?,
                Phase::Confirmed if document.fulfilment.is_some() => fulfilment::finish(db, &document, now).await?,
                Phase::Held | Phase::Confirmed => {
                    undo(db, &document, Undo { to: Phase::Released, all_lines_taken: true }, None, now).await?;
                }
                Phase::Undoing => finish_undo(db, &document, now).await?,
                Phase::Refused | Phase::Released | Phase::Expired => {
                    return document.into_reservation()?.ok_or_else(|| Error::Corrupt(format!("reservation {id} is unfinished")));
                }
            }
        }
    }

    async fn expire_due(&self, now: OffsetDateTime, limit: u32) -> Result<u32, Error> {
        sweep::sweep(&self.collections, now, limit).await
    }

    async fn delete_settled(&self, before: OffsetDateTime, limit: u32) -> Result<u64, Error> {
        maintenance::delete_settled(&self.collections, before, limit).await
    }

    async fn list_reservations(&self, after: Option<Uuid>, limit: u32) -> Result<Vec<Reservation>, Error> {
        let db = &self.collections;
        // The nil id sorts before every other id and is never used.
        let reservations = db.reservations.clone_with_type::<Document>();
        let mut after = Bson::from(bson_id(after.unwrap_or_default()));
        loop {
            let open = doc! { "state": { "$in": [Phase::Held, Phase::Confirmed] }, "_id": { "$gt": after } };
            let cursor = reservations.find(open).sort(doc! { "_id": 1 }).limit(i64::from(limit)).max_time(MAX_TIME).await?;
            let documents: Vec<Document> = cursor.try_collect().await?;
            let Some(last) = documents.last().and_then(|last| last.get("_id")) else { return Ok(Vec::new()) };
            after = last.clone();
            let reservation = |document| decode::<ReservationDocument>(document).and_then(ReservationDocument::into_reservation);
            let open: Vec<Reservation> =
                documents.into_iter().filter_map(|document| readable("reservations", reservation(document)).flatten()).collect();
            // An empty page would end the list: continue after documents that cannot be read.
            if !open.is_empty() {
                return Ok(open);
            }
        }
    }
}

impl MongoStore {
    /// Reserves `lines` together with other reservations. A new reservation then becomes `then`.
    async fn reserve_in_batch(
        &self,
        id: Uuid,
        lines: &Lines,
        then: Phase,
        (now, hold_for): (OffsetDateTime, Duration),
    ) -> Result<Reservation, Error> {
        if lines.as_slice().len() > MAX_BATCHED_LINES {
            return reserve(&self.collections, id, lines, then, (now, hold_for)).await;
        }
        self.reserves.write(NewReservation { id, lines: lines.clone(), then, now, hold_for }).await
    }
}

/// Reserves `lines` alone. A new reservation then becomes `then`: HELD or CONFIRMED.
pub(super) async fn reserve(
    db: &Collections,
    id: Uuid,
    lines: &Lines,
    then: Phase,
    (now, hold_for): (OffsetDateTime, Duration),
) -> Result<Reservation, Error> {
    // Read the stock before the reservation exists: the epochs must be older than its RESERVING
    // state.
    let stock = load_stock(db, lines.as_slice().iter().map(|line| bson_id(line.product_id))).await?;
    let products = stock.iter().map(|product| (domain_id(product.id), product.product_stock())).collect();
    let (state, held) = lines.evaluate(&products);
    let document = ReservationDocument::new(&Reservation { id, state, lines: held, expires_at: clock::after(now, hold_for) }, now);
    let reservation = if insert(db, &document).await? && document.state == Phase::Reserving {
        complete(db, &document, &epochs(&stock), then, now).await?
    } else {
        finished(db, id, now).await?
    };
    prune_all(db, &stock).await;
    Ok(reservation)
}

/// Takes the lines of a reservation that was inserted as RESERVING, and ends that state.
pub(super) async fn complete(
    db: &Collections,
    document: &ReservationDocument,
    epochs: &HashMap<bson::Uuid, i64>,
    then: Phase,
    now: OffsetDateTime,
) -> Result<Reservation, Error> {
    if let Some(taken) = take_lines(db, document, epochs, then, now).await?
        && taken.expires_at > bson_time(now)
        && let Some(reservation) = taken.into_reservation()?
    {
        return Ok(reservation);
    }
    finished(db, domain_id(document.id), now).await
}

/// Finishes the steps of a reservation that exists.
pub(super) async fn finished(db: &Collections, id: Uuid, now: OffsetDateTime) -> Result<Reservation, Error> {
    finish(db, id, now).await?.ok_or_else(|| Error::Corrupt(format!("reservation {id} is missing")))
}

/// Finishes the steps of a reservation and releases it if it has expired: a reported "expired" is
/// final.
pub(super) async fn finish(db: &Collections, id: Uuid, now: OffsetDateTime) -> Result<Option<Reservation>, Error> {
    loop {
        let Some(document) = find(db, id).await? else { return Ok(None) };
        let overdue = document.expires_at <= bson_time(now);
        match document.state {
            Phase::Reserving if overdue => undo(db, &document, Undo { to: Phase::Expired, all_lines_taken: false }, None, now).await?,
            Phase::Reserving => resume(db, &document, now).await?,
            Phase::Held if overdue => undo(db, &document, Undo { to: Phase::Expired, all_lines_taken: true }, None, now).await?,
            // Left by a replica of the previous release, which does not know revisions.
            Phase::Undoing if document.revision.is_some() => revision::finish(db, &document, now).await?,
            Phase::Undoing => finish_undo(db, &document, now).await?,
            _ => return document.into_reservation(),
        }
    }
}

/// Continues a reserve that another executor started.
async fn resume(db: &Collections, document: &ReservationDocument, now: OffsetDateTime) -> Result<(), Error> {
    let stock = load_stock(db, document.lines.iter().map(|line| line.product_id)).await?;
    // Read the epochs before the reservation: `stock_marks` requires this order.
    match find(db, domain_id(document.id)).await? {
        Some(current) if current.state == Phase::Reserving => {
            take_lines(db, document, &epochs(&stock), Phase::Held, now).await?;
            prune_all(db, &stock).await;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// RESERVING → `then`, or → UNDOING if a line is unavailable. Returns the reservation if this call
/// made it `then`.
async fn take_lines(
    db: &Collections,
    document: &ReservationDocument,
    epochs: &HashMap<bson::Uuid, i64>,
    then: Phase,
    now: OffsetDateTime,
) -> Result<Option<ReservationDocument>, Error> {
    let mut work = Vec::with_capacity(document.lines.len());
    for line in &document.lines {
        work.push(stock_marks::take(db, document.id, line, epochs.get(&line.product_id).copied(), now));
    }
    let outcomes = run_all(work).await?;
    for (line, outcome) in document.lines.iter().zip(&outcomes) {
        if let TakeOutcome::Refused(reason) = outcome {
            let refusal = RefusalDocument::new(*reason, line.product_id);
            undo(db, document, Undo { to: Phase::Refused, all_lines_taken: false }, Some(refusal), now).await?;
            return Ok(None);
        }
    }
    if outcomes.iter().any(|outcome| *outcome != TakeOutcome::Taken) {
        return Ok(None);
    }
    let change = doc! { "$set": { "state": then, "updatedAt": bson_time(now) } };
    let is_changed = db.reservations.update_one(state_guard(document), change).await?.matched_count == 1;
    Ok(is_changed.then(|| ReservationDocument { state: then, ..document.clone() }))
}

/// RESERVING, HELD or CONFIRMED → UNDOING.
async fn undo(
    db: &Collections,
    document: &ReservationDocument,
    undo: Undo,
    refusal: Option<RefusalDocument>,
    now: OffsetDateTime,
) -> Result<(), Error> {
    let mut change = doc! { "state": Phase::Undoing, "undo": { "to": undo.to, "sure": undo.all_lines_taken }, "updatedAt": bson_time(now) };
    if let Some(refusal) = refusal {
        change.insert("refusal", doc! { "reason": refusal.reason, "productId": refusal.product_id });
    }
    compare_and_set(db, document, change).await
}

/// UNDOING → the state recorded as its target.
async fn finish_undo(db: &Collections, document: &ReservationDocument, now: OffsetDateTime) -> Result<(), Error> {
    let Some(undo) = document.undo else {
        return Err(Error::Corrupt(format!("reservation {} has no undo target", document.id)));
    };
    let mut work = Vec::with_capacity(document.lines.len());
    for line in &document.lines {
        work.push(stock_marks::give_back(db, document.id, line, undo.all_lines_taken, now));
    }
    run_all(work).await?;
    compare_and_set(db, document, doc! { "state": undo.to, "undo": Bson::Null, "updatedAt": bson_time(now) }).await
}

/// Changes the reservation if its state is unchanged, else does nothing: the caller reads it again.
async fn compare_and_set(db: &Collections, document: &ReservationDocument, change: Document) -> Result<(), Error> {
    db.reservations.update_one(state_guard(document), doc! { "$set": change }).await?;
    Ok(())
}

/// A fulfilment or a revision that has begun is finished first.
fn state_guard(document: &ReservationDocument) -> Document {
    doc! { "_id": document.id, "state": document.state, "fulfilment": { "$exists": false }, "revision": { "$exists": false } }
}

/// Inserts the reservation. Returns `false` if its id exists.
async fn insert(db: &Collections, document: &ReservationDocument) -> Result<bool, Error> {
    match db.reservations.insert_one(document).await {
        Ok(_) => Ok(true),
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn find(db: &Collections, id: Uuid) -> Result<Option<ReservationDocument>, Error> {
    Ok(db.reservations.find_one(doc! { "_id": bson_id(id) }).max_time(MAX_TIME).await?)
}

#[cfg(test)]
mod tests;
