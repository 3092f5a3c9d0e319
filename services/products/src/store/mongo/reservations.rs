//! Reservations in `MongoDB`: written down, done line by line, settled.
//!
//! ```text
//!           ┌─ all lines taken ─▶ HELD ──▶ CONFIRMED
//! RESERVING ┤                      │          │  release
//!           └─ one cannot be had,  │ expire   │
//!              release, expire     ▼          ▼
//!                        └──────▶ UNDOING ──────▶ REFUSED, RELEASED or EXPIRED
//! ```
//!
//! Each arrow is one compare-and-set of the reservation. Only RESERVING and UNDOING have work left in products, and every function
//! here that meets one of them does that work before it answers. What a crash leaves is finished by the next call or the sweeper.

use std::{collections::HashMap, future::Future, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::{
    bson::{self, Bson, Document, doc},
    options::ReturnDocument,
};
use time::OffsetDateTime;
use tracing::warn;
use uuid::Uuid;

use super::{
    Collections, MAX_TIME,
    documents::{Phase, RefusalDocument, ReservationDocument, Stock, Undo, bson_id, bson_time, domain_id},
    is_duplicate,
    stock_marks::{self, TakeOutcome},
};
use crate::{
    reservation::{Confirmed, Lines, Reservation, ReserveOutcome, State},
    store::Error,
};

/// Lines that are worked on at once.
const LINE_CONCURRENCY: usize = 8;

/// Work on a reservation that was not touched for so long is nobody's any more.
const ABANDONED_AFTER: Duration = Duration::from_secs(5);

pub(super) async fn reserve(db: &Collections, id: Uuid, lines: &Lines, now: OffsetDateTime, hold_for: Duration) -> Result<ReserveOutcome, Error> {
    // Before the reservation exists: the epochs are older than its being RESERVING.
    let stock = load_stock(db, lines.as_slice().iter().map(|line| bson_id(line.product_id))).await?;
    let products = stock.iter().map(|product| (domain_id(product.id), product.product_stock())).collect();
    let (state, held) = lines.evaluate(&products);
    let document = ReservationDocument::new(&Reservation { id, state, lines: held, expires_at: now + hold_for }, now);
    let held = if insert(db, &document).await? && document.state == Phase::Reserving {
        take_lines(db, &document, &epochs(&stock), now).await?
    } else {
        None
    };
    let settled = match held {
        Some(held) if held.expires_at > bson_time(now) => held.settled()?,
        _ => settle(db, id, now).await?,
    };
    let settled = settled.ok_or_else(|| Error::Corrupt(format!("reservation {id} vanished")))?;
    for product in &stock {
        if let Err(error) = stock_marks::prune(db, product).await {
            warn!(error = &error as &dyn std::error::Error, "cannot prune the marks of a product, leaving it to the next reservation");
        }
    }
    Ok(settled.reserve_outcome(lines))
}

pub(super) async fn confirm(db: &Collections, id: Uuid, now: OffsetDateTime) -> Result<Confirmed, Error> {
    let live = doc! { "_id": bson_id(id), "state": Phase::Held, "expiresAt": { "$gt": bson_time(now) } };
    let change = doc! { "$set": { "state": Phase::Confirmed, "updatedAt": bson_time(now) } };
    loop {
        let confirmed = db
            .reservations
            .find_one_and_update(live.clone(), change.clone())
            .return_document(ReturnDocument::After)
            .max_time(MAX_TIME)
            .await?;
        let settled = match confirmed {
            Some(document) => document.settled()?,
            None => settle(db, id, now).await?,
        };
        match settled {
            None => return Ok(Confirmed::Unknown),
            // Somebody finished reserving it just now.
            Some(reservation) if reservation.state == State::Held => {}
            Some(reservation) => return Ok(reservation.confirm_outcome()),
        }
    }
}

pub(super) async fn release(db: &Collections, id: Uuid, now: OffsetDateTime) -> Result<Reservation, Error> {
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
            Phase::Held | Phase::Confirmed => undo(db, &document, Undo { to: Phase::Released, all_lines_taken: true }, None, now).await?,
            Phase::Undoing => finish_undo(db, &document, now).await?,
            Phase::Refused | Phase::Released | Phase::Expired => {
                return document.settled()?.ok_or_else(|| Error::Corrupt(format!("reservation {id} is not settled")));
            }
        }
    }
}

/// One reservation that cannot be finished keeps none of the others waiting.
pub(super) async fn expire_due(db: &Collections, now: OffsetDateTime, limit: u32) -> Result<u32, Error> {
    let due = doc! { "$or": [
        { "state": { "$in": [Phase::Held, Phase::Reserving] }, "expiresAt": { "$lte": bson_time(now) } },
        { "state": Phase::Undoing, "updatedAt": { "$lte": bson_time(now - ABANDONED_AFTER) } },
    ] };
    let due: Vec<ReservationDocument> = db.reservations.find(due).limit(i64::from(limit)).max_time(MAX_TIME).await?.try_collect().await?;
    let (mut finished, mut failed) = (0, None);
    for document in due {
        match settle(db, domain_id(document.id), now).await {
            Ok(_) => finished += 1,
            Err(error) => {
                warn!(reservation_id = %document.id, error = &error as &dyn std::error::Error, "cannot give a reservation back");
                failed = Some(error);
            }
        }
    }
    match failed {
        Some(error) if finished == 0 => Err(error),
        _ => Ok(finished),
    }
}

