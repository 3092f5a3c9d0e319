use palisade_tests::recorded;
use time::OffsetDateTime;
use uuid::Uuid;

use super::*;
use crate::{
    product::{Draft, Input},
    reservation::{Refusal, Reservation, State},
    store::Imbalance,
};

fn record_everything() {
    let now = OffsetDateTime::UNIX_EPOCH;
    let [name, description, category] = ["Lamp", "", "home"].map(str::to_owned);
    let draft = Draft::new(Input { name, description, price_minor: 1, quantity: 1, category, is_active: true }).unwrap();
    let product = draft.into_product(Uuid::nil(), now);
    asked_with_key(&Created::Created { product: product.clone(), replayed: false });
    asked_with_key(&Created::Created { product, replayed: true });
    asked_with_key(&Created::KeyReused);
    let held = Reservation { id: Uuid::nil(), state: State::Held, lines: Vec::new(), expires_at: now };
    let refused = Reserved::Refused { reason: Refusal::InsufficientStock, product_id: Uuid::nil() };
    for answer in [Reserved::Held(held), refused, Reserved::DifferentLines, Reserved::Released, Reserved::Expired] {
        reserved(&answer);
    }
    committed();
    released();
    events::waiting(1, std::time::Duration::from_secs(1));
    for outcome in events::OUTCOMES {
        // As the relay does.
        events::handed_over(outcome).increment(1);
    }
    audited(&Audit {
        products_checked: 1,
        violations: vec![Imbalance { product_id: Uuid::nil(), supply: 1, quantity: 1, taken: 1, reserved: 1 }],
        held_units: 1,
        confirmed_units: 1,
        available_units: 1,
        out_of_stock_products: 1,
        overdue_holds: 1,
    });
}

#[test]
fn every_series_is_there_at_zero_from_the_start_and_no_other_is_recorded() {
    let catalogue = METRICS.iter().map(|metric| (metric.exposed(), metric.labels));
    recorded::is_all_there_from_the_start(catalogue, register, record_everything);
}
