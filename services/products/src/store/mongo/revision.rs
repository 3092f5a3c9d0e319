//! Revision of a confirmed reservation as a saga over products: take the missing units, replace the
//! lines, give back the units that are left over.
//!
//! ```text
//!           ┌─ all taken ─▶ GIVING_BACK, new lines ──▶ CLEARING ──▶ revised
//!  TAKING ──┤
//!           └─ a line is unavailable ──▶ UNDOING ──▶ refused
//! ```
//!
//! Each arrow is one compare-and-set of the reservation, whose state stays CONFIRMED. The steps in
//! products are guarded updates, each with an entry in the product's `revising` list. Units are
//! taken only while the entry is missing, and the entry leaves the list only with a new epoch of
//! the product, after the reservation has left the step.
//!
//! An executor reads the epoch of a product, then checks that the reservation is in the step, then
//! changes the product only if the epoch is unchanged. Hence an executor that was suspended for any
//! time can neither take nor give back units of a step that has ended.
//!
//! A crash leaves a revision half done. The next call finishes it first: a revision, a release or a
//! fulfilment; and the sweeper, if a replica of the previous release changed the reservation.

use std::collections::HashMap;

use mongodb::bson::{self, Bson, Document, doc};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    collections::{Collections, MAX_TIME},
    documents::{
        LastRevision, LineDocument, Phase, RefusalDocument, ReservationDocument, RevisionDocument, RevisionStep, Stock, UnitsDocument,
        bson_id, bson_time, domain_id,
    },
    outbox,
    reservations::find,
    stock_marks::{self, TakeOutcome, load_stock, run_all},
};
use crate::{
    reservation::{HeldLine, ProductStock, Refusal, ReviseOutcome, Revision},
    store::database::Error,
};

pub(super) async fn revise(db: &Collections, id: Uuid, revision: &Revision, now: OffsetDateTime) -> Result<ReviseOutcome, Error> {
    loop {
        let Some(document) = find(db, id).await? else { return Ok(ReviseOutcome::Unknown) };
        if document.revision.is_some() {
            finish(db, &document, now).await?;
        } else if document.state != Phase::Confirmed || document.fulfilment.is_some() {
            return Ok(ReviseOutcome::NotConfirmed);
        } else if let Some(last) = document.last_revision.as_ref().filter(|last| last.number >= revision.number) {
            return outcome(last.clone(), document, revision);
        } else {
            begin(db, document, revision, now).await?;
        }
    }
}

/// Finishes the revision of a reservation, before any other change of it.
pub(super) async fn finish(db: &Collections, document: &ReservationDocument, now: OffsetDateTime) -> Result<(), Error> {
    let mut current = Some(document.clone());
    while let Some(document) = current.take() {
        let Some(revision) = &document.revision else { return Ok(()) };
        let id = document.id;
        match revision.step {
            RevisionStep::Taking => take_units(db, &document, revision, now).await?,
            RevisionStep::GivingBack => {
                run_all(revision.gives_back.iter().map(|units| give_back(db, id, revision.number, units, now)).collect()).await?;
                advance(db, &document, doc! { "$set": { "revision.step": RevisionStep::Clearing } }, now).await?;
            }
            RevisionStep::Clearing => {
                let units = revision.takes.iter().chain(&revision.gives_back);
                run_all(units.map(|units| clear(db, id, revision.number, units)).collect()).await?;
                let last = LastRevision { number: revision.number, refusal: None };
                advance(db, &document, ended(&last), now).await?;
            }
            RevisionStep::Undoing => {
                run_all(revision.takes.iter().map(|units| undo(db, id, revision.number, units, now)).collect()).await?;
                let last = LastRevision { number: revision.number, refusal: revision.refusal.clone() };
                advance(db, &document, ended(&last), now).await?;
            }
        }
        current = find(db, domain_id(id)).await?;
    }
    Ok(())
}

/// Units of `product` that the unfinished revision of a reservation owns beside its lines.
pub(super) fn units_beside_lines(document: &ReservationDocument, id: bson::Uuid, product: Option<&Stock>) -> i64 {
    let Some(revision) = &document.revision else { return 0 };
    let units = |of: &[UnitsDocument]| of.iter().filter(|units| units.product_id == id).map(|units| units.units).sum::<i64>();
    let has = |entry: String| product.is_some_and(|product| product.revising.contains(&entry));
    match revision.step {
        RevisionStep::Taking | RevisionStep::Undoing if has(taken(document.id, revision.number)) => units(&revision.takes),
        RevisionStep::GivingBack if !has(given_back(document.id, revision.number)) => units(&revision.gives_back),
        _ => 0,
    }
}

fn outcome(last: LastRevision, document: ReservationDocument, repeated: &Revision) -> Result<ReviseOutcome, Error> {
    if last.number > repeated.number {
        return Ok(ReviseOutcome::Superseded);
    }
    if let Some(refusal) = last.refusal {
        let reason = Refusal::parse(&refusal.reason).ok_or_else(|| Error::Corrupt(format!("unknown refusal {}", refusal.reason)))?;
        return Ok(ReviseOutcome::Refused { reason, product_id: domain_id(refusal.product_id) });
    }
    let id = document.id;
    let reservation = document.into_reservation()?.ok_or_else(|| Error::Corrupt(format!("reservation {id} is unfinished")))?;
    Ok(if reservation.has_lines(&repeated.lines) { ReviseOutcome::Revised(reservation) } else { ReviseOutcome::DifferentLines })
}

