//! Reservation state machine: every call in every state.

use std::time::Duration;

use futures_util::future::join_all;
use palisade_middleware::preconditions::VersionPreconditions;
use palisade_products::{
    product::{Input, ValidatedProduct},
    reservation::{ConfirmOutcome, Refusal, Reservation, ReserveOutcome, State},
    store::{RemoveOutcome, UpdateOutcome},
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
    Sell,
    SellOther,
    Confirm,
    Release,
    Sweep,
}

/// More than the 10 available units.
const TOO_MANY: i64 = 11;

const CALLS: [Call; 7] = [Call::ReserveSame, Call::ReserveOther, Call::Sell, Call::SellOther, Call::Confirm, Call::Release, Call::Sweep];

/// Outcome of each of [`CALLS`] and the remaining quantity of the 10 units.
#[rustfmt::skip]
const TABLE: [(History, [&str; 7], [i64; 7]); 9] = [
    (History::Nothing, ["held", "held", "sold", "sold", "unknown", "RELEASED", "0"], [6, 7, 6, 7, 10, 10, 10]),
    (History::Held, ["held", "different", "sold", "different", "confirmed", "RELEASED", "0"], [6, 6, 6, 6, 6, 10, 6]),
    (History::Overdue, ["expired", "different", "expired", "different", "expired", "RELEASED", "1"], [10, 10, 10, 10, 10, 10, 10]),
    (History::Confirmed, ["sold", "different", "sold", "different", "confirmed", "RELEASED", "0"], [6, 6, 6, 6, 6, 10, 6]),
    (History::Released, ["released", "different", "released", "different", "released", "RELEASED", "0"], [10, 10, 10, 10, 10, 10, 10]),
    (History::ReleasedAfterConfirm, ["released", "different", "released", "different", "released", "RELEASED", "0"], [10, 10, 10, 10, 10, 10, 10]),
    (History::Tombstone, ["released", "released", "released", "released", "released", "RELEASED", "0"], [10, 10, 10, 10, 10, 10, 10]),
    (History::Expired, ["expired", "different", "expired", "different", "expired", "EXPIRED", "0"], [10, 10, 10, 10, 10, 10, 10]),
    (History::Refused, ["refused", "different", "refused", "different", "refused", "REFUSED", "0"], [10, 10, 10, 10, 10, 10, 10]),
];

pub(crate) async fn every_call_in_every_state(fixture: TestStore) {
    for (past, outcomes, quantities) in TABLE {
        for ((call, outcome), quantity) in CALLS.into_iter().zip(outcomes).zip(quantities) {
            let product = fixture.add_some("Lamp", 10).await;
            let id = set_up(&fixture, product, past).await;
            for repetition in 0..3 {
                // Only the first sweep finds the hold.
                let expected = if matches!(call, Call::Sweep) && repetition > 0 { "0" } else { outcome };
                assert_eq!(perform(&fixture, id, product, past, call).await, expected, "{past:?} {call:?} #{repetition}");
                assert_eq!(fixture.available(product).await, quantity, "{past:?} {call:?} #{repetition}");
            }
            fixture.store.release(id, START).await.unwrap();
        }
    }
    fixture.assert_balanced().await;
}

fn time_of(past: History) -> time::OffsetDateTime {
    if matches!(past, History::Overdue | History::Expired) { START + HOLD } else { START }
}

async fn set_up(fixture: &TestStore, product: Uuid, past: History) -> Uuid {
    let id = Uuid::now_v7();
    let requested = match past {
        History::Nothing | History::Tombstone => None,
        History::Refused => Some(TOO_MANY),
        _ => Some(4),
    };
    if let Some(quantity) = requested {
        fixture.reserve(id, &[(product, quantity)]).await;
    }
    match past {
        History::Confirmed | History::ReleasedAfterConfirm => {
            fixture.store.confirm(id, START).await.unwrap();
        }
        History::Expired => assert_eq!(fixture.store.expire_due(START + HOLD, 10).await.unwrap(), 1),
        _ => {}
    }
    if matches!(past, History::Released | History::ReleasedAfterConfirm | History::Tombstone) {
        fixture.store.release(id, START).await.unwrap();
    }
    id
}

