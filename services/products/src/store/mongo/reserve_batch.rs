//! Reserves a batch of reservations: each command does one step of all of them.
//!
//! The steps and their order are those of one reservation, see [`super::reservations`]. Units of a
//! product that several reservations want are taken by one update: a product in demand costs one
//! write per batch. A reservation that needs anything else takes its steps alone: its id exists, a
//! product cannot be read, or another process changed a product meanwhile.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use mongodb::{
    bson::{self, doc},
    error::{Error as DriverError, ErrorKind},
};
use palisade_middleware::{
    clock,
    group_commit::{BatchError, BatchResult, BatchWriter},
};
use time::OffsetDateTime;
use tracing::debug;
use uuid::Uuid;

use super::{
    collections::{Collections, DUPLICATE_KEY},
    documents::{Phase, ReservationDocument, bson_id, bson_time, domain_id},
    reservations::{complete, finished, reserve},
    stock_marks::{ReadStock, Take, epochs, prune_all, read_stock, take_all},
};
use crate::{
    reservation::{Lines, ProductStock, Reservation, State},
    store::database::Error,
};

/// Maximum number of reservations finished concurrently.
const CONCURRENCY: usize = 8;

/// Writer of batches of reservations.
#[derive(Debug)]
pub(super) struct ReserveWriter {
    pub(super) collections: Arc<Collections>,
}

/// Reservation to make.
#[derive(Debug)]
pub(super) struct NewReservation {
    pub(super) id: Uuid,
    pub(super) lines: Lines,
    /// State of the new reservation: HELD or CONFIRMED.
    pub(super) then: Phase,
    pub(super) now: OffsetDateTime,
    pub(super) hold_for: Duration,
}

/// Position in the batch, and its reservation.
type Numbered<'a> = (usize, &'a NewReservation);

/// Reservation whose outcome is decided by the stock that was read.
struct Member<'a> {
    n: usize,
    new: &'a NewReservation,
    document: ReservationDocument,
}

/// Reservation that is not finished with the others.
enum Rest<'a> {
    /// Its id exists.
    Existing(Member<'a>),
    /// It was inserted. Its other steps may be done or not.
    Steps(Member<'a>),
    /// Nothing is done.
    All(Numbered<'a>),
}

impl BatchWriter for ReserveWriter {
    type Item = NewReservation;
    type Output = Reservation;
    type Error = Error;

    async fn write(&self, items: &[NewReservation]) -> BatchResult<Self> {
        let mut results: Vec<Option<Result<Reservation, Error>>> = items.iter().map(|_| None).collect();
        loop {
            let open: Vec<Numbered<'_>> = items.iter().enumerate().filter(|(n, _)| results[*n].is_none()).collect();
            if open.is_empty() {
                return Ok(results.into_iter().flatten().collect());
            }
            match self.write_round(&open).await {
                Ok(decided) => decided.into_iter().for_each(|(n, result)| results[n] = Some(result)),
                Err(error) => open.into_iter().for_each(|(n, _)| results[n] = Some(Err(error.copy()))),
            }
        }
    }
}

impl ReserveWriter {
    /// Makes the first of `open` and all others that do not depend on the outcome of an earlier
    /// one. Returns their results.
    async fn write_round(&self, open: &[Numbered<'_>]) -> Result<Vec<(usize, Result<Reservation, Error>)>, Error> {
        let db = &*self.collections;
        // Read the stock before the reservations exist: the epochs must be older than their
        // RESERVING state.
        let products: HashSet<Uuid> = open.iter().flat_map(|(_, new)| new.lines.as_slice()).map(|line| line.product_id).collect();
        let stock = read_stock(db, products.into_iter().map(bson_id)).await?;
        let (members, unreadable) = admit(open, &stock);
        let existing = insert_all(db, &members).await?;
        let epochs = epochs(&stock.products);
        let (mut results, mut admitted, mut alone) = (Vec::new(), Vec::new(), Vec::new());
        alone.extend(unreadable.into_iter().map(Rest::All));
        for (position, member) in members.into_iter().enumerate() {
            if existing.contains(&position) {
                alone.push(Rest::Existing(member));
            } else if member.document.state == Phase::Reserving {
                admitted.push(member);
            } else {
                results.push((member.n, member.reservation_in(member.document.state)));
            }
        }
        if hold_all(db, &admitted, &epochs).await {
            results.extend(admitted.into_iter().map(|member| (member.n, member.reservation_in(member.new.then))));
        } else {
            alone.extend(admitted.into_iter().map(Rest::Steps));
        }
        let mut work = Vec::with_capacity(alone.len());
        for rest in alone {
            work.push(rest.run(db, &epochs));
        }
        let finished: Vec<_> = stream::iter(work).buffered(CONCURRENCY).collect().await;
        results.extend(finished);
        prune_all(db, &stock.products).await;
        Ok(results)
    }
}

impl Member<'_> {
    fn reservation_in(&self, state: Phase) -> Result<Reservation, Error> {
        let reservation = ReservationDocument { state, ..self.document.clone() }.into_reservation()?;
        reservation.ok_or_else(|| Error::Corrupt(format!("reservation {} is unfinished", self.new.id)))
    }
}

impl Rest<'_> {
    async fn run(self, db: &Collections, epochs: &HashMap<bson::Uuid, i64>) -> (usize, Result<Reservation, Error>) {
        match self {
            Self::Existing(Member { n, new, .. }) => (n, finished(db, new.id, new.now).await),
            Self::Steps(Member { n, new, document }) => (n, complete(db, &document, epochs, new.then, new.now).await),
            Self::All((n, new)) => (n, reserve(db, new.id, &new.lines, new.then, (new.now, new.hold_for)).await),
        }
    }
}

/// Decides the reservations of `open` in order. Returns the decided ones, and those of unreadable
/// products.
///
/// Left out, for the next round: a repeated id, and a reservation that could be made but for the
/// units of earlier ones, which may yet fail.
fn admit<'a>(open: &[Numbered<'a>], read: &ReadStock) -> (Vec<Member<'a>>, Vec<Numbered<'a>>) {
    let stock: HashMap<Uuid, ProductStock> = read.products.iter().map(|product| (domain_id(product.id), product.product_stock())).collect();
    let mut left: HashMap<Uuid, i64> = stock.iter().map(|(id, product)| (*id, product.quantity)).collect();
    let (mut members, mut unreadable, mut ids) = (Vec::new(), Vec::new(), HashSet::new());
    for &(n, new) in open {
        if !ids.insert(new.id) {
            continue;
        }
        let lines = new.lines.as_slice();
        if lines.iter().any(|line| read.unreadable.contains_key(&bson_id(line.product_id))) {
            unreadable.push((n, new));
            continue;
        }
        let (state, held) = new.lines.evaluate(&stock);
        if state == State::Held {
            if lines.iter().any(|line| left.get(&line.product_id).is_none_or(|left| *left < line.quantity)) {
                continue;
            }
            for line in lines {
                left.entry(line.product_id).and_modify(|left| *left -= line.quantity);
            }
        }
        let reservation = Reservation { id: new.id, state, lines: held, expires_at: clock::after(new.now, new.hold_for) };
        members.push(Member { n, new, document: ReservationDocument::new(&reservation, new.now) });
    }
    (members, unreadable)
}

