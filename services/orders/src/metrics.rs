//! Metrics of the orders service: orders, sagas, idempotency keys, outbox and invariants. Names and
//! label values are defined here only.

mod step;

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use palisade_events::metrics as events;
use palisade_middleware::{
    clock, group_commit,
    metrics::{Metric, describe},
};
use palisade_store::DeletedRows;
use time::OffsetDateTime;

use crate::{
    fulfilment::FulfilOutcome,
    order::{FailureReason, Order, Status},
    saga::{ConfirmOutcome, ReleaseOutcome, ReserveOutcome, ReviseOutcome, RevisionEnd},
    store::{CHANGES, CREATES, CreateResult, Overdue, Stats, UNREADABLE},
};

pub(crate) use step::Step;

/// Metric catalog of the service.
pub static METRICS: &[Metric] = &[
    Metric::counter("palisade.orders", &["outcome"], "Orders that reached an outcome, by outcome"),
    Metric::counter("palisade.orders.failures", &["reason"], "Failed orders, by reason"),
    Metric::counter("palisade.orders.revisions", &["outcome"], "Revisions of orders that ended, by outcome"),
    Metric::counter("palisade.idempotency.requests", &["outcome"], "Requests with an idempotency key, by outcome"),
    Metric::counter("palisade.saga.started", &["saga"], "Sagas started"),
    Metric::counter("palisade.saga.finished", &["saga", "outcome"], "Sagas finished"),
    Metric::durations("palisade.saga.duration", &["saga", "outcome"], "Time from the acceptance of an order to the end of its saga"),
    Metric::counter("palisade.saga.late", &["saga"], "Sagas that finished later than 30 s after the acceptance of their order"),
    Metric::durations("palisade.saga.step.duration", &["saga", "step", "outcome"], "Duration of saga steps, by outcome"),
    Metric::gauge("palisade.saga.in_flight", &["saga", "state"], "Unfinished sagas, by order status"),
    Metric::seconds("palisade.saga.oldest_in_flight", &["saga"], "Time since the last change of the oldest unfinished saga"),
    events::PENDING,
    events::OLDEST_AGE,
    events::PUBLISH_ATTEMPTS,
    Metric::gauge("palisade.outbox.dead_lettered", &[], "Dead-lettered events, rejected repeatedly by the broker"),
    Metric::gauge("palisade.invariant.violations", &["check"], "Invariant violations found by the last audit; must be 0, NaN if unknown"),
    Metric::seconds("palisade.invariant.last_audit", &["check"], "Time of the last complete audit, seconds since 1970"),
    Metric::counter("palisade.invariant.repairs", &["outcome"], "Reservations repaired by operators, by outcome"),
    group_commit::BATCH_SIZE,
    group_commit::WAITING_WRITES,
    group_commit::REJECTED_WRITES,
    palisade_store::UNREADABLE_ROWS,
    palisade_store::QUARANTINED_ROWS,
    palisade_store::OVERDUE_ROWS,
    palisade_store::DELETED_ROWS,
];

/// Collections whose rows have a retention.
const DELETED: DeletedRows = DeletedRows(&["idempotency_keys", "outbox", "orders"]);

/// Longest time of a saga that meets the objective.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

/// Value of the `saga` label.
pub(crate) const SAGA: &str = "create_order";
/// Name of the saga of a revision in spans.
pub(crate) const REVISION: &str = "revise_order";

// Values of the `outcome` label of idempotent requests.
const NEW: &str = "new";
const REPLAY: &str = "replay";
const CONFLICT: &str = "conflict";
const IN_PROGRESS: &str = "in_progress";

// Values of the `outcome` label of revisions.
const REVISED: &str = "revised";
const REFUSED: &str = "refused";

/// Values of the `check` label: within the order store, and in comparison with products.
const CHECKS: [&str; 2] = ["orders", "reservations"];

/// Outcomes of the repair of a reservation.
pub(crate) const REPAIRS: [&str; 6] = ["consistent", "released", "reserved", "fulfilled", "refused", "unknown"];

