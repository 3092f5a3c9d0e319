//! Stock marks: fencing of reservation steps. Each step changes one product by one guarded update
//! and leaves a mark in it.
//!
//! `t:<reservation>` records that the units were taken. `g:<reservation>` records that they were
//! given back or, without a `t`, that they must not be taken any more. Marks make every step
//! repeatable, also by several executors at once.
//!
//! Marks of finished reservations, i.e. not RESERVING or UNDOING ones, are pruned. Each prune
//! increments the product's `epoch`. An executor reads the epoch, then checks that the reservation
//! is unfinished, then changes the product only if the epoch is unchanged. While a reservation is
//! unfinished, none of its marks is pruned. A pruned mark therefore means that the reservation was
//! finished after the check, and that the epoch has changed. Hence an executor that was suspended
//! for any time can neither take nor give back units of a finished reservation.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::Future,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::bson::{self, Bson, Document, doc};
use time::OffsetDateTime;
use tracing::warn;

use super::{
    collections::{Collections, MAX_TIME, decode},
    documents::{LineDocument, Phase, Stock, bson_time},
    outbox,
};
use crate::{reservation::Refusal, store::database::Error};

/// A product with more marks is pruned whenever it gets another one. Only the marks of unfinished
/// reservations and of calls in flight are beyond it.
const PRUNE_THRESHOLD: usize = 64;

/// Maximum number of lines processed concurrently.
const LINE_CONCURRENCY: usize = 8;

/// Outcome of taking a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TakeOutcome {
    /// The units are taken, by this or an earlier call.
    Taken,
    /// The units cannot be reserved.
    Refused(Refusal),
    /// The reservation has left `RESERVING`.
    Stopped,
}

/// Marks of one reservation in one product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MarkState {
    pub(super) taken: bool,
    pub(super) given_back: bool,
}

/// Stock of some products.
pub(super) struct ReadStock {
    pub(super) products: Vec<Stock>,
    /// Products that cannot be read.
    pub(super) unreadable: HashMap<bson::Uuid, Error>,
}

impl MarkState {
    pub(super) fn of(reservation: bson::Uuid, product: &Stock) -> Self {
        let has = |mark: String| product.marks.contains(&mark);
        Self { taken: has(taken(reservation)), given_back: has(given_back(reservation)) }
    }
}

