//! Reservation state machine: every call in every state.

use std::time::Duration;

use palisade_products::{
    product::{Input, ValidatedProduct},
    reservation::{Confirmed, Refusal, Reservation, ReserveOutcome, State},
    store::{Removed, Updated},
};
use uuid::Uuid;

use crate::fixtures::{HOLD, LATER, START, TestStore, draft, input, lines};

/// History of a reservation of 4 of a product's 10 units.
#[derive(Debug, Clone, Copy)]
enum History {
    Nothing,
    Held,
    Overdue,
    Confirmed,
    Released,
    ReleasedAfterConfirm,
    Tombstone,
    Expired,
    Refused,
}

/// Next call on the reservation.
#[derive(Debug, Clone, Copy)]
enum Call {
    ReserveSame,
    ReserveOther,
    Confirm,
    Release,
    Sweep,
}

/// More than the 10 available units.
const TOO_MANY: i64 = 11;

const CALLS: [Call; 5] = [Call::ReserveSame, Call::ReserveOther, Call::Confirm, Call::Release, Call::Sweep];

/// Outcome of each of [`CALLS`] and the quantity left of the 10 units.
#[rustfmt::skip]
const TABLE: [(History, [&str; 5], [i64; 5]); 9] = [
    (History::Nothing,              ["held",     "held",      "unknown",   "RELEASED", "0"], [ 6,  7, 10, 10, 10]),
    (History::Held,                 ["held",     "different", "confirmed", "RELEASED", "0"], [ 6,  6,  6, 10,  6]),
    (History::Overdue,              ["expired",  "different", "expired",   "RELEASED", "1"], [10, 10, 10, 10, 10]),
    (History::Confirmed,            ["held",     "different", "confirmed", "RELEASED", "0"], [ 6,  6,  6, 10,  6]),
    (History::Released,             ["released", "different", "released",  "RELEASED", "0"], [10, 10, 10, 10, 10]),
    (History::ReleasedAfterConfirm, ["released", "different", "released",  "RELEASED", "0"], [10, 10, 10, 10, 10]),
    (History::Tombstone,            ["released", "released",  "released",  "RELEASED", "0"], [10, 10, 10, 10, 10]),
    (History::Expired,              ["expired",  "different", "expired",   "EXPIRED",  "0"], [10, 10, 10, 10, 10]),
    (History::Refused,              ["refused",  "different", "refused",   "REFUSED",  "0"], [10, 10, 10, 10, 10]),
];

pub(crate) async fn every_call_in_every_state(fresh: TestStore) {
    for (past, answers, lefts) in TABLE {
        for ((call, answer), left) in CALLS.into_iter().zip(answers).zip(lefts) {
            let product = fresh.add_some("Lamp", 10).await;
            let id = set_up(&fresh, product, past).await;
            for repetition in 0..3 {
                // Only the first sweep finds the hold.
                let expected = if matches!(call, Call::Sweep) && repetition > 0 { "0" } else { answer };
                assert_eq!(perform(&fresh, id, product, past, call).await, expected, "{past:?} {call:?} #{repetition}");
                assert_eq!(fresh.available(product).await, left, "{past:?} {call:?} #{repetition}");
            }
            fresh.store.release(id, START).await.unwrap();
        }
    }
    fresh.assert_balanced().await;
}

fn time_of(past: History) -> time::OffsetDateTime {
    if matches!(past, History::Overdue | History::Expired) { START + HOLD } else { START }
}

async fn set_up(fresh: &TestStore, product: Uuid, past: History) -> Uuid {
    let id = Uuid::now_v7();
    let wanted = match past {
        History::Nothing | History::Tombstone => None,
        History::Refused => Some(TOO_MANY),
        _ => Some(4),
    };
    if let Some(quantity) = wanted {
        fresh.reserve(id, &[(product, quantity)]).await;
    }
    match past {
        History::Confirmed | History::ReleasedAfterConfirm => {
            fresh.store.confirm(id, START).await.unwrap();
        }
        History::Expired => assert_eq!(fresh.store.expire_due(START + HOLD, 10).await.unwrap(), 1),
        _ => {}
    }
    if matches!(past, History::Released | History::ReleasedAfterConfirm | History::Tombstone) {
        fresh.store.release(id, START).await.unwrap();
    }
    id
}