/// Describes all metrics and registers all series: counters with value 0, because a rate would miss
/// the first event of a series that is created later, and gauges of the store as unknown.
pub fn register() {
    describe(METRICS);
    for outcome in [NEW, REPLAY, CONFLICT, IN_PROGRESS] {
        idempotency_requests(outcome).increment(0);
    }
    sagas_started().increment(0);
    for outcome in Status::ALL.into_iter().filter_map(outcome) {
        order_outcomes(outcome).increment(0);
    }
    let is_final = |to: &Status| Status::ALL.into_iter().any(|from| from.can_become(*to) && ends_saga(from, *to));
    for outcome in Status::ALL.into_iter().filter(is_final).filter_map(outcome) {
        sagas_finished(outcome).increment(0);
        drop(saga_duration(outcome));
    }
    late_sagas().increment(0);
    for reason in FailureReason::ALL {
        failures(reason).increment(0);
    }
    register_steps::<ReserveOutcome>();
    register_steps::<ConfirmOutcome>();
    register_steps::<ReleaseOutcome>();
    register_steps::<ReviseOutcome>();
    register_steps::<FulfilOutcome>();
    for outcome in [REVISED, REFUSED] {
        revisions(outcome).increment(0);
    }
    events::register();
    forget_stats();
    forget_overdue();
    DELETED.register();
    for outcome in REPAIRS {
        repairs(outcome).increment(0);
    }
    forget_audit();
    for check in CHECKS {
        last_audit(check).set(0);
    }
    for queue in [CREATES, CHANGES] {
        group_commit::register(queue);
    }
    UNREADABLE.register();
}

fn register_steps<S: Step>() {
    for outcome in S::OUTCOMES {
        // Looking up a histogram registers it.
        drop(step_duration(S::NAME, outcome));
    }
}

/// Records a create request with an idempotency key.
pub(crate) fn record_idempotent_create(creation: &CreateResult) {
    idempotency_requests(key_outcome(creation)).increment(1);
}

/// Records the start of a saga.
pub(crate) fn record_saga_started() {
    sagas_started().increment(1);
}

/// Records the outcome and duration of a saga step.
pub(crate) fn record_step<S: Step>(result: &S, took: Duration) {
    step_duration(S::NAME, result.outcome()).record(took);
}

/// Records the end of a revision.
pub(crate) fn record_revision(end: &RevisionEnd) {
    let outcome = match end {
        RevisionEnd::Revised(_) => REVISED,
        RevisionEnd::Refused(_) => REFUSED,
    };
    revisions(outcome).increment(1);
}

/// Records a status transition of `order` at `now`, by the saga or by a user.
pub(crate) fn record_transition(from: Status, to: Status, order: &Order, now: OffsetDateTime) {
    let Some(outcome) = outcome(to) else { return };
    order_outcomes(outcome).increment(1);
    if to == Status::Failed
        && let Some(reason) = order.failure_reason
    {
        failures(reason).increment(1);
    }
    if ends_saga(from, to) {
        sagas_finished(outcome).increment(1);
        // Another process may have accepted the order, by a clock that is ahead.
        let took = clock::age(order.created_at, now);
        saga_duration(outcome).record(took);
        if took > SETTLED_WITHIN {
            late_sagas().increment(1);
        }
    }
}

/// Sets the gauges from the store's statistics.
pub(crate) fn record_stats(stats: &Stats) {
    for status in Status::ALL {
        let count = stats.unfinished.iter().find(|(unfinished, _)| *unfinished == status).map_or(0, |(_, count)| *count);
        in_flight(status).set(as_f64(count));
    }
    oldest_in_flight().set(stats.oldest_unfinished);
    events::record_backlog(stats.unpublished, stats.oldest_unpublished);
    outbox_dead().set(as_f64(stats.dead));
    quarantined_orders().set(as_f64(stats.quarantined));
}

/// Sets the gauges of [`record_stats`] to NaN: a value that was read long ago would look healthy.
pub(crate) fn forget_stats() {
    for status in Status::ALL {
        in_flight(status).set(f64::NAN);
    }
    for gauge in [oldest_in_flight(), outbox_dead(), quarantined_orders()] {
        gauge.set(f64::NAN);
    }
    events::forget_backlog();
}

/// Sets the numbers of rows past their retention.
pub(crate) fn record_overdue(overdue: Overdue) {
    set_overdue([overdue.keys, overdue.events, overdue.orders].map(as_f64));
}

/// Sets the gauges of [`record_overdue`] to NaN.
pub(crate) fn forget_overdue() {
    set_overdue([f64::NAN; 3]);
}

fn set_overdue(rows: [f64; 3]) {
    for (collection, rows) in ["idempotency_keys", "outbox", "orders"].into_iter().zip(rows) {
        overdue_rows(collection).set(rows);
    }
}

/// Records rows of `collection` that were deleted after their retention. The rows of an order count
/// with it.
pub(crate) fn record_deleted(collection: &'static str, rows: u64) {
    DELETED.record(collection, rows);
}