/// Takes the units of `line`. `epoch` is the product's epoch, read before the reservation was last
/// seen in `RESERVING`; `None` if it was not read.
pub(super) async fn take(
    db: &Collections,
    reservation: bson::Uuid,
    line: &LineDocument,
    mut epoch: Option<i64>,
    now: OffsetDateTime,
) -> Result<TakeOutcome, Error> {
    loop {
        if let Some(epoch) = epoch {
            let take = Take { epoch, units: line.quantity, marks: vec![taken(reservation)], fences: vec![given_back(reservation)] };
            if db.stock.update_one(take.guard(line.product_id), take.change(now)).await?.matched_count == 1 {
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

/// Units to take from one product for one or more reservations.
#[derive(Debug, Default)]
pub(super) struct Take {
    /// The product's epoch, read before the reservations were last seen in `RESERVING`.
    epoch: i64,
    units: i64,
    /// Marks to leave.
    marks: Vec<String>,
    /// Marks that forbid it, besides `marks`.
    fences: Vec<String>,
}

impl Take {
    /// Creates an empty take.
    pub(super) fn new(epoch: i64) -> Self {
        Self { epoch, ..Self::default() }
    }

    /// Adds the units of a reservation.
    pub(super) fn add(&mut self, reservation: bson::Uuid, units: i64) {
        self.units += units;
        self.marks.push(taken(reservation));
        self.fences.push(given_back(reservation));
    }

    fn guard(&self, product: bson::Uuid) -> Document {
        let marks: Vec<&str> = self.marks.iter().chain(&self.fences).map(String::as_str).collect();
        doc! {
            "_id": product,
            "epoch": self.epoch,
            "isActive": true,
            "quantity": { "$gte": self.units },
            "marks": { "$nin": marks },
        }
    }

    fn change(&self, now: OffsetDateTime) -> Document {
        change(-self.units, self.marks.clone(), now)
    }
}

/// Takes units of several products in one update. Returns whether all of them are taken; if not,
/// some may be.
///
/// One update with a branch per product, not one update per product: a server that commits each
/// update alone would sync the disk for each.
pub(super) async fn take_all(db: &Collections, takes: &BTreeMap<bson::Uuid, Take>, now: OffsetDateTime) -> Result<bool, Error> {
    let guards: Vec<Document> = takes.iter().map(|(product, take)| take.guard(*product)).collect();
    let products: Vec<_> = takes.keys().copied().collect();
    let units: Vec<i64> = takes.values().map(|take| take.units).collect();
    let marks: Vec<&[String]> = takes.values().map(|take| take.marks.as_slice()).collect();
    let of_product = |values: Bson| {
        let position = doc! { "$indexOfArray": [{ "$literal": &products }, "$_id"] };
        doc! { "$arrayElemAt": [{ "$literal": values }, position] }
    };
    let change = doc! { "$set": {
        "quantity": { "$subtract": ["$quantity", of_product(Bson::from(units.clone()))] },
        "taken": { "$add": ["$taken", of_product(Bson::from(units))] },
        "version": { "$add": ["$version", 1_i64] },
        "marks": { "$concatArrays": ["$marks", of_product(Bson::from(marks))] },
        "updatedAt": bson_time(now),
        "news": { "$min": ["$news", bson_time(now)] },
    } };
    let updated = db.stock.update_many(doc! { "$or": guards }, vec![change]).await?;
    Ok(updated.matched_count == takes.len() as u64)
}

/// Gives back the units of `line` exactly once. `all_lines_taken`: see [`super::documents::Undo`].
pub(super) async fn give_back(
    db: &Collections,
    reservation: bson::Uuid,
    line: &LineDocument,
    all_lines_taken: bool,
    now: OffsetDateTime,
) -> Result<(), Error> {
    if all_lines_taken { give_back_held(db, reservation, line, now).await } else { give_back_if_taken(db, reservation, line, now).await }
}

/// For a reservation that was never held: none of its marks is pruned, so they record which lines
/// were taken. A line that was not taken is fenced against a late take.
async fn give_back_if_taken(db: &Collections, reservation: bson::Uuid, line: &LineDocument, now: OffsetDateTime) -> Result<(), Error> {
    let (taken, given_back) = (taken(reservation), given_back(reservation));
    if let Some(product) = find(db, line.product_id).await? {
        prune(db, &product).await?;
    }
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
            // A product is removed only if none of its units is taken.
            None => return Ok(()),
            Some(product) if MarkState::of(reservation, &product).given_back => return Ok(()),
            // Taken concurrently: retry.
            Some(_) => {}
        }
    }
}

/// For a reservation that was held: every line was taken, even if its mark is pruned.
async fn give_back_held(db: &Collections, reservation: bson::Uuid, line: &LineDocument, now: OffsetDateTime) -> Result<(), Error> {
    let mut is_pruned = false;
    loop {
        let Some(product) = find(db, line.product_id).await? else { return Ok(()) };
        if !std::mem::replace(&mut is_pruned, true) && prune(db, &product).await? {
            // The epoch has changed.
            continue;
        }
        if MarkState::of(reservation, &product).given_back || !is_in_phase(db, reservation, Phase::Undoing).await? {
            return Ok(());
        }
        let not_yet = doc! { "_id": line.product_id, "epoch": product.epoch, "marks": { "$ne": given_back(reservation) } };
        if apply(db, not_yet, line.quantity, given_back(reservation), now).await? {
            return Ok(());
        }
    }
}

/// Removes the marks of finished reservations beyond a threshold. Only bounds the size of the
/// document. Returns whether the marks were pruned.
pub(super) async fn prune(db: &Collections, product: &Stock) -> Result<bool, Error> {
    if product.marks.len() <= PRUNE_THRESHOLD {
        return Ok(false);
    }
    let owners: HashSet<bson::Uuid> = product.marks.iter().filter_map(|mark| owner(mark)).collect();
    let unfinished = doc! { "_id": { "$in": owners.iter().collect::<Vec<_>>() }, "state": { "$in": [Phase::Reserving, Phase::Undoing] } };
    let unfinished: HashSet<bson::Uuid> =
        db.reservations.find(unfinished).max_time(MAX_TIME).await?.map_ok(|reservation| reservation.id).try_collect().await?;
    // Prune only the marks that were read: one added since may belong to an unfinished reservation.
    let finished: Vec<_> = product.marks.iter().filter(|mark| owner(mark).is_none_or(|owner| !unfinished.contains(&owner))).collect();
    let unpruned = doc! { "_id": product.id, "epoch": product.epoch };
    db.stock.update_one(unpruned, doc! { "$pull": { "marks": { "$in": finished } }, "$inc": { "epoch": 1_i64 } }).await?;
    Ok(true)
}

pub(super) async fn prune_all(db: &Collections, stock: &[Stock]) {
    for product in stock {
        if let Err(error) = prune(db, product).await {
            warn!(error = &error as &dyn std::error::Error, "pruning of stock marks failed, the next reservation retries");
        }
    }
}

/// Compare-and-set: moves `units` from taken to available in the product that matches `guard`, and
/// adds `mark`.
async fn apply(db: &Collections, guard: Document, units: i64, mark: String, now: OffsetDateTime) -> Result<bool, Error> {
    Ok(db.stock.update_one(guard, change(units, vec![mark], now)).await?.matched_count == 1)
}

fn change(units: i64, marks: Vec<String>, now: OffsetDateTime) -> Document {
    doc! {
        "$inc": { "quantity": units, "taken": -units, "version": 1_i64 },
        "$push": { "marks": { "$each": marks } },
        "$set": { "updatedAt": bson_time(now) },
        "$min": outbox::change_marker(now),
    }
}

/// Runs the steps of all lines with bounded concurrency. A failed step does not stop the others.
pub(super) async fn run_all<T>(work: Vec<impl Future<Output = Result<T, Error>>>) -> Result<Vec<T>, Error> {
    let done: Vec<Result<T, Error>> = stream::iter(work).buffered(LINE_CONCURRENCY).collect().await;
    done.into_iter().collect()
}

pub(super) async fn find(db: &Collections, product: bson::Uuid) -> Result<Option<Stock>, Error> {
    Ok(db.stock.find_one(doc! { "_id": product }).projection(Collections::stock_fields()).max_time(MAX_TIME).await?)
}

/// Reads the stock of products. Fails if one of them cannot be read.
pub(super) async fn load_stock(db: &Collections, products: impl Iterator<Item = bson::Uuid>) -> Result<Vec<Stock>, Error> {
    let ReadStock { products, unreadable } = read_stock(db, products).await?;
    unreadable.into_values().next().map_or(Ok(products), Err)
}

/// Reads the stock of products one by one.
pub(super) async fn read_stock(db: &Collections, products: impl Iterator<Item = bson::Uuid>) -> Result<ReadStock, Error> {
    let ids: Vec<_> = products.collect();
    let stock = db.stock.clone_with_type::<Document>();
    let found = stock.find(doc! { "_id": { "$in": ids } }).projection(Collections::stock_fields()).max_time(MAX_TIME);
    let found: Vec<Document> = found.await?.try_collect().await?;
    let mut read = ReadStock { products: Vec::with_capacity(found.len()), unreadable: HashMap::new() };
    for document in found {
        let id = document.get("_id").and_then(|id| bson::deserialize_from_bson::<bson::Uuid>(id.clone()).ok());
        match (decode::<Stock>(document), id) {
            (Ok(product), _) => read.products.push(product),
            (Err(error), Some(id)) => drop(read.unreadable.insert(id, error)),
            (Err(error), None) => return Err(error),
        }
    }
    Ok(read)
}

pub(super) fn epochs(stock: &[Stock]) -> HashMap<bson::Uuid, i64> {
    stock.iter().map(|product| (product.id, product.epoch)).collect()
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
