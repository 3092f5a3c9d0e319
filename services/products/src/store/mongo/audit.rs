//! Stock audit in MongoDB under concurrent traffic.
//!
//! There is no snapshot across collections, so a product that seems unbalanced is rechecked: read
//! the product, read its reservations twice, read the product again. If nothing changed, the values
//! belong together. If something changes in every recheck, the product is not reported. The
//! reservations are read twice because a state change moves a reservation within the index being
//! scanned: a single scan can miss it.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use mongodb::bson::{self, Bson, Document, doc};
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    collections::{Collections, decode},
    documents::{Phase, ReservationDocument, Stock, bson_time, domain_id},
    ledger, revision,
    stock_marks::MarkState,
};
use crate::store::{
    database::{Error, readable},
    roles::{Audit, Imbalance},
};

/// Number of products whose ledgers are summed at once.
const PAGE: usize = 500;
/// Maximum rechecks of a product that keeps changing.
const MAX_RECHECKS: u32 = 10;

/// Units of one product in the reservations of one state.
#[derive(Debug, Deserialize)]
struct Units {
    #[serde(rename = "_id")]
    of: UnitsOf,
    units: i64,
}

/// Sum of the ledger of one product.
#[derive(Debug, Deserialize)]
struct LedgerUnits {
    #[serde(rename = "_id")]
    product: bson::Uuid,
    units: i64,
}

#[derive(Debug, Deserialize)]
struct UnitsOf {
    product: bson::Uuid,
    state: Phase,
}

/// Checks the balance of every product, see [`Maintenance::audit`](crate::store::Maintenance::audit).
pub(super) async fn audit(db: &Collections, now: OffsetDateTime) -> Result<Audit, Error> {
    let overdue = doc! { "state": Phase::Held, "expiresAt": { "$lte": bson_time(now) } };
    let mut audit = Audit { overdue_holds: db.reservations.count_documents(overdue).await?, ..Audit::default() };
    let mut reserved = reserved_by_product(db, &mut audit).await?;
    let (mut suspects, mut page) = (Vec::new(), Vec::new());
    let mut products = db.stock.clone_with_type::<Document>().find(doc! {}).projection(Collections::stock_fields()).await?;
    while let Some(document) = products.try_next().await? {
        let id = document.get("_id").cloned();
        let Some(product) = readable("products", decode::<Stock>(document)) else {
            audit.unreadable += 1;
            // Its reservations are not those of a missing product.
            reserved.retain(|product, _| Some(Bson::from(*product)) != id);
            continue;
        };
        audit.products_checked += 1;
        audit.available_units = audit.available_units.saturating_add(product.quantity);
        audit.out_of_stock_products += u64::from(product.quantity == 0);
        let reserved = reserved.remove(&product.id).unwrap_or_default();
        page.push((product, reserved));
        if page.len() == PAGE {
            suspects.extend(unbalanced(db, std::mem::take(&mut page)).await?);
        }
    }
    suspects.extend(unbalanced(db, page).await?);
    // Reserved units of a missing product are a violation too.
    suspects.extend(reserved.into_keys());
    for product in suspects {
        audit.violations.extend(recheck(db, product, &mut audit.unreadable).await?);
    }
    Ok(audit)
}

/// Returns the products of a page that seem unbalanced.
async fn unbalanced(db: &Collections, page: Vec<(Stock, i64)>) -> Result<Vec<bson::Uuid>, Error> {
    let ids: Vec<bson::Uuid> = page.iter().map(|(product, _)| product.id).collect();
    let pipeline =
        [doc! { "$match": { "productId": { "$in": ids } } }, doc! { "$group": { "_id": "$productId", "units": { "$sum": "$delta" } } }];
    let sums = db.ledger.aggregate(pipeline).with_type::<LedgerUnits>().await?;
    let mut sums: HashMap<bson::Uuid, i64> = sums.map_ok(|sum| (sum.product, sum.units)).try_collect().await?;
    let seems_unbalanced = |(product, reserved): (Stock, i64)| {
        let pending: i64 = product.pending_ledger.iter().filter(|entry| !entry.refused).map(|entry| entry.delta).sum();
        let settled = sums.remove(&product.id).unwrap_or_default();
        balance(&product, reserved, settled.saturating_add(pending)).check().map(|_| product.id)
    };
    Ok(page.into_iter().filter_map(seems_unbalanced).collect())
}

