//! What one reservation does to one product, each time by one guarded update that leaves a mark in the product.
//!
//! `t:<reservation>` says its units were taken, `g:<reservation>` that they were given back, or (without a `t`) that they must not
//! be taken any more. Marks make every step repeatable, by several executors at once too.
//!
//! Marks of settled reservations are pruned, and every prune moves the product's `epoch`. An executor reads the epoch first, then
//! sees that the reservation is still in work, then changes the product only if the epoch is the same: as long as a reservation is
//! in work none of its marks is pruned, so one that was pruned was settled after that look, and the epoch has moved. Hence an
//! executor that was asleep for any time can neither take nor give back what is settled.

use std::collections::HashSet;

use futures_util::TryStreamExt;
use mongodb::bson::{self, Document, doc};
use time::OffsetDateTime;

use super::{
    Collections, MAX_TIME,
    documents::{LineDocument, Phase, Stock, bson_time},
    outbox,
};
use crate::{reservation::Refusal, store::Error};

/// A product with more marks than this is pruned.
const PRUNE_THRESHOLD: usize = 64;

/// How taking a line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TakeOutcome {
    /// The units are set aside, by this or an earlier call.
    Taken,
    /// They cannot be had.
    Refused(Refusal),
    /// The reservation is no longer being reserved.
    Stopped,
}

/// Marks `product` bears of `reservation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MarkState {
    pub(super) taken: bool,
    pub(super) given_back: bool,
}

impl MarkState {
    pub(super) fn of(reservation: bson::Uuid, product: &Stock) -> Self {
        let has = |mark: String| product.marks.contains(&mark);
        Self { taken: has(taken(reservation)), given_back: has(given_back(reservation)) }
    }
}

/// Takes the units of `line`. `epoch` is the product's, read before the reservation was last seen `RESERVING`; `None` if unread.
pub(super) async fn take(
    db: &Collections,
    reservation: bson::Uuid,
    line: &LineDocument,
    mut epoch: Option<i64>,
    now: OffsetDateTime,
) -> Result<TakeOutcome, Error> {
    loop {
        if let Some(epoch) = epoch {
            let possible = doc! {
                "_id": line.product_id,
                "epoch": epoch,
                "isActive": true,
                "quantity": { "$gte": line.quantity },
                "marks": { "$nin": [taken(reservation), given_back(reservation)] },
            };
            if apply(db, possible, -line.quantity, taken(reservation), now).await? {
                return Ok(TakeOutcome::Taken);
            }
        }
        let Some(product) = find(db, line.product_id).await? else { return Ok(TakeOutcome::Refused(Refusal::UnknownProduct)) };
        match MarkState::of(reservation, &product) {
            MarkState { given_back: true, .. } => return Ok(TakeOutcome::Stopped),
            MarkState { taken: true, .. } => return Ok(TakeOutcome::Taken),
            _ => {}
        }
        if !is_in_phase(db, reservation, Phase::Reserving).await? {
            return Ok(TakeOutcome::Stopped);
        }
        if let Some(refusal) = product.product_stock().refusal_for(line.quantity) {
            return Ok(TakeOutcome::Refused(refusal));
        }
        epoch = Some(product.epoch);
    }
}

/// Gives the units of `line` back, once. `sure` says that every line was taken: see [`super::documents::Undo`].
pub(super) async fn give_back(
    db: &Collections,
    reservation: bson::Uuid,
    line: &LineDocument,
    all_lines_taken: bool,
    now: OffsetDateTime,
) -> Result<(), Error> {
    if all_lines_taken { give_back_held(db, reservation, line, now).await } else { give_back_if_taken(db, reservation, line, now).await }
}