async fn perform(fixture: &TestStore, id: Uuid, product: Uuid, past: History, call: Call) -> String {
    let now = time_of(past);
    let same = if matches!(past, History::Refused) { TOO_MANY } else { 4 };
    let name = match call {
        Call::ReserveSame | Call::ReserveOther | Call::Sell | Call::SellOther => {
            let quantity = if matches!(call, Call::ReserveSame | Call::Sell) { same } else { 3 };
            let requested = lines(&[(product, quantity)]);
            let outcome = if matches!(call, Call::Sell | Call::SellOther) {
                fixture.store.reserve_and_confirm(id, requested, now, HOLD).await
            } else {
                fixture.store.reserve(id, requested, now, HOLD).await
            };
            match outcome.unwrap() {
                ReserveOutcome::Held(reservation) if reservation.state == State::Confirmed => "sold",
                ReserveOutcome::Held(_) => "held",
                ReserveOutcome::Refused { reason: Refusal::InsufficientStock, product_id } if product_id == product => "refused",
                ReserveOutcome::Refused { .. } => "refused for a different reason",
                ReserveOutcome::DifferentLines => "different",
                ReserveOutcome::Released => "released",
                ReserveOutcome::Expired => "expired",
            }
        }
        Call::Confirm => match fixture.store.confirm(id, now).await.unwrap() {
            ConfirmOutcome::Confirmed(reservation) => {
                assert_eq!((reservation.state, reservation.lines[0].quantity), (State::Confirmed, 4));
                "confirmed"
            }
            ConfirmOutcome::Released => "released",
            ConfirmOutcome::Expired => "expired",
            ConfirmOutcome::Refused => "refused",
            ConfirmOutcome::Unknown => "unknown",
        },
        Call::Release => fixture.store.release(id, now).await.unwrap().state.as_str(),
        Call::Sweep => return fixture.store.expire_due(now, 10).await.unwrap().to_string(),
    };
    name.to_owned()
}

pub(crate) async fn refused_reservation_takes_nothing_and_is_final(fixture: TestStore) {
    let [plenty, scarce] = [fixture.add_some("Plenty", 10).await, fixture.add_some("Scarce", 1).await];
    let idle = fixture.add(ValidatedProduct::new(Input { is_active: false, ..input("Idle", 10) }).unwrap(), START).await.id;
    let nowhere = Uuid::now_v7();
    for (culprit, reason) in [(scarce, Refusal::InsufficientStock), (idle, Refusal::ProductInactive), (nowhere, Refusal::UnknownProduct)] {
        let id = Uuid::now_v7();
        let expected = ReserveOutcome::Refused { reason, product_id: culprit };
        assert_eq!(fixture.reserve(id, &[(plenty, 2), (culprit, 2)]).await, expected);
        assert_eq!(fixture.available(plenty).await, 10);
        fixture.store.update(culprit, draft("Now there", 100), VersionPreconditions::default(), "alice".into(), START).await.unwrap();
        assert_eq!(fixture.reserve(id, &[(culprit, 2), (plenty, 2)]).await, expected, "the stored outcome");
    }
    fixture.assert_balanced().await;
}

pub(crate) async fn total_above_its_limit_is_refused(fixture: TestStore) {
    let [lamp, bulb] = [fixture.add_some("Lamp", 100).await, fixture.add_some("Bulb", 100).await];
    let requested = |max| lines(&[(lamp, 2), (bulb, 1)]).with_max_total(max);
    let total = 3 * 1999;
    let is_price_changed = |outcome: &ReserveOutcome| matches!(outcome, ReserveOutcome::Refused { reason: Refusal::PriceChanged, .. });
    // Concurrent calls share a batch.
    let calls = (0..30).map(|number| {
        let max = [None, Some(total), Some(total - 1)][number % 3];
        let (store, requested) = (&fixture.store, requested(max));
        async move {
            let id = Uuid::now_v7();
            let outcome = store.reserve_and_confirm(id, requested.clone(), START, HOLD).await.unwrap();
            (max, id, outcome)
        }
    });
    for (max, id, outcome) in join_all(calls).await {
        assert_eq!(is_price_changed(&outcome), max == Some(total - 1), "{max:?}: {outcome:?}");
        let repeated = fixture.store.reserve_and_confirm(id, requested(None), START, HOLD).await.unwrap();
        assert_eq!(is_price_changed(&repeated), is_price_changed(&outcome), "the stored outcome");
    }
    assert_eq!((fixture.available(lamp).await, fixture.available(bulb).await), (60, 80));
    // More lines than a batch has.
    let mut many = Vec::new();
    for _ in 0..10 {
        many.push((fixture.add_some("Screw", 10).await, 1));
    }
    let dear = fixture.store.reserve(Uuid::now_v7(), lines(&many).with_max_total(Some(10 * 1999 - 1)), START, HOLD).await.unwrap();
    assert!(is_price_changed(&dear), "{dear:?}");
    let paid = fixture.store.reserve(Uuid::now_v7(), lines(&many).with_max_total(Some(10 * 1999)), START, HOLD).await.unwrap();
    assert!(matches!(paid, ReserveOutcome::Held(_)), "{paid:?}");
    fixture.assert_balanced().await;
}

pub(crate) async fn reserve_copies_names_and_prices(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 10).await;
    let id = fixture.hold(&[(product, 2)]).await;
    fixture
        .store
        .update(
            product,
            ValidatedProduct::new(Input { price_minor: 5, ..input("Lantern", 8) }).unwrap(),
            VersionPreconditions::default(),
            "alice".into(),
            LATER,
        )
        .await
        .unwrap();
    let ReserveOutcome::Held(reservation) = fixture.reserve(id, &[(product, 2)]).await else { panic!("the reservation is held") };
    let Reservation { state, lines, expires_at, .. } = reservation;
    assert_eq!((state, expires_at), (State::Held, START + HOLD));
    assert_eq!((lines.len(), lines[0].name.as_str(), lines[0].unit_price_minor, lines[0].quantity), (1, "Lamp", 1999, 2));
}