async fn perform(fresh: &TestStore, id: Uuid, product: Uuid, past: History, call: Call) -> String {
    let now = time_of(past);
    let same = if matches!(past, History::Refused) { TOO_MANY } else { 4 };
    let name = match call {
        Call::ReserveSame | Call::ReserveOther => {
            let quantity = if matches!(call, Call::ReserveSame) { same } else { 3 };
            match fresh.store.reserve(id, lines(&[(product, quantity)]), now, HOLD).await.unwrap() {
                ReserveOutcome::Held(_) => "held",
                ReserveOutcome::Refused { reason: Refusal::InsufficientStock, product_id } if product_id == product => "refused",
                ReserveOutcome::Refused { .. } => "refused for a different reason",
                ReserveOutcome::DifferentLines => "different",
                ReserveOutcome::Released => "released",
                ReserveOutcome::Expired => "expired",
            }
        }
        Call::Confirm => match fresh.store.confirm(id, now).await.unwrap() {
            Confirmed::Confirmed(reservation) => {
                assert_eq!((reservation.state, reservation.lines[0].quantity), (State::Confirmed, 4));
                "confirmed"
            }
            Confirmed::Released => "released",
            Confirmed::Expired => "expired",
            Confirmed::Refused => "refused",
            Confirmed::Unknown => "unknown",
        },
        Call::Release => fresh.store.release(id, now).await.unwrap().state.as_str(),
        Call::Sweep => return fresh.store.expire_due(now, 10).await.unwrap().to_string(),
    };
    name.to_owned()
}

pub(crate) async fn refused_reservation_takes_nothing_and_is_final(fresh: TestStore) {
    let [plenty, scarce] = [fresh.add_some("Plenty", 10).await, fresh.add_some("Scarce", 1).await];
    let idle = fresh.add(ValidatedProduct::new(Input { is_active: false, ..input("Idle", 10) }).unwrap(), START).await.id;
    let nowhere = Uuid::now_v7();
    for (culprit, reason) in [(scarce, Refusal::InsufficientStock), (idle, Refusal::ProductInactive), (nowhere, Refusal::UnknownProduct)] {
        let id = Uuid::now_v7();
        let expected = ReserveOutcome::Refused { reason, product_id: culprit };
        assert_eq!(fresh.reserve(id, &[(plenty, 2), (culprit, 2)]).await, expected);
        assert_eq!(fresh.available(plenty).await, 10);
        fresh.store.update(culprit, draft("Now there", 100), None, START).await.unwrap();
        assert_eq!(fresh.reserve(id, &[(culprit, 2), (plenty, 2)]).await, expected, "the stored outcome");
    }
    fresh.assert_balanced().await;
}

pub(crate) async fn reserve_copies_names_and_prices(fresh: TestStore) {
    let product = fresh.add_some("Lamp", 10).await;
    let id = fresh.hold(&[(product, 2)]).await;
    fresh
        .store
        .update(product, ValidatedProduct::new(Input { price_minor: 5, ..input("Lantern", 8) }).unwrap(), None, LATER)
        .await
        .unwrap();
    let ReserveOutcome::Held(reservation) = fresh.reserve(id, &[(product, 2)]).await else { panic!("the reservation is held") };
    let Reservation { state, lines, expires_at, .. } = reservation;
    assert_eq!((state, expires_at), (State::Held, START + HOLD));
    assert_eq!((lines.len(), lines[0].name.as_str(), lines[0].unit_price_minor, lines[0].quantity), (1, "Lamp", 1999, 2));
}

pub(crate) async fn stock_changes_increment_the_version(fresh: TestStore) {
    let product = fresh.add_some("Lamp", 10).await;
    let id = fresh.hold(&[(product, 2)]).await;
    assert_eq!((fresh.get(product).await.version, fresh.available(product).await), (2, 8));
    fresh.store.confirm(id, START).await.unwrap();
    assert_eq!(fresh.get(product).await.version, 2, "no public field has changed");
    fresh.store.release(id, LATER).await.unwrap();
    let after = fresh.get(product).await;
    assert_eq!((after.version, after.quantity, after.updated_at), (3, 10, LATER));
}