/// Begins a revision, or refuses it by the stock that was read.
async fn begin(db: &Collections, document: ReservationDocument, revision: &Revision, now: OffsetDateTime) -> Result<(), Error> {
    let current: Vec<HeldLine> = document.lines.iter().cloned().map(HeldLine::from).collect();
    let differences = revision.differences(&current);
    let stock = load_stock(db, differences.iter().map(|difference| bson_id(difference.product_id))).await?;
    let stock: HashMap<Uuid, ProductStock> = stock.iter().map(|product| (domain_id(product.id), product.product_stock())).collect();
    let change = match revision.evaluate(&current, &stock) {
        Ok(lines) => {
            let units = |sign: i64| {
                let units = differences.iter().filter(|difference| difference.units.signum() == sign);
                units
                    .map(|difference| UnitsDocument { product_id: bson_id(difference.product_id), units: difference.units.abs() })
                    .collect()
            };
            let begun = RevisionDocument {
                number: revision.number,
                step: RevisionStep::Taking,
                lines: lines.iter().map(LineDocument::from).collect(),
                takes: units(1),
                gives_back: units(-1),
                refusal: None,
            };
            doc! { "$set": { "revision": encode(&begun)? } }
        }
        Err((reason, product_id)) => {
            let refusal = RefusalDocument::new(reason, bson_id(product_id));
            doc! { "$set": { "lastRevision": encode(&LastRevision { number: revision.number, refusal: Some(refusal) })? } }
        }
    };
    let mut unrevised =
        doc! { "_id": document.id, "state": Phase::Confirmed, "fulfilment": { "$exists": false }, "revision": { "$exists": false } };
    match document.last_revision {
        Some(last) => unrevised.insert("lastRevision.number", last.number),
        None => unrevised.insert("lastRevision", doc! { "$exists": false }),
    };
    update(db, unrevised, change, now).await
}

/// TAKING → `GIVING_BACK` with the new lines, or → UNDOING.
async fn take_units(
    db: &Collections,
    document: &ReservationDocument,
    revision: &RevisionDocument,
    now: OffsetDateTime,
) -> Result<(), Error> {
    let mut refusal = None;
    // Changed by a replica of the previous release, which knows no revisions.
    let is_confirmed = document.state == Phase::Confirmed && document.fulfilment.is_none();
    if is_confirmed {
        let outcomes = run_all(revision.takes.iter().map(|units| take(db, document.id, revision.number, units, now)).collect()).await?;
        if outcomes.contains(&TakeOutcome::Stopped) {
            return Ok(());
        }
        let refused = revision.takes.iter().zip(&outcomes).find_map(|(units, outcome)| match outcome {
            TakeOutcome::Refused(reason) => Some(RefusalDocument::new(*reason, units.product_id)),
            TakeOutcome::Taken | TakeOutcome::Stopped => None,
        });
        let Some(refused) = refused else {
            let lines: Vec<Bson> = revision.lines.iter().map(encode).collect::<Result<_, _>>()?;
            let change = doc! { "$set": { "lines": lines, "revision.step": RevisionStep::GivingBack } };
            return advance(db, document, change, now).await;
        };
        refusal = Some(refused);
    }
    let refusal =
        refusal.or_else(|| revision.takes.first().map(|units| RefusalDocument::new(Refusal::InsufficientStock, units.product_id)));
    let mut change = doc! { "revision.step": RevisionStep::Undoing };
    if let Some(refusal) = refusal {
        change.insert("revision.refusal", encode(&refusal)?);
    }
    advance(db, document, doc! { "$set": change }, now).await
}

/// Takes units that are missing, unless that was done.
async fn take(
    db: &Collections,
    reservation: bson::Uuid,
    number: i64,
    units: &UnitsDocument,
    now: OffsetDateTime,
) -> Result<TakeOutcome, Error> {
    let entry = taken(reservation, number);
    loop {
        let Some(product) = stock_marks::find(db, units.product_id).await? else {
            return Ok(TakeOutcome::Refused(Refusal::UnknownProduct));
        };
        if product.revising.contains(&entry) {
            return Ok(TakeOutcome::Taken);
        }
        if !is_in_step(db, reservation, number, RevisionStep::Taking).await? {
            return Ok(TakeOutcome::Stopped);
        }
        if let Some(refusal) = product.product_stock().refusal_for(units.units) {
            return Ok(TakeOutcome::Refused(refusal));
        }
        let mut available = guard(&product, &entry);
        available.extend(doc! { "isActive": true, "quantity": { "$gte": units.units } });
        if db.stock.update_one(available, move_units(-units.units, &entry, now)).await?.matched_count == 1 {
            return Ok(TakeOutcome::Taken);
        }
    }
}

