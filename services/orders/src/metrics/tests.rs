use palisade_tests::metrics_recorder::{self, MetricsRecorder};
use time::OffsetDateTime;

use super::*;
use crate::{
    order::{Actor, FailureReason, NewOrder, OrderId, Priced},
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
    for from in Status::ALL {
        for to in Status::ALL.into_iter().filter(|to| from.can_become(*to)) {
            record_transition(from, to);
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
    record_transition(Status::Pending, Status::ProductReserved);
    record_transition(Status::ProductReserved, Status::Confirmed);
    record_transition(Status::Confirmed, Status::Cancelled);
    record_transition(Status::Pending, Status::Cancelled);
    assert_eq!(count("palisade_orders_total", "confirmed").as_deref(), Some("1"));
    assert_eq!(count("palisade_orders_total", "cancelled").as_deref(), Some("2"));
    assert_eq!(count("palisade_saga_finished_total", "confirmed").as_deref(), Some("1"));
    assert_eq!(count("palisade_saga_finished_total", "cancelled").as_deref(), Some("1"), "the first saga had already finished");
}
