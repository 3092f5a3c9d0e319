use palisade_tests::metrics_recorder::{self, MetricsRecorder};
use time::OffsetDateTime;

use super::*;
use crate::{
    order::{Actor, NewOrder, OrderId, Priced},
    store::{Create, Overdue},
};

fn record_everything() {
    let now = OffsetDateTime::UNIX_EPOCH;
    let id = OrderId::generate(now);
    let order = NewOrder::new("alice", &[(&id.as_uuid().to_string(), 1)]).unwrap();
    let create =
        Create { id, order, by: Actor::saga(), lease: Duration::ZERO, deadline: now, trace_parent: None, key: None, is_retry: false };
    let claimed = create.claimed(now);
    for creation in [
        CreateResult::Created(claimed.clone()),
        CreateResult::Replayed { response: Vec::new() },
        CreateResult::Existing(claimed.saga.order),
        CreateResult::KeyReused,
        CreateResult::InProgress,
    ] {
        record_idempotent_create(&creation);
    }
    record_saga_started();
    let (took, retry_after) = (Duration::from_secs(1), None);
    let rejected = ReserveOutcome::Rejected(FailureReason::UnknownProduct);
    for outcome in [
        ReserveOutcome::Held(Vec::new()),
        ReserveOutcome::Confirmed(Vec::new()),
        rejected,
        ReserveOutcome::Released,
        ReserveOutcome::Expired,
        ReserveOutcome::Unknown { retry_after },
    ] {
        record_step(&outcome, took);
    }
    for outcome in [ConfirmOutcome::Confirmed, ConfirmOutcome::Lost, ConfirmOutcome::Unknown { retry_after }] {
        record_step(&outcome, took);
    }
    for outcome in [ReleaseOutcome::Done, ReleaseOutcome::Unknown { retry_after }] {
        record_step(&outcome, took);
    }
    let refused = FailureReason::InsufficientStock;
    for outcome in
        [ReviseOutcome::Revised(Vec::new()), ReviseOutcome::Refused(refused), ReviseOutcome::Lost, ReviseOutcome::Unknown { retry_after }]
    {
        record_step(&outcome, took);
    }
    let priced = Priced::new(&[], &[]).unwrap();
    for end in [RevisionEnd::Revised(priced), RevisionEnd::Refused(refused)] {
        record_revision(&end);
    }
    for outcome in [FulfilOutcome::Done, FulfilOutcome::Missing, FulfilOutcome::Unknown { retry_after }] {
        record_step(&outcome, took);
    }
    for reason in FailureReason::ALL {
        let order = Order { failure_reason: Some(reason), ..order_at(now) };
        for from in Status::ALL {
            for to in Status::ALL.into_iter().filter(|to| from.can_become(*to)) {
                record_transition(from, to, &order, now + took);
                record_transition(from, to, &order, now + SETTLED_WITHIN + took);
            }
        }
    }
    let unfinished = Status::ALL.into_iter().map(|status| (status, 1)).collect();
    record_stats(&Stats { unfinished, oldest_unfinished: took, unpublished: 1, oldest_unpublished: took, dead: 1, quarantined: 1 });
    for outcome in events::OUTCOMES {
        // Same call as in the relay.
        events::published(outcome).increment(1);
    }
    record_audit(1, Some(1), time::OffsetDateTime::UNIX_EPOCH + took);
    record_overdue(Overdue { keys: 1, events: 1, orders: 1 });
    for outcome in REPAIRS {
        record_repair(outcome);
    }
    for collection in DELETED.0 {
        record_deleted(collection, 1);
    }
    for queue in [CREATES, CHANGES] {
        // The queues record these.
        metrics::histogram!(group_commit::BATCH_SIZE.name, "queue" => queue).record(1.0);
        metrics::gauge!(group_commit::WAITING_WRITES.name, "queue" => queue).set(1.0);
        metrics::counter!(group_commit::REJECTED_WRITES.name, "queue" => queue).increment(1);
    }
    for collection in UNREADABLE.0 {
        UNREADABLE.record(collection, &std::fmt::Error);
    }
}

fn order_at(now: OffsetDateTime) -> Order {
    let id = OrderId::generate(now);
    Order::accepted(id, NewOrder::new("alice", &[(&id.as_uuid().to_string(), 1)]).unwrap(), now)
}

#[test]
fn all_series_are_preregistered() {
    let catalogue = METRICS.iter().map(|metric| (metric.exposed(), metric.labels));
    metrics_recorder::assert_all_preregistered(catalogue, register, record_everything);
}

#[test]
fn saga_finish_is_counted_once() {
    let recorder = MetricsRecorder::new();
    let _recording = recorder.install();
    let count = |metric: &str, outcome: &str| recorder.value(metric, &[("outcome", outcome)]);
    let now = OffsetDateTime::UNIX_EPOCH;
    let order = order_at(now);
    record_transition(Status::Pending, Status::ProductReserved, &order, now);
    record_transition(Status::ProductReserved, Status::Confirmed, &order, now);
    record_transition(Status::Confirmed, Status::Cancelled, &order, now);
    record_transition(Status::Pending, Status::Cancelled, &order, now);
    assert_eq!(count("palisade_orders_total", "confirmed").as_deref(), Some("1"));
    assert_eq!(count("palisade_orders_total", "cancelled").as_deref(), Some("2"));
    assert_eq!(count("palisade_saga_finished_total", "confirmed").as_deref(), Some("1"));
    assert_eq!(count("palisade_saga_finished_total", "cancelled").as_deref(), Some("1"), "the first saga had already finished");
}

#[test]
fn saga_is_late_after_thirty_seconds() {
    let recorder = MetricsRecorder::new();
    let _recording = recorder.install();
    let now = OffsetDateTime::UNIX_EPOCH;
    let order = Order { failure_reason: Some(FailureReason::PriceChanged), ..order_at(now) };
    let settle = |to, took| record_transition(Status::ProductReserved, to, &order, now + took);
    register();
    settle(Status::Confirmed, SETTLED_WITHIN);
    assert_eq!(recorder.value("palisade_saga_late_total", &[]).as_deref(), Some("0"));
    settle(Status::Failed, SETTLED_WITHIN + Duration::from_millis(1));
    assert_eq!(recorder.value("palisade_saga_late_total", &[]).as_deref(), Some("1"));
    // A later change of the order belongs to no saga.
    record_transition(Status::Confirmed, Status::Cancelled, &order, now + 2 * SETTLED_WITHIN);
    assert_eq!(recorder.value("palisade_saga_late_total", &[]).as_deref(), Some("1"));
    assert_eq!(recorder.value("palisade_saga_duration_seconds_count", &[("outcome", "confirmed")]).as_deref(), Some("1"));
    assert_eq!(recorder.value("palisade_orders_failures_total", &[("reason", "price_changed")]).as_deref(), Some("1"));
}
