//! What this service counts beside the hops: reservations and stock. Every name and every word of a label stands here, once.

use metrics::{Counter, Gauge};
use palisade_events::metrics as events;
use palisade_middleware::metrics::{Metric, describe};

use crate::{
    reservation::ReserveOutcome,
    store::{Audit, Created},
};

/// Every metric of this service's own.
pub static METRICS: &[Metric] = &[
    Metric::counter("palisade.idempotency.requests", &["outcome"], "Creates asked for with an idempotency key, by what the key said"),
    Metric::counter("palisade.stock.reservations", &["outcome"], "Reservations, by what became of them"),
    Metric::gauge("palisade.stock.units", &["state"], "Units of all products together"),
    Metric::gauge("palisade.stock.out_products", &[], "Products with nothing left to sell"),
    Metric::gauge("palisade.stock.overdue_holds", &[], "Holds past their time that were not given back yet"),
    Metric::gauge("palisade.invariant.violations", &["check"], "What the last audit found broken; must be 0"),
    events::PENDING,
    events::OLDEST_AGE,
    events::PUBLISH_ATTEMPTS,
];

// What an idempotency key says of its request.
const NEW: &str = "new";
const REPLAY: &str = "replay";
const CONFLICT: &str = "conflict";

// What becomes of a reservation. Refused is what has been settled in another way before.
const RESERVED: &str = "reserved";
const INSUFFICIENT: &str = "insufficient";
const REFUSED: &str = "refused";
const COMMITTED: &str = "committed";
const RELEASED: &str = "released";

/// Tells of every metric, and makes every series there can be: a rate sees no event that made its series.
pub fn register() {
    describe(METRICS);
    for outcome in [NEW, REPLAY, CONFLICT] {
        keys(outcome).increment(0);
    }
    for outcome in [RESERVED, INSUFFICIENT, REFUSED, COMMITTED, RELEASED] {
        reservations(outcome).increment(0);
    }
    events::register();
    record_audit(&Audit::default());
}

/// A product was asked for with an idempotency key.
pub(crate) fn record_key_outcome(created: &Created) {
    keys(key_outcome(created)).increment(1);
}

/// Stock was asked for.
pub(crate) fn record_reserve(answer: &ReserveOutcome) {
    let outcome = match answer {
        ReserveOutcome::Held(_) => RESERVED,
        ReserveOutcome::Refused { .. } => INSUFFICIENT,
        ReserveOutcome::DifferentLines | ReserveOutcome::Released | ReserveOutcome::Expired => REFUSED,
    };
    reservations(outcome).increment(1);
}

/// A hold was made final.
pub(crate) fn record_confirm() {
    reservations(COMMITTED).increment(1);
}

/// A reservation was given back.
pub(crate) fn record_release() {
    reservations(RELEASED).increment(1);
}

/// What an audit found.
#[expect(clippy::cast_precision_loss, reason = "units are far below 2^52")]
pub(crate) fn record_audit(audit: &Audit) {
    metrics::gauge!("palisade.invariant.violations", "check" => "stock").set(audit.violations.len() as f64);
    for (state, count) in [("available", audit.available_units), ("reserved", audit.held_units), ("sold", audit.confirmed_units)] {
        units(state).set(count as f64);
    }
    metrics::gauge!("palisade.stock.out_products").set(audit.out_of_stock_products as f64);
    metrics::gauge!("palisade.stock.overdue_holds").set(audit.overdue_holds as f64);
}

/// The word for what an idempotency key said.
pub(crate) fn key_outcome(created: &Created) -> &'static str {
    match created {
        Created::Created { replayed: false, .. } => NEW,
        Created::Created { replayed: true, .. } => REPLAY,
        Created::KeyReused => CONFLICT,
    }
}

fn keys(outcome: &'static str) -> Counter {
    metrics::counter!("palisade.idempotency.requests", "outcome" => outcome)
}

fn reservations(outcome: &'static str) -> Counter {
    metrics::counter!("palisade.stock.reservations", "outcome" => outcome)
}

fn units(state: &'static str) -> Gauge {
    metrics::gauge!("palisade.stock.units", "state" => state)
}

#[cfg(test)]
mod tests;