pub(crate) async fn product_in_use_is_not_removed(fresh: TestStore) {
    let product = fresh.add_some("Lamp", 10).await;
    let held = fresh.hold(&[(product, 2)]).await;
    assert_eq!(fresh.store.remove(product, None, crate::fixtures::LATER).await.unwrap(), Removed::InUse);
    fresh.store.confirm(held, START).await.unwrap();
    assert_eq!(fresh.store.remove(product, None, crate::fixtures::LATER).await.unwrap(), Removed::InUse);
    fresh.store.release(held, START).await.unwrap();
    assert_eq!(fresh.store.remove(product, None, crate::fixtures::LATER).await.unwrap(), Removed::Removed);
    // A settled reservation outlives its product.
    assert_eq!(fresh.store.release(held, LATER).await.unwrap().lines.len(), 1);
    assert_eq!(fresh.store.confirm(held, LATER).await.unwrap(), Confirmed::Released);
    fresh.assert_balanced().await;
}

pub(crate) async fn update_of_quantity_adjusts_the_supply(fresh: TestStore) {
    let product = fresh.add_some("Lamp", 10).await;
    let id = fresh.hold(&[(product, 4)]).await;
    for quantity in [0, 50, 1] {
        let Updated::Updated(updated) = fresh.store.update(product, draft("Lamp", quantity), None, LATER).await.unwrap() else {
            panic!("the product exists")
        };
        assert_eq!(updated.quantity, quantity);
        fresh.assert_balanced().await;
    }
    fresh.store.release(id, LATER).await.unwrap();
    assert_eq!(fresh.available(product).await, 5);
    let audit = fresh.store.audit(LATER).await.unwrap();
    assert_eq!((audit.violations.len(), audit.available_units, audit.held_units, audit.products_checked), (0, 5, 0, 1));
}

pub(crate) async fn open_reservations_are_paginated(fresh: TestStore) {
    let product = fresh.add_some("Lamp", 100).await;
    let mut open = Vec::new();
    for n in 0..9 {
        let id = fresh.hold(&[(product, 1)]).await;
        match n % 3 {
            0 => assert_eq!(fresh.store.release(id, START).await.unwrap().state, State::Released),
            1 => {
                fresh.store.confirm(id, START).await.unwrap();
                open.push((id, State::Confirmed));
            }
            _ => open.push((id, State::Held)),
        }
    }
    fresh.store.release(Uuid::now_v7(), START).await.unwrap();
    fresh.reserve(Uuid::now_v7(), &[(product, 1_000)]).await;
    let mut listed = Vec::new();
    loop {
        let after = listed.last().map(|(id, _)| *id);
        let page = fresh.store.list_reservations(after, 4).await.unwrap();
        listed.extend(page.iter().map(|reservation| (reservation.id, reservation.state)));
        assert!(page.iter().all(|reservation| reservation.lines.len() == 1));
        if page.len() < 4 {
            break;
        }
    }
    open.sort_by_key(|(id, _)| *id);
    assert_eq!(listed, open);
    let audit = fresh.store.audit(START + HOLD + Duration::from_secs(1)).await.unwrap();
    assert_eq!((audit.held_units, audit.confirmed_units, audit.available_units, audit.overdue_holds), (3, 3, 94, 3));
}

pub(crate) async fn reservation_of_100_lines_is_atomic(fresh: TestStore) {
    let mut wanted = Vec::new();
    for n in 0..100 {
        wanted.push((fresh.add_some(&format!("Lamp {n}"), 5).await, 3));
    }
    let id = fresh.hold(&wanted).await;
    assert!(matches!(fresh.reserve(Uuid::now_v7(), &wanted).await, ReserveOutcome::Refused { reason: Refusal::InsufficientStock, .. }));
    assert!(matches!(fresh.store.confirm(id, START).await.unwrap(), Confirmed::Confirmed(_)));
    let audit = fresh.store.audit(START).await.unwrap();
    assert_eq!((audit.violations.len(), audit.available_units, audit.confirmed_units), (0, 200, 300));
}