/// Sets the number of violations that the periodic audit found at `now`. `mismatches` is `None` if
/// orders could not be compared with reservations: their number is then unknown, not 0.
pub(crate) fn record_audit(violations: usize, mismatches: Option<usize>, now: OffsetDateTime) {
    violations_gauge("orders").set(as_f64(violations as u64));
    violations_gauge("reservations").set(mismatches.map_or(f64::NAN, |mismatches| as_f64(mismatches as u64)));
    let now = Duration::from_secs(now.unix_timestamp().unsigned_abs());
    last_audit("orders").set(now);
    if mismatches.is_some() {
        last_audit("reservations").set(now);
    }
}

/// Sets the numbers of violations to NaN: an audit that failed found none, and is not clean.
pub(crate) fn forget_audit() {
    for check in CHECKS {
        violations_gauge(check).set(f64::NAN);
    }
}

/// Records a repair of a reservation, by the name of its outcome.
pub(crate) fn record_repair(outcome: &'static str) {
    repairs(outcome).increment(1);
}

/// Returns the `outcome` label of an idempotent request.
pub(crate) fn key_outcome(creation: &CreateResult) -> &'static str {
    match creation {
        CreateResult::Created(_) => NEW,
        CreateResult::Replayed { .. } | CreateResult::Existing(_) => REPLAY,
        CreateResult::KeyReused => CONFLICT,
        CreateResult::InProgress => IN_PROGRESS,
    }
}

/// Returns the `outcome` label of a status, or `None` for an intermediate status.
fn outcome(status: Status) -> Option<&'static str> {
    match status {
        Status::Pending | Status::ProductReserved => None,
        Status::Confirmed => Some("confirmed"),
        Status::Failed => Some("failed"),
        Status::Completed => Some("completed"),
        Status::Cancelled => Some("cancelled"),
    }
}

/// Whether the transition ends the saga. The first outcome ends it, even one that a user chose;
/// later changes of the order belong to no saga.
fn ends_saga(from: Status, to: Status) -> bool {
    outcome(from).is_none() && outcome(to).is_some()
}

fn revisions(outcome: &'static str) -> Counter {
    palisade_middleware::counter!("palisade.orders.revisions", "outcome" => outcome)
}

fn idempotency_requests(outcome: &'static str) -> Counter {
    palisade_middleware::counter!("palisade.idempotency.requests", "outcome" => outcome)
}

fn order_outcomes(outcome: &'static str) -> Counter {
    palisade_middleware::counter!("palisade.orders", "outcome" => outcome)
}

fn sagas_started() -> Counter {
    palisade_middleware::counter!("palisade.saga.started", "saga" => SAGA)
}

fn sagas_finished(outcome: &'static str) -> Counter {
    palisade_middleware::counter!("palisade.saga.finished", "saga" => SAGA, "outcome" => outcome)
}

fn saga_duration(outcome: &'static str) -> Histogram {
    palisade_middleware::histogram!("palisade.saga.duration", "saga" => SAGA, "outcome" => outcome)
}

fn late_sagas() -> Counter {
    palisade_middleware::counter!("palisade.saga.late", "saga" => SAGA)
}

fn failures(reason: FailureReason) -> Counter {
    palisade_middleware::counter!("palisade.orders.failures", "reason" => reason.as_str())
}

fn step_duration(step: &'static str, outcome: &'static str) -> Histogram {
    palisade_middleware::histogram!("palisade.saga.step.duration", "saga" => SAGA, "step" => step, "outcome" => outcome)
}

fn in_flight(status: Status) -> Gauge {
    palisade_middleware::gauge!("palisade.saga.in_flight", "saga" => SAGA, "state" => status.as_str())
}

fn oldest_in_flight() -> Gauge {
    palisade_middleware::gauge!("palisade.saga.oldest_in_flight", "saga" => SAGA)
}

fn overdue_rows(collection: &'static str) -> Gauge {
    palisade_middleware::gauge!("palisade.store.overdue_rows", "collection" => collection)
}

fn quarantined_orders() -> Gauge {
    palisade_middleware::gauge!("palisade.store.quarantined_rows", "collection" => "orders")
}

fn repairs(outcome: &'static str) -> Counter {
    palisade_middleware::counter!("palisade.invariant.repairs", "outcome" => outcome)
}

fn outbox_dead() -> Gauge {
    palisade_middleware::gauge!("palisade.outbox.dead_lettered")
}

fn violations_gauge(check: &'static str) -> Gauge {
    palisade_middleware::gauge!("palisade.invariant.violations", "check" => check)
}

fn last_audit(check: &'static str) -> Gauge {
    palisade_middleware::gauge!("palisade.invariant.last_audit", "check" => check)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