/// For a reservation that was never held: its marks tell what was taken, none was pruned. What was not taken must not be later.
async fn give_back_if_taken(db: &Collections, reservation: bson::Uuid, line: &LineDocument, now: OffsetDateTime) -> Result<(), Error> {
    let (taken, given_back) = (taken(reservation), given_back(reservation));
    loop {
        let was_taken = doc! { "_id": line.product_id, "marks": { "$eq": &taken, "$ne": &given_back } };
        if apply(db, was_taken, line.quantity, given_back.clone(), now).await? {
            return Ok(());
        }
        let untouched = doc! { "_id": line.product_id, "marks": { "$nin": [&taken, &given_back] } };
        if db.stock.update_one(untouched, doc! { "$push": { "marks": &given_back } }).await?.matched_count == 1 {
            return Ok(());
        }
        match find(db, line.product_id).await? {
            // A product is removed only when nothing of it is taken.
            None => return Ok(()),
            Some(product) if MarkState::of(reservation, &product).given_back => return Ok(()),
            // It was taken just now.
            Some(_) => {}
        }
    }
}

/// For a reservation that was held: every line was taken, even where the mark is pruned.
async fn give_back_held(db: &Collections, reservation: bson::Uuid, line: &LineDocument, now: OffsetDateTime) -> Result<(), Error> {
    loop {
        let Some(product) = find(db, line.product_id).await? else { return Ok(()) };
        if MarkState::of(reservation, &product).given_back || !is_in_phase(db, reservation, Phase::Undoing).await? {
            return Ok(());
        }
        let not_yet = doc! { "_id": line.product_id, "epoch": product.epoch, "marks": { "$ne": given_back(reservation) } };
        if apply(db, not_yet, line.quantity, given_back(reservation), now).await? {
            return Ok(());
        }
    }
}

/// Removes the marks of settled reservations where there are many. Nothing depends on it but the size of the document.
pub(super) async fn prune(db: &Collections, product: &Stock) -> Result<(), Error> {
    if product.marks.len() <= PRUNE_THRESHOLD {
        return Ok(());
    }
    let owners: HashSet<bson::Uuid> = product.marks.iter().filter_map(|mark| owner(mark)).collect();
    let unsettled = doc! { "_id": { "$in": owners.iter().collect::<Vec<_>>() }, "state": { "$in": [Phase::Reserving, Phase::Undoing] } };
    let unsettled: HashSet<bson::Uuid> =
        db.reservations.find(unsettled).max_time(MAX_TIME).await?.map_ok(|reservation| reservation.id).try_collect().await?;
    // Of the marks that were read, not of the reservations: a mark that was added since belongs to work that goes on.
    let settled: Vec<_> = product.marks.iter().filter(|mark| owner(mark).is_none_or(|owner| !unsettled.contains(&owner))).collect();
    let unpruned = doc! { "_id": product.id, "epoch": product.epoch };
    db.stock.update_one(unpruned, doc! { "$pull": { "marks": { "$in": settled } }, "$inc": { "epoch": 1_i64 } }).await?;
    Ok(())
}

/// Moves `units` from taken to available in the product that `guard` finds, and leaves `mark`.
async fn apply(db: &Collections, guard: Document, units: i64, mark: String, now: OffsetDateTime) -> Result<bool, Error> {
    let change = doc! {
        "$inc": { "quantity": units, "taken": -units, "version": 1_i64 },
        "$push": { "marks": mark },
        "$set": { "updatedAt": bson_time(now) },
        "$min": outbox::change_marker(now),
    };
    Ok(db.stock.update_one(guard, change).await?.matched_count == 1)
}

async fn find(db: &Collections, product: bson::Uuid) -> Result<Option<Stock>, Error> {
    Ok(db.stock.find_one(doc! { "_id": product }).max_time(MAX_TIME).await?)
}

async fn is_in_phase(db: &Collections, reservation: bson::Uuid, phase: Phase) -> Result<bool, Error> {
    let found = db.reservations.find_one(doc! { "_id": reservation, "state": phase }).max_time(MAX_TIME).await?;
    Ok(found.is_some())
}

fn taken(reservation: bson::Uuid) -> String {
    format!("t:{reservation}")
}

fn given_back(reservation: bson::Uuid) -> String {
    format!("g:{reservation}")
}

fn owner(mark: &str) -> Option<bson::Uuid> {
    let (_, reservation) = mark.split_once(':')?;
    bson::Uuid::parse_str(reservation).ok()
}

#[cfg(test)]
mod tests;