/// Returns the units in held and confirmed reservations by product and adds their sums to `audit`.
async fn reserved_by_product(db: &Collections, audit: &mut Audit) -> Result<HashMap<bson::Uuid, i64>, Error> {
    let pipeline = [
        doc! { "$match": { "state": { "$in": [Phase::Held, Phase::Confirmed] } } },
        doc! { "$unwind": "$lines" },
        doc! { "$group": { "_id": { "product": "$lines.productId", "state": "$state" }, "units": { "$sum": "$lines.quantity" } } },
    ];
    let mut reserved = HashMap::new();
    let mut groups = db.reservations.aggregate(pipeline).with_type::<Document>().await?;
    while let Some(group) = groups.try_next().await? {
        let Some(Units { of, units }) = readable("reservations", decode(group)) else {
            audit.unreadable += 1;
            continue;
        };
        *reserved.entry(of.product).or_default() += units;
        match of.state {
            Phase::Held => audit.held_units += units,
            _ => audit.confirmed_units += units,
        }
    }
    Ok(reserved)
}

/// A product with an unreadable reservation cannot be judged; it is added to `unreadable`.
async fn recheck(db: &Collections, id: bson::Uuid, unreadable: &mut u64) -> Result<Option<Imbalance>, Error> {
    for _ in 0..MAX_RECHECKS {
        let before = db.stock.find_one(doc! { "_id": id }).projection(Collections::stock_fields()).await?;
        let Some(reserved) = reserved_now(db, id, before.as_ref()).await? else {
            *unreadable += 1;
            return Ok(None);
        };
        let second_read = reserved_now(db, id, before.as_ref()).await?;
        let pending = before.as_ref().map_or(&[][..], |product| &product.pending_ledger);
        let settled = ledger::settled_units(db, id, pending).await?;
        let pending: i64 = pending.iter().filter(|entry| !entry.refused).map(|entry| entry.delta).sum();
        let after = db.stock.find_one(doc! { "_id": id }).projection(Collections::stock_fields()).await?;
        if before == after && second_read == Some(reserved) {
            return Ok(match before {
                Some(product) => balance(&product, reserved, settled.saturating_add(pending)).check(),
                None => Imbalance { product_id: domain_id(id), supply: 0, quantity: 0, taken: 0, reserved, ledger: 0 }.check(),
            });
        }
    }
    Ok(None)
}

/// Returns the units of `product` owned by its reservations, unfinished ones included, according
/// to the product's marks. `None` if a reservation is unreadable.
async fn reserved_now(db: &Collections, id: bson::Uuid, product: Option<&Stock>) -> Result<Option<i64>, Error> {
    let active = [Phase::Reserving, Phase::Held, Phase::Confirmed, Phase::Undoing];
    let concerned = ["lines.productId", "revision.takes.productId", "revision.givesBack.productId"].map(|field| doc! { field: id });
    // An unfinished revision may have units of a reservation that has ended.
    let active = doc! { "$or": [{ "state": { "$in": active.to_vec() } }, { "revision": { "$exists": true } }] };
    let reservations = db.reservations.clone_with_type::<Document>();
    let mut reservations = reservations.find(doc! { "$and": [active, { "$or": concerned.to_vec() }] }).await?;
    let mut units = 0;
    while let Some(reservation) = reservations.try_next().await? {
        let Some(reservation) = readable("reservations", decode::<ReservationDocument>(reservation)) else { return Ok(None) };
        units += revision::units_beside_lines(&reservation, id, product);
        if owns_units(&reservation, product) {
            units += reservation.lines.iter().filter(|line| line.product_id == id).map(|line| line.quantity).sum::<i64>();
        }
    }
    Ok(Some(units))
}

fn owns_units(reservation: &ReservationDocument, product: Option<&Stock>) -> bool {
    let MarkState { taken, given_back } =
        product.map_or(MarkState { taken: false, given_back: false }, |product| MarkState::of(reservation.id, product));
    match reservation.state {
        // A fulfilment under way has taken the units off this product already.
        Phase::Held | Phase::Confirmed => !product.is_some_and(|product| product.fulfilling.contains(&reservation.id)),
        // A product that was removed meanwhile holds nothing.
        Phase::Undoing if reservation.undo.is_some_and(|undo| undo.all_lines_taken) => product.is_some() && !given_back,
        Phase::Reserving | Phase::Undoing => taken && !given_back,
        Phase::Refused | Phase::Released | Phase::Expired => false,
    }
}

/// Returns the balance of a product whose ledger adds up to `ledger`. A change by a replica of a
/// release without a ledger is missing there until it is reconciled, which is no violation.
fn balance(product: &Stock, reserved: i64, ledger: i64) -> Imbalance {
    let Stock { supply, quantity, taken, booked, .. } = *product;
    let ledger = ledger.saturating_add(supply.saturating_sub(booked));
    Imbalance { product_id: domain_id(product.id), supply, quantity, taken, reserved, ledger }
}
