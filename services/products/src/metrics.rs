//! Stock and idempotency metrics of the products service. Every metric name and label value is
//! defined here.

use std::time::Duration;

use metrics::{Counter, Gauge};
use palisade_events::metrics as events;
use palisade_middleware::{
    group_commit,
    metrics::{Metric, describe},
};
use palisade_store::DeletedRows;
use time::OffsetDateTime;

use crate::{
    reservation::{Refusal, ReserveOutcome, ReviseOutcome},
    stock_ledger::AdjustOutcome,
    store::{self, Audit, CreateOutcome, RESERVES, Stats, UNREADABLE},
};

/// All metrics defined by the products service.
pub static METRICS: &[Metric] = &[
    Metric::counter("palisade.idempotency.requests", &["outcome"], "Requests with an idempotency key, by outcome"),
    Metric::counter("palisade.stock.reservations", &["outcome"], "Reservation calls, by outcome"),
    store::STOCK_ADJUSTMENTS,
    Metric::gauge("palisade.stock.units", &["state"], "Units of all products, by state"),
    Metric::gauge("palisade.stock.out_products", &[], "Products without available units"),
    Metric::gauge("palisade.stock.overdue_holds", &[], "Expired holds that are not released yet"),
    Metric::gauge("palisade.invariant.violations", &["check"], "Invariant violations found by the last audit; must be 0, NaN if unknown"),
    Metric::seconds("palisade.invariant.last_audit", &["check"], "Time of the last complete audit, seconds since 1970"),
    group_commit::BATCH_SIZE,
    group_commit::WAITING_WRITES,
    group_commit::REJECTED_WRITES,
    palisade_store::UNREADABLE_ROWS,
    palisade_store::QUARANTINED_ROWS,
    palisade_store::OVERDUE_ROWS,
    palisade_store::DELETED_ROWS,
    events::PENDING,
    events::OLDEST_AGE,
    events::PUBLISH_ATTEMPTS,
];

/// Collections whose rows have a retention.
pub(crate) const DELETED: DeletedRows = DeletedRows(&["idempotency_keys", "reservations"]);

// Outcomes of a request with an idempotency key.
const NEW: &str = "new";
const REPLAY: &str = "replay";
const CONFLICT: &str = "conflict";

// Outcomes of a reservation. `REFUSED`: the reservation already had a conflicting final state or
// other lines.
const RESERVED: &str = "reserved";
const INSUFFICIENT: &str = "insufficient";
const PRICE_CHANGED: &str = "price_changed";
const REFUSED: &str = "refused";
const COMMITTED: &str = "committed";
const RELEASED: &str = "released";
const REVISED: &str = "revised";
const FULFILLED: &str = "fulfilled";

/// Describes all metrics and registers all series: counters at 0, because a rate ignores the event
/// that creates its series, and gauges of the store as unknown.
pub fn register() {
    describe(METRICS);
    for outcome in [NEW, REPLAY, CONFLICT] {
        idempotency_requests(outcome).increment(0);
    }
    for outcome in [RESERVED, INSUFFICIENT, PRICE_CHANGED, REFUSED, COMMITTED, RELEASED, REVISED, FULFILLED] {
        reservations(outcome).increment(0);
    }
    store::register_ledger_metrics();
    events::register();
    forget_audit();
    last_audit().set(0);
    forget_stats();
    group_commit::register(RESERVES);
    UNREADABLE.register();
    DELETED.register();
}

/// Sets the gauges of the store.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn record_stats(stats: &Stats) {
    set_stats([stats.overdue_keys, stats.overdue_reservations, stats.quarantined].map(|count| count as f64));
}

/// Sets the gauges of [`record_stats`] to NaN: a value that was read long ago would look healthy.
pub(crate) fn forget_stats() {
    set_stats([f64::NAN; 3]);
}

fn set_stats([overdue_keys, overdue_reservations, quarantined]: [f64; 3]) {
    let overdue = |collection: &'static str| palisade_middleware::gauge!("palisade.store.overdue_rows", "collection" => collection);
    overdue("idempotency_keys").set(overdue_keys);
    overdue("reservations").set(overdue_reservations);
    palisade_middleware::gauge!("palisade.store.quarantined_rows", "collection" => "reservations").set(quarantined);
}

/// Records a request with an idempotency key by its [`key_outcome`] or [`adjustment_key_outcome`].
pub(crate) fn record_key_outcome(outcome: &'static str) {
    idempotency_requests(outcome).increment(1);
}