pub(crate) async fn stock_changes_increment_the_version(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 10).await;
    let id = fixture.hold(&[(product, 2)]).await;
    assert_eq!((fixture.get(product).await.version, fixture.available(product).await), (2, 8));
    fixture.store.confirm(id, START).await.unwrap();
    assert_eq!(fixture.get(product).await.version, 2, "no public field has changed");
    fixture.store.release(id, LATER).await.unwrap();
    let after = fixture.get(product).await;
    assert_eq!((after.version, after.quantity, after.updated_at), (3, 10, LATER));
}

pub(crate) async fn product_in_use_is_not_removed(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 10).await;
    let held = fixture.hold(&[(product, 2)]).await;
    assert_eq!(fixture.store.remove(product, VersionPreconditions::default(), LATER).await.unwrap(), RemoveOutcome::InUse);
    fixture.store.confirm(held, START).await.unwrap();
    assert_eq!(fixture.store.remove(product, VersionPreconditions::default(), LATER).await.unwrap(), RemoveOutcome::InUse);
    fixture.store.release(held, START).await.unwrap();
    assert_eq!(fixture.store.remove(product, VersionPreconditions::default(), LATER).await.unwrap(), RemoveOutcome::Removed);
    // A released reservation outlives its product.
    assert_eq!(fixture.store.release(held, LATER).await.unwrap().lines.len(), 1);
    assert_eq!(fixture.store.confirm(held, LATER).await.unwrap(), ConfirmOutcome::Released);
    fixture.assert_balanced().await;
}

pub(crate) async fn update_of_quantity_adjusts_the_supply(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 10).await;
    let id = fixture.hold(&[(product, 4)]).await;
    for quantity in [0, 50, 1] {
        let UpdateOutcome::Updated(updated) =
            fixture.store.update(product, draft("Lamp", quantity), VersionPreconditions::default(), "alice".into(), LATER).await.unwrap()
        else {
            panic!("the product exists")
        };
        assert_eq!(updated.quantity, quantity);
        fixture.assert_balanced().await;
    }
    fixture.store.release(id, LATER).await.unwrap();
    assert_eq!(fixture.available(product).await, 5);
    let audit = fixture.store.audit(LATER).await.unwrap();
    assert_eq!((audit.violations.len(), audit.available_units, audit.held_units, audit.products_checked), (0, 5, 0, 1));
}

pub(crate) async fn open_reservations_are_paginated(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 100).await;
    let mut open = Vec::new();
    for n in 0..9 {
        let id = fixture.hold(&[(product, 1)]).await;
        match n % 3 {
            0 => assert_eq!(fixture.store.release(id, START).await.unwrap().state, State::Released),
            1 => {
                fixture.store.confirm(id, START).await.unwrap();
                open.push((id, State::Confirmed));
            }
            _ => open.push((id, State::Held)),
        }
    }
    fixture.store.release(Uuid::now_v7(), START).await.unwrap();
    fixture.reserve(Uuid::now_v7(), &[(product, 1_000)]).await;
    let mut listed = Vec::new();
    loop {
        let after = listed.last().map(|(id, _)| *id);
        let page = fixture.store.list_reservations(after, 4).await.unwrap();
        listed.extend(page.iter().map(|reservation| (reservation.id, reservation.state)));
        assert!(page.iter().all(|reservation| reservation.lines.len() == 1));
        if page.len() < 4 {
            break;
        }
    }
    open.sort_by_key(|(id, _)| *id);
    assert_eq!(listed, open);
    let audit = fixture.store.audit(START + HOLD + Duration::from_secs(1)).await.unwrap();
    assert_eq!((audit.held_units, audit.confirmed_units, audit.available_units, audit.overdue_holds), (3, 3, 94, 3));
}

pub(crate) async fn reservation_of_100_lines_is_atomic(fixture: TestStore) {
    let mut requested = Vec::new();
    for n in 0..100 {
        requested.push((fixture.add_some(&format!("Lamp {n}"), 5).await, 3));
    }
    let id = fixture.hold(&requested).await;
    assert!(matches!(
        fixture.reserve(Uuid::now_v7(), &requested).await,
        ReserveOutcome::Refused { reason: Refusal::InsufficientStock, .. }
    ));
    assert!(matches!(fixture.store.confirm(id, START).await.unwrap(), ConfirmOutcome::Confirmed(_)));
    let audit = fixture.store.audit(START).await.unwrap();
    assert_eq!((audit.violations.len(), audit.available_units, audit.confirmed_units), (0, 200, 300));
}
