//! Reservation of stock: validation, decision and repeated calls.

use std::collections::{HashMap, HashSet};

use palisade_products::reservation::{
    ConfirmOutcome, FulfilOutcome, HeldLine, Line, Lines, MAX_LINE_QUANTITY, ProductStock, Refusal, Reservation, ReserveOutcome, Revision,
    State,
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::targets::input::Input;

fn quantity(bytes: &mut Input<'_>) -> i64 {
    match bytes.below(8) {
        0 => bytes.i64(),
        1 => MAX_LINE_QUANTITY + i64::from(bytes.below(2)),
        _ => bytes.below(8).into(),
    }
}

fn lines(bytes: &mut Input<'_>) -> Vec<Line> {
    (0..bytes.below(5)).map(|_| Line { product_id: Uuid::from_u128(bytes.below(6).into()), quantity: quantity(bytes) }).collect()
}

fn stock(bytes: &mut Input<'_>) -> HashMap<Uuid, ProductStock> {
    let mut stock = HashMap::new();
    for product in 0..6_u8 {
        if bytes.flag() {
            let unit_price_minor = if bytes.flag() { bytes.below(10).into() } else { bytes.i64() };
            let entry =
                ProductStock { name: product.to_string(), unit_price_minor, quantity: bytes.byte().into(), is_active: bytes.below(4) > 0 };
            stock.insert(Uuid::from_u128(product.into()), entry);
        }
    }
    stock
}

fn total(lines: &[HeldLine]) -> i128 {
    lines.iter().map(|line| i128::from(line.quantity) * i128::from(line.unit_price_minor)).sum()
}

/// Lines are accepted if each has a legal quantity and a product of its own. A reservation is held
/// exactly if every line is available and the total is allowed. A repeated call has the same
/// outcome.
pub(crate) fn reservation(input: &[u8]) {
    let mut bytes = Input::new(input);
    let (requested, stock) = (lines(&mut bytes), stock(&mut bytes));
    let products: HashSet<_> = requested.iter().map(|line| line.product_id).collect();
    let is_legal = !requested.is_empty()
        && products.len() == requested.len()
        && requested.iter().all(|line| (1..=MAX_LINE_QUANTITY).contains(&line.quantity));
    let accepted = Lines::new(requested.clone());
    assert_eq!(accepted.is_ok(), is_legal, "{requested:?}");
    let Ok(accepted) = accepted else { return };
    assert!(accepted.as_slice().is_sorted_by_key(|line| line.product_id));

    let max_total = bytes.flag().then(|| bytes.i64());
    let accepted = accepted.with_max_total(max_total);
    let (state, held) = accepted.evaluate(&stock);
    let is_available =
        |line: &Line| stock.get(&line.product_id).is_some_and(|product| product.is_active && product.quantity >= line.quantity);
    let is_affordable = max_total.is_none_or(|max| total(&held) <= max.into());
    match state {
        State::Held => assert!(accepted.as_slice().iter().all(is_available) && is_affordable),
        State::Refused { reason: Refusal::PriceChanged, .. } => assert!(accepted.as_slice().iter().all(is_available) && !is_affordable),
        State::Refused { product_id, .. } => {
            let first = accepted.as_slice().iter().find(|line| !is_available(line)).expect("a line is not available");
            assert_eq!(product_id, first.product_id);
        }
        other => panic!("{other:?} is no decision"),
    }
    repeat(&accepted, &Reservation { id: Uuid::nil(), state, lines: held.clone(), expires_at: OffsetDateTime::UNIX_EPOCH });
    if let Ok(lines) = Lines::new(self::lines(&mut bytes)) {
        revise(&Revision { number: 2, lines }, &held, &stock);
    }
}

/// Checks the outcomes of further calls in every state.
fn repeat(lines: &Lines, decided: &Reservation) {
    let other = Lines::new(vec![Line { product_id: Uuid::max(), quantity: 1 }]).unwrap();
    for state in [decided.state, State::Confirmed, State::Fulfilled, State::Released, State::Expired] {
        let stored = || Reservation { state, ..decided.clone() };
        assert_eq!(stored().reserve_outcome(&other), ReserveOutcome::DifferentLines);
        let owns_units = matches!(state, State::Held | State::Confirmed | State::Fulfilled);
        assert_eq!(matches!(stored().reserve_outcome(lines), ReserveOutcome::Held(_)), owns_units);
        assert_eq!(matches!(stored().confirm_outcome(), ConfirmOutcome::Confirmed(_)), owns_units);
        assert_eq!(matches!(stored().fulfil_outcome(), FulfilOutcome::Fulfilled(_)), state == State::Fulfilled);
        let refusal = Some((Refusal::UnknownProduct, Uuid::nil()));
        assert!(State::parse(state.as_str(), refusal).is_none_or(|parsed| parsed.as_str() == state.as_str()));
        let is_overdue = stored().is_overdue(OffsetDateTime::UNIX_EPOCH);
        assert_eq!(is_overdue, state == State::Held, "only a hold expires");
    }
}

/// The differences lead from the old quantities to the new ones. A revision needs stock only for
/// the units that are missing.
fn revise(revision: &Revision, held: &[HeldLine], stock: &HashMap<Uuid, ProductStock>) {
    let mut units: HashMap<Uuid, i64> = held.iter().map(|line| (line.product_id, line.quantity)).collect();
    let differences = revision.differences(held);
    assert!(differences.iter().all(|difference| difference.units != 0));
    for difference in &differences {
        *units.entry(difference.product_id).or_default() += difference.units;
    }
    units.retain(|_, units| *units != 0);
    let wanted: HashMap<_, _> = revision.lines.as_slice().iter().map(|line| (line.product_id, line.quantity)).collect();
    assert_eq!(units, wanted);
    let can_take = differences.iter().filter(|difference| difference.units > 0).all(|difference| {
        stock.get(&difference.product_id).is_some_and(|product| product.is_active && product.quantity >= difference.units)
    });
    assert_eq!(revision.evaluate(held, stock).is_ok(), can_take);
}
