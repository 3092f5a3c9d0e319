use palisade_tests::recorded::{self, Recorded};
use time::OffsetDateTime;

use super::*;
use crate::{
    order::{FailureReason, NewOrder, OrderId},
    store::Create,
};

fn record_everything() {
    let now = OffsetDateTime::UNIX_EPOCH;
    let id = OrderId::generate(now);
    let order = NewOrder::new("alice", &[(&id.as_uuid().to_string(), 1)]).unwrap();
    let create = Create { id, order, lease: Duration::ZERO, deadline: now, trace_parent: None, key: None, retried: false };
    let claimed = create.claimed(now);
    for creation in [
        Creation::Created(claimed.clone()),
        Creation::Replayed { answer: Vec::new() },
        Creation::Existing(claimed.saga.order),
        Creation::KeyReused,
        Creation::InProgress,
    ] {
        asked_with_key(&creation);
    }
    saga_started();
    let (took, retry_after) = (Duration::from_secs(1), None);
    let refused = Reserve::Refused(FailureReason::UnknownProduct);
    for answer in [Reserve::Held(Vec::new()), refused, Reserve::Released, Reserve::Expired, Reserve::Unknown { retry_after }] {
        step_answered(&answer, took);
    }
    for answer in [Confirm::Confirmed, Confirm::Lost, Confirm::Unknown { retry_after }] {
        step_answered(&answer, took);
    }
    for answer in [Release::Done, Release::Unknown { retry_after }] {
        step_answered(&answer, took);
    }
    for from in Status::ALL {
        for to in Status::ALL.into_iter().filter(|to| from.may_become(*to)) {
            order_moved(from, to);
        }
    }
    let unfinished = UNFINISHED.into_iter().map(|status| (status, 1)).collect();
    measured(&Stats { unfinished, oldest_unfinished: took, unpublished: 1, oldest_unpublished: took, dead: 1 });
    for outcome in events::OUTCOMES {
        // As the relay does.
        events::handed_over(outcome).increment(1);
    }
    audited(1);
}

#[test]
fn every_series_is_there_at_zero_from_the_start_and_no_other_is_recorded() {
    let catalogue = METRICS.iter().map(|metric| (metric.exposed(), metric.labels));
    recorded::is_all_there_from_the_start(catalogue, register, record_everything);
}

#[test]
fn a_saga_ends_once() {
    let recorded = Recorded::new();
    let _recording = recorded.here();
    let count = |metric: &str, outcome: &str| recorded.value(metric, &[("outcome", outcome)]);
    order_moved(Status::Pending, Status::ProductReserved);
    order_moved(Status::ProductReserved, Status::Confirmed);
    order_moved(Status::Confirmed, Status::Cancelled);
    order_moved(Status::Pending, Status::Cancelled);
    assert_eq!(count("palisade_orders_total", "confirmed").as_deref(), Some("1"));
    assert_eq!(count("palisade_orders_total", "cancelled").as_deref(), Some("2"));
    assert_eq!(count("palisade_saga_finished_total", "confirmed").as_deref(), Some("1"));
    assert_eq!(count("palisade_saga_finished_total", "cancelled").as_deref(), Some("1"), "the other one had ended before");
}
