//! Fulfilment of a confirmed reservation: takes its units off the supply of each product, once.
//!
//! ```text
//! CONFIRMED ──▶ CONFIRMED, APPLYING ──▶ RELEASED, CLEARING ──▶ RELEASED, DONE
//! ```
//!
//! Each arrow is one compare-and-set of the reservation. While it is APPLYING, each product is
//! changed by one guarded update that adds the reservation to the product's `fulfilling` list.
//! While it is CLEARING, it is removed from these lists, which raises the product's epoch.
//!
//! An executor reads the epoch of a product, then checks that the reservation is APPLYING, then
//! changes the product only if the epoch is unchanged and the reservation is not in the list. The
//! reservation leaves the list only after it has left APPLYING, and with a new epoch. Hence an
//! executor that was suspended for any time cannot take the units off again.
//!
//! A crash leaves a fulfilment half done; the next call finishes it. The states are those of the
//! previous release, whose replicas see a confirmed and later a released reservation.

use mongodb::bson::{self, Document, doc};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    collections::Collections,
    documents::{Fulfilment, LineDocument, Phase, ReservationDocument, bson_time, domain_id},
    ledger,
    reservations::find,
    revision,
    stock_marks::{self, run_all},
};
use crate::{
    reservation::{FulfilOutcome, Reservation},
    stock_ledger::{Kind, NewEntry},
    store::database::Error,
};

pub(super) async fn fulfil(db: &Collections, id: Uuid, now: OffsetDateTime) -> Result<FulfilOutcome, Error> {
    loop {
        let Some(document) = find(db, id).await? else { return Ok(FulfilOutcome::Unknown) };
        match (document.state, document.fulfilment) {
            _ if document.revision.is_some() => revision::finish(db, &document, now).await?,
            (Phase::Confirmed, None) => change(db, &document, doc! { "fulfilment": Fulfilment::Applying }, now).await?,
            (Phase::Confirmed, Some(Fulfilment::Applying)) => {
                run_all(document.lines.iter().map(|line| apply(db, document.id, line, now)).collect()).await?;
                change(db, &document, doc! { "state": Phase::Released, "fulfilment": Fulfilment::Clearing }, now).await?;
            }
            (Phase::Released, Some(Fulfilment::Clearing)) => {
                run_all(document.lines.iter().map(|line| clear(db, document.id, line)).collect()).await?;
                change(db, &document, doc! { "fulfilment": Fulfilment::Done }, now).await?;
            }
            // Unfinished or never confirmed.
            _ => return Ok(document.into_reservation()?.map_or(FulfilOutcome::NotConfirmed, Reservation::fulfil_outcome)),
        }
    }
}

/// Finishes a fulfilment that was begun, before any other change of the reservation.
pub(super) async fn finish(db: &Collections, document: &ReservationDocument, now: OffsetDateTime) -> Result<(), Error> {
    fulfil(db, domain_id(document.id), now).await.map(drop)
}

/// Takes the units of `line` off the supply, unless that was done.
async fn apply(db: &Collections, reservation: bson::Uuid, line: &LineDocument, now: OffsetDateTime) -> Result<(), Error> {
    let order_id = Some(domain_id(reservation));
    let entry = NewEntry { order_id, ..NewEntry::new(domain_id(line.product_id), Kind::Fulfilment, now) };
    loop {
        // A product is removed only if none of its units is taken.
        let Some(product) = stock_marks::find(db, line.product_id).await? else { return Ok(()) };
        if product.fulfilling.contains(&reservation) || !is_applying(db, reservation).await? {
            return Ok(());
        }
        let unapplied = doc! { "_id": line.product_id, "epoch": product.epoch, "fulfilling": { "$ne": reservation } };
        let units = -line.quantity;
        // No visible field changes: neither the version nor the outbox.
        let mut change = doc! {
            "taken": { "$add": ["$taken", units] },
            "supply": { "$add": ["$supply", units] },
            "fulfilling": { "$concatArrays": [{ "$ifNull": ["$fulfilling", []] }, [reservation]] },
        };
        change.extend(ledger::record(&entry, None, &units.into(), &"$quantity".into()));
        if db.stock.update_one(unapplied, vec![doc! { "$set": change }]).await?.matched_count == 1 {
            return Ok(());
        }
    }
}

/// Removes the reservation from the product's list, and moves its entry to the ledger.
async fn clear(db: &Collections, reservation: bson::Uuid, line: &LineDocument) -> Result<(), Error> {
    let listed = doc! { "_id": line.product_id, "fulfilling": reservation };
    db.stock.update_one(listed, doc! { "$pull": { "fulfilling": reservation }, "$inc": { "epoch": 1_i64 } }).await?;
    ledger::flush(db, line.product_id).await;
    Ok(())
}

async fn is_applying(db: &Collections, reservation: bson::Uuid) -> Result<bool, Error> {
    let applying = doc! { "_id": reservation, "state": Phase::Confirmed, "fulfilment": Fulfilment::Applying };
    Ok(db.reservations.find_one(applying).await?.is_some())
}

/// Changes the reservation if it is unchanged, else does nothing: the caller reads it again.
async fn change(db: &Collections, document: &ReservationDocument, mut change: Document, now: OffsetDateTime) -> Result<(), Error> {
    let mut unchanged = doc! { "_id": document.id, "state": document.state };
    match document.fulfilment {
        Some(fulfilment) => unchanged.insert("fulfilment", fulfilment),
        None => unchanged.insert("fulfilment", doc! { "$exists": false }),
    };
    unchanged.insert("revision", doc! { "$exists": false });
    change.insert("updatedAt", bson_time(now));
    db.reservations.update_one(unchanged, doc! { "$set": change }).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