/// Gives back units that are left over, unless that was done.
async fn give_back(
    db: &Collections,
    reservation: bson::Uuid,
    number: i64,
    units: &UnitsDocument,
    now: OffsetDateTime,
) -> Result<(), Error> {
    let entry = given_back(reservation, number);
    loop {
        // A product is removed only if none of its units is taken.
        let Some(product) = stock_marks::find(db, units.product_id).await? else { return Ok(()) };
        if product.revising.contains(&entry) || !is_in_step(db, reservation, number, RevisionStep::GivingBack).await? {
            return Ok(());
        }
        if db.stock.update_one(guard(&product, &entry), move_units(units.units, &entry, now)).await?.matched_count == 1 {
            return Ok(());
        }
    }
}

/// Gives back units that were taken, and stops a late take by the new epoch.
async fn undo(db: &Collections, reservation: bson::Uuid, number: i64, units: &UnitsDocument, now: OffsetDateTime) -> Result<(), Error> {
    let entry = taken(reservation, number);
    let was_taken = doc! { "_id": units.product_id, "revising": &entry };
    let change = doc! {
        "$inc": { "quantity": units.units, "taken": -units.units, "version": 1_i64, "epoch": 1_i64 },
        "$pull": { "revising": &entry },
        "$set": { "updatedAt": bson_time(now) },
        "$min": outbox::change_marker(now),
    };
    if db.stock.update_one(was_taken, change).await?.matched_count == 0 {
        db.stock.update_one(doc! { "_id": units.product_id }, doc! { "$inc": { "epoch": 1_i64 } }).await?;
        // Taken between the two updates.
        let product = stock_marks::find(db, units.product_id).await?;
        if product.is_some_and(|product| product.revising.contains(&entry)) {
            return Box::pin(undo(db, reservation, number, units, now)).await;
        }
    }
    Ok(())
}

/// Removes the entries of a revision from a product.
async fn clear(db: &Collections, reservation: bson::Uuid, number: i64, units: &UnitsDocument) -> Result<(), Error> {
    let entries = [taken(reservation, number), given_back(reservation, number)];
    let listed = doc! { "_id": units.product_id, "revising": { "$in": &entries } };
    let change = doc! { "$pull": { "revising": { "$in": &entries } }, "$inc": { "epoch": 1_i64 } };
    db.stock.update_one(listed, change).await?;
    Ok(())
}

/// Changes the reservation if its revision is in the same step, else does nothing: the caller reads
/// it again. The new lines need a confirmed reservation.
async fn advance(db: &Collections, document: &ReservationDocument, change: Document, now: OffsetDateTime) -> Result<(), Error> {
    let Some(revision) = &document.revision else { return Ok(()) };
    let mut unchanged = doc! { "_id": document.id, "revision.number": revision.number, "revision.step": revision.step };
    if revision.step == RevisionStep::Taking {
        unchanged.insert("state", document.state);
        unchanged.insert("fulfilment", document.fulfilment.map_or_else(|| doc! { "$exists": false }.into(), Bson::from));
    }
    update(db, unchanged, change, now).await
}

async fn update(db: &Collections, guard: Document, mut change: Document, now: OffsetDateTime) -> Result<(), Error> {
    let mut set = change.get_document("$set").cloned().unwrap_or_default();
    set.insert("updatedAt", bson_time(now));
    change.insert("$set", set);
    db.reservations.update_one(guard, change).await?;
    Ok(())
}

/// The end of a revision.
fn ended(last: &LastRevision) -> Document {
    let mut set = doc! { "lastRevision": { "number": last.number } };
    if let Some(RefusalDocument { reason, product_id }) = &last.refusal {
        set = doc! { "lastRevision": { "number": last.number, "refusal": { "reason": reason, "productId": product_id } } };
    }
    doc! { "$set": set, "$unset": { "revision": "" } }
}

fn guard(product: &Stock, entry: &str) -> Document {
    doc! { "_id": product.id, "epoch": product.epoch, "revising": { "$ne": entry } }
}

fn move_units(units: i64, entry: &str, now: OffsetDateTime) -> Document {
    doc! {
        "$inc": { "quantity": units, "taken": -units, "version": 1_i64 },
        "$push": { "revising": entry },
        "$set": { "updatedAt": bson_time(now) },
        "$min": outbox::change_marker(now),
    }
}

async fn is_in_step(db: &Collections, reservation: bson::Uuid, number: i64, step: RevisionStep) -> Result<bool, Error> {
    let in_step = doc! { "_id": reservation, "revision.number": number, "revision.step": step };
    Ok(db.reservations.find_one(in_step).max_time(MAX_TIME).await?.is_some())
}

fn encode(value: &impl serde::Serialize) -> Result<Bson, Error> {
    bson::serialize_to_bson(value).map_err(|error| Error::Corrupt(error.to_string()))
}

fn taken(reservation: bson::Uuid, number: i64) -> String {
    format!("t:{reservation}:{number}")
}

fn given_back(reservation: bson::Uuid, number: i64) -> String {
    format!("g:{reservation}:{number}")
}

#[cfg(test)]
mod tests;