pub(super) async fn list_open(db: &Collections, after: Option<Uuid>, limit: u32) -> Result<Vec<Reservation>, Error> {
    // The nil id is nobody's: it lies before all others.
    let open = doc! { "state": { "$in": [Phase::Held, Phase::Confirmed] }, "_id": { "$gt": bson_id(after.unwrap_or_default()) } };
    let cursor = db.reservations.find(open).sort(doc! { "_id": 1 }).limit(i64::from(limit)).max_time(MAX_TIME).await?;
    let found: Vec<ReservationDocument> = cursor.try_collect().await?;
    found.into_iter().map(ReservationDocument::settled).filter_map(Result::transpose).collect()
}

/// Does all work that is left on a reservation, and gives it back if it ran out: once an answer says "expired", it is.
async fn settle(db: &Collections, id: Uuid, now: OffsetDateTime) -> Result<Option<Reservation>, Error> {
    loop {
        let Some(document) = find(db, id).await? else { return Ok(None) };
        let overdue = document.expires_at <= bson_time(now);
        match document.state {
            Phase::Reserving if overdue => undo(db, &document, Undo { to: Phase::Expired, all_lines_taken: false }, None, now).await?,
            Phase::Reserving => resume(db, &document, now).await?,
            Phase::Held if overdue => undo(db, &document, Undo { to: Phase::Expired, all_lines_taken: true }, None, now).await?,
            Phase::Undoing => finish_undo(db, &document, now).await?,
            _ => return document.settled(),
        }
    }
}

/// Goes on with what another executor began.
async fn resume(db: &Collections, document: &ReservationDocument, now: OffsetDateTime) -> Result<(), Error> {
    let stock = load_stock(db, document.lines.iter().map(|line| line.product_id)).await?;
    // Epochs first, then a look at the reservation: the order that `marks` asks for.
    match find(db, domain_id(document.id)).await? {
        Some(again) if again.state == Phase::Reserving => take_lines(db, document, &epochs(&stock), now).await.map(drop),
        _ => Ok(()),
    }
}

/// RESERVING → HELD, or → UNDOING when a line cannot be had. What it is now, if this made it HELD.
async fn take_lines(
    db: &Collections,
    document: &ReservationDocument,
    epochs: &HashMap<bson::Uuid, i64>,
    now: OffsetDateTime,
) -> Result<Option<ReservationDocument>, Error> {
    let mut work = Vec::with_capacity(document.lines.len());
    for line in &document.lines {
        work.push(stock_marks::take(db, document.id, line, epochs.get(&line.product_id).copied(), now));
    }
    let outcomes = run_all(work).await?;
    for (line, taking) in document.lines.iter().zip(&outcomes) {
        if let TakeOutcome::Refused(reason) = taking {
            let refusal = RefusalDocument::new(*reason, line.product_id);
            undo(db, document, Undo { to: Phase::Refused, all_lines_taken: false }, Some(refusal), now).await?;
            return Ok(None);
        }
    }
    if outcomes.iter().any(|taking| *taking != TakeOutcome::Taken) {
        return Ok(None);
    }
    // As `move_on`, but what came of it comes back with it: the whole way of most orders has one call less.
    let held = db
        .reservations
        .find_one_and_update(state_guard(document), doc! { "$set": { "state": Phase::Held, "updatedAt": bson_time(now) } })
        .return_document(ReturnDocument::After)
        .await?;
    Ok(held)
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

/// UNDOING → what it was to become.
async fn finish_undo(db: &Collections, document: &ReservationDocument, now: OffsetDateTime) -> Result<(), Error> {
    let Some(undo) = document.undo else {
        return Err(Error::Corrupt(format!("reservation {} does not say what to become", document.id)));
    };
    let mut work = Vec::with_capacity(document.lines.len());
    for line in &document.lines {
        work.push(stock_marks::give_back(db, document.id, line, undo.all_lines_taken, now));
    }
    run_all(work).await?;
    compare_and_set(db, document, doc! { "state": undo.to, "undo": Bson::Null, "updatedAt": bson_time(now) }).await
}

/// The compare-and-set. It does nothing if somebody moved the reservation first: whoever asked looks again.
async fn compare_and_set(db: &Collections, document: &ReservationDocument, change: Document) -> Result<(), Error> {
    db.reservations.update_one(state_guard(document), doc! { "$set": change }).await?;
    Ok(())
}

fn state_guard(document: &ReservationDocument) -> Document {
    doc! { "_id": document.id, "state": document.state }
}

/// Does the work on all lines, some at once. One that fails does not stop the others.
async fn run_all<T>(work: Vec<impl Future<Output = Result<T, Error>>>) -> Result<Vec<T>, Error> {
    let done: Vec<Result<T, Error>> = stream::iter(work).buffered(LINE_CONCURRENCY).collect().await;
    done.into_iter().collect()
}

/// `false` if there is a reservation of this id already.
async fn insert(db: &Collections, document: &ReservationDocument) -> Result<bool, Error> {
    match db.reservations.insert_one(document).await {
        Ok(_) => Ok(true),
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn find(db: &Collections, id: Uuid) -> Result<Option<ReservationDocument>, Error> {
    Ok(db.reservations.find_one(doc! { "_id": bson_id(id) }).max_time(MAX_TIME).await?)
}

async fn load_stock(db: &Collections, products: impl Iterator<Item = bson::Uuid>) -> Result<Vec<Stock>, Error> {
    let ids: Vec<_> = products.collect();
    Ok(db.stock.find(doc! { "_id": { "$in": ids } }).max_time(MAX_TIME).await?.try_collect().await?)
}

fn epochs(stock: &[Stock]) -> HashMap<bson::Uuid, i64> {
    stock.iter().map(|product| (product.id, product.epoch)).collect()
}

#[cfg(test)]
mod tests;