/// Records a reserve.
pub(crate) fn record_reserve(reserved: &ReserveOutcome) {
    let outcome = match reserved {
        ReserveOutcome::Held(_) => RESERVED,
        ReserveOutcome::Refused { reason: Refusal::PriceChanged, .. } => PRICE_CHANGED,
        ReserveOutcome::Refused { .. } => INSUFFICIENT,
        ReserveOutcome::DifferentLines | ReserveOutcome::Released | ReserveOutcome::Expired => REFUSED,
    };
    reservations(outcome).increment(1);
}

/// Records a revision.
pub(crate) fn record_revise(revised: &ReviseOutcome) {
    let outcome = match revised {
        ReviseOutcome::Revised(_) => REVISED,
        ReviseOutcome::Refused { reason: Refusal::PriceChanged, .. } => PRICE_CHANGED,
        ReviseOutcome::Refused { .. } => INSUFFICIENT,
        ReviseOutcome::DifferentLines | ReviseOutcome::Superseded | ReviseOutcome::NotConfirmed | ReviseOutcome::Unknown => REFUSED,
    };
    reservations(outcome).increment(1);
}

/// Records a confirmed hold.
pub(crate) fn record_confirm() {
    reservations(COMMITTED).increment(1);
}

/// Records a release.
pub(crate) fn record_release() {
    reservations(RELEASED).increment(1);
}

/// Records a fulfilment.
pub(crate) fn record_fulfilment() {
    reservations(FULFILLED).increment(1);
}

/// Records the result of an audit at `now`. Without violations, but with rows that it could not
/// read, their number is unknown, not 0.
#[expect(clippy::cast_precision_loss, reason = "units are far below 2^52")]
pub(crate) fn record_audit(audit: &Audit, now: OffsetDateTime) {
    let unknown = audit.violations.is_empty() && audit.unreadable > 0;
    let violations = if unknown { f64::NAN } else { audit.violations.len() as f64 };
    let units = [audit.available_units, audit.held_units, audit.confirmed_units];
    set_audit(violations, units.map(|units| units as f64), [audit.out_of_stock_products, audit.overdue_holds].map(|count| count as f64));
    if audit.unreadable == 0 {
        last_audit().set(Duration::from_secs(now.unix_timestamp().unsigned_abs()));
    }
}

/// Sets the gauges of [`record_audit`] to NaN: a failed audit found nothing, and is not clean.
pub(crate) fn forget_audit() {
    set_audit(f64::NAN, [f64::NAN; 3], [f64::NAN; 2]);
}

fn set_audit(violations: f64, units: [f64; 3], [out_of_stock, overdue_holds]: [f64; 2]) {
    palisade_middleware::gauge!("palisade.invariant.violations", "check" => "stock").set(violations);
    for (state, count) in ["available", "reserved", "sold"].into_iter().zip(units) {
        palisade_middleware::gauge!("palisade.stock.units", "state" => state).set(count);
    }
    palisade_middleware::gauge!("palisade.stock.out_products").set(out_of_stock);
    palisade_middleware::gauge!("palisade.stock.overdue_holds").set(overdue_holds);
}

fn last_audit() -> Gauge {
    palisade_middleware::gauge!("palisade.invariant.last_audit", "check" => "stock")
}

/// Returns the label value for the outcome of an idempotency key.
pub(crate) fn key_outcome(created: &CreateOutcome) -> &'static str {
    match created {
        CreateOutcome::Created { replayed: false, .. } => NEW,
        CreateOutcome::Created { replayed: true, .. } => REPLAY,
        CreateOutcome::KeyReused => CONFLICT,
    }
}

/// Returns the label value for the outcome of an idempotency key. `None` if the key stays unused.
pub(crate) fn adjustment_key_outcome(adjusted: &AdjustOutcome) -> Option<&'static str> {
    match adjusted {
        AdjustOutcome::Adjusted { replayed: false, .. } | AdjustOutcome::InsufficientStock { replayed: false } => Some(NEW),
        AdjustOutcome::Adjusted { replayed: true, .. } | AdjustOutcome::InsufficientStock { replayed: true } => Some(REPLAY),
        AdjustOutcome::KeyReused => Some(CONFLICT),
        AdjustOutcome::AboveMaximum | AdjustOutcome::NotFound => None,
    }
}

fn idempotency_requests(outcome: &'static str) -> Counter {
    palisade_middleware::counter!("palisade.idempotency.requests", "outcome" => outcome)
}

fn reservations(outcome: &'static str) -> Counter {
    palisade_middleware::counter!("palisade.stock.reservations", "outcome" => outcome)
}

#[cfg(test)]
mod tests;
