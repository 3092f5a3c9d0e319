use palisade_tests::metrics_recorder;
use time::OffsetDateTime;
use uuid::Uuid;

use super::*;
use crate::{
    product::{Input, ValidatedProduct},
    reservation::{Refusal, Reservation, State},
    stock_ledger::Kind,
    store::{Imbalance, Stats},
};

fn record_everything() {
    let now = OffsetDateTime::UNIX_EPOCH;
    let [name, description, category] = ["Lamp", "", "home"].map(str::to_owned);
    let draft = ValidatedProduct::new(Input { name, description, price_minor: 1, quantity: 1, category, is_active: true }).unwrap();
    let product = draft.into_product(Uuid::nil(), now);
    let created = |replayed| CreateOutcome::Created { product: product.clone(), replayed };
    for outcome in [created(false), created(true), CreateOutcome::KeyReused] {
        record_key_outcome(key_outcome(&outcome));
    }
    for outcome in [AdjustOutcome::InsufficientStock { replayed: true }, AdjustOutcome::KeyReused, AdjustOutcome::NotFound] {
        adjustment_key_outcome(&outcome).into_iter().for_each(record_key_outcome);
    }
    // The stores record these.
    for kind in Kind::ALL {
        metrics::counter!(store::STOCK_ADJUSTMENTS.name, "kind" => kind.as_str()).increment(1);
    }
    let held = Reservation { id: Uuid::nil(), state: State::Held, lines: Vec::new(), expires_at: now };
    let refused = |reason| ReserveOutcome::Refused { reason, product_id: Uuid::nil() };
    for outcome in [
        ReserveOutcome::Held(held.clone()),
        refused(Refusal::InsufficientStock),
        refused(Refusal::PriceChanged),
        ReserveOutcome::DifferentLines,
        ReserveOutcome::Released,
        ReserveOutcome::Expired,
    ] {
        record_reserve(&outcome);
    }
    let refused = |reason| ReviseOutcome::Refused { reason, product_id: Uuid::nil() };
    for outcome in [
        ReviseOutcome::Revised(held.clone()),
        refused(Refusal::InsufficientStock),
        refused(Refusal::PriceChanged),
        ReviseOutcome::NotConfirmed,
    ] {
        record_revise(&outcome);
    }
    record_confirm();
    record_release();
    record_fulfilment();
    events::record_backlog(1, std::time::Duration::from_secs(1));
    for outcome in events::OUTCOMES {
        // The relay records these.
        events::published(outcome).increment(1);
    }
    record_stats(&Stats { overdue_keys: 1, overdue_reservations: 1, quarantined: 1 });
    // The queue records these.
    metrics::histogram!(group_commit::BATCH_SIZE.name, "queue" => RESERVES).record(1.0);
    metrics::gauge!(group_commit::WAITING_WRITES.name, "queue" => RESERVES).set(1.0);
    metrics::counter!(group_commit::REJECTED_WRITES.name, "queue" => RESERVES).increment(1);
    for collection in UNREADABLE.0 {
        UNREADABLE.record(collection, &std::fmt::Error);
    }
    for collection in DELETED.0 {
        DELETED.record(collection, 1);
    }
    record_audit(
        &Audit {
            products_checked: 1,
            violations: vec![Imbalance { product_id: Uuid::nil(), supply: 1, quantity: 1, taken: 1, reserved: 1, ledger: 1 }],
            held_units: 1,
            confirmed_units: 1,
            available_units: 1,
            out_of_stock_products: 1,
            overdue_holds: 1,
            unreadable: 0,
        },
        OffsetDateTime::UNIX_EPOCH + Duration::from_secs(7),
    );
}

#[test]
fn all_series_are_preregistered() {
    let catalogue = METRICS.iter().map(|metric| (metric.exposed(), metric.labels));
    metrics_recorder::assert_all_preregistered(catalogue, register, record_everything);
}