/// Inserts the reservations. Returns the positions of those whose ids exist.
async fn insert_all(db: &Collections, members: &[Member<'_>]) -> Result<HashSet<usize>, Error> {
    if members.is_empty() {
        return Ok(HashSet::new());
    }
    let inserted = db.reservations.insert_many(members.iter().map(|member| &member.document)).ordered(false).await;
    match inserted {
        Ok(_) => Ok(HashSet::new()),
        Err(error) => duplicates(&error).ok_or_else(|| error.into()),
    }
}

/// Returns the positions of the documents whose `_id` exists if nothing else failed.
pub(super) fn duplicates(error: &DriverError) -> Option<HashSet<usize>> {
    let ErrorKind::InsertMany(failures) = &*error.kind else { return None };
    let errors = failures.write_errors.as_deref().unwrap_or_default();
    let is_only_duplicates = failures.write_concern_error.is_none() && errors.iter().all(|error| error.code == DUPLICATE_KEY);
    is_only_duplicates.then(|| errors.iter().map(|error| error.index).collect())
}

/// Takes the units of all `members` and sets their final states. Returns `false` if any step was
/// not certainly done; each step can be repeated.
async fn hold_all(db: &Collections, members: &[Member<'_>], epochs: &HashMap<bson::Uuid, i64>) -> bool {
    if members.is_empty() {
        return true;
    }
    let held = async { Ok::<_, Error>(take_units(db, members, epochs).await? && set_states(db, members).await?) };
    held.await.unwrap_or_else(|error| {
        debug!(error = &error as &dyn std::error::Error, "a batch of reservations failed, each is finished alone");
        false
    })
}

async fn take_units(db: &Collections, members: &[Member<'_>], epochs: &HashMap<bson::Uuid, i64>) -> Result<bool, Error> {
    let mut takes: BTreeMap<bson::Uuid, Take> = BTreeMap::new();
    let mut now = OffsetDateTime::UNIX_EPOCH;
    for Member { new, document, .. } in members {
        now = now.max(new.now);
        for line in &document.lines {
            let Some(epoch) = epochs.get(&line.product_id) else { return Ok(false) };
            takes.entry(line.product_id).or_insert_with(|| Take::new(*epoch)).add(document.id, line.quantity);
        }
    }
    take_all(db, &takes, now).await
}

/// RESERVING → HELD or CONFIRMED. Returns whether all were RESERVING.
async fn set_states(db: &Collections, members: &[Member<'_>]) -> Result<bool, Error> {
    for then in [Phase::Held, Phase::Confirmed] {
        let changed: Vec<_> = members.iter().filter(|member| member.new.then == then).collect();
        let Some(now) = changed.iter().map(|member| member.new.now).max() else { continue };
        let ids: Vec<_> = changed.iter().map(|member| member.document.id).collect();
        let count = ids.len();
        let guard = doc! { "_id": { "$in": ids }, "state": Phase::Reserving, "fulfilment": { "$exists": false } };
        let change = doc! { "$set": { "state": then, "updatedAt": bson_time(now) } };
        if db.reservations.update_many(guard, change).await?.matched_count != count as u64 {
            return Ok(false);
        }
    }
    Ok(true)
}
