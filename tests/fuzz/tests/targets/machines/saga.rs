//! Saga of an order, with any results of the products service.

use std::time::Duration;

use palisade_middleware::preconditions::VersionPreconditions;
use palisade_orders::{
    order::{FailureReason, HeldLine, Line, MaxTotal, NewOrder, Order, OrderId, ProductSnapshot, Role, Status},
    saga::{
        ConfirmOutcome, Effect, Event, MAX_BACKOFF, ReleaseOutcome, ReserveOutcome, ReviseOutcome, RevisionRequest, Saga, StatusChange,
        Transition, request_conditional_change, request_revision,
    },
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::targets::input::Input;

const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
const DEADLINE: Duration = Duration::from_mins(10);

fn held(bytes: &mut Input<'_>) -> Vec<HeldLine> {
    let price = |bytes: &mut Input<'_>| if bytes.below(4) == 0 { bytes.i64() } else { bytes.byte().into() };
    let line = |bytes: &mut Input<'_>| HeldLine {
        product_id: Uuid::from_u128(bytes.below(3).into()),
        quantity: bytes.below(4).into(),
        snapshot: ProductSnapshot { name: "pen".into(), unit_price_minor: price(bytes) },
    };
    (0..bytes.below(3)).map(|_| line(bytes)).collect()
}

/// Returns the lines of the order, as products holds them.
fn held_for(lines: &[Line], bytes: &mut Input<'_>) -> Vec<HeldLine> {
    let snapshot = ProductSnapshot { name: "pen".into(), unit_price_minor: bytes.byte().into() };
    lines.iter().map(|line| HeldLine { product_id: line.product_id, quantity: line.quantity, snapshot: snapshot.clone() }).collect()
}

fn event(saga: &Saga, bytes: &mut Input<'_>) -> Event {
    let lines = saga.order.revision.as_ref().map_or(&saga.order.lines, |revision| &revision.lines);
    let held = if bytes.below(4) == 0 { held(bytes) } else { held_for(lines, bytes) };
    let reason = FailureReason::ALL[usize::from(bytes.below(6))];
    let retry_after = bytes.flag().then(|| Duration::from_millis(bytes.millis()));
    match bytes.below(15) {
        0 => Event::Resumed,
        1 => Event::ReserveReturned(ReserveOutcome::Held(held)),
        2 => Event::ReserveReturned(ReserveOutcome::Confirmed(held)),
        3 => Event::ReserveReturned(ReserveOutcome::Rejected(reason)),
        4 => Event::ReserveReturned(ReserveOutcome::Released),
        5 => Event::ReserveReturned(ReserveOutcome::Expired),
        6 => Event::ReserveReturned(ReserveOutcome::Unknown { retry_after }),
        7 => Event::ConfirmReturned(ConfirmOutcome::Confirmed),
        8 => Event::ConfirmReturned(ConfirmOutcome::Lost),
        9 => Event::ConfirmReturned(ConfirmOutcome::Unknown { retry_after }),
        10 => Event::ReleaseReturned(ReleaseOutcome::Done),
        11 => Event::ReleaseReturned(ReleaseOutcome::Unknown { retry_after }),
        12 => Event::ReviseReturned(ReviseOutcome::Revised(held)),
        13 => Event::ReviseReturned(ReviseOutcome::Refused(reason)),
        _ => Event::ReviseReturned(ReviseOutcome::Lost),
    }
}

/// Checks what holds of every stored state.
fn check(before: &Saga, after: &Saga) {
    let order = &after.order;
    assert!(order.version > before.order.version);
    assert_eq!((order.id, &order.user_id, order.created_at), (before.order.id, &before.order.user_id, before.order.created_at));
    assert_eq!(order.failure_reason.is_some(), order.status == Status::Failed);
    assert!(order.revision.is_none() || order.status == Status::Confirmed);
    assert!(order.total_minor.is_none_or(|total| total >= 0));
    let subtotals: Option<i64> = order.lines.iter().map(Line::subtotal_minor).sum();
    assert_eq!(order.total_minor, subtotals, "the total is the sum of the lines");
    assert!(!before.order.status.is_terminal() || order.status == before.order.status, "a terminal order stays as it is");
}

fn record(saga: Saga, transitions: &[Transition], by: Role, now: OffsetDateTime) -> Saga {
    let mut saga = saga;
    assert!(!transitions.is_empty());
    for transition in transitions {
        assert_eq!(transition.from, saga.order.status);
        assert!(transition.from.allowed_transitions(by).contains(&transition.to));
        let after = saga.clone().after(transition, now);
        check(&saga, &after);
        saga = after;
    }
    saga
}

/// Handles one event. A definitive rejection of the reservation is the only failure without a
/// release, and without any definitive result an order fails only at its deadline.
fn handle(mut saga: Saga, bytes: &mut Input<'_>, now: OffsetDateTime) -> Saga {
    let event = event(&saga, bytes);
    let was_rejected = matches!(event, Event::ReserveReturned(ReserveOutcome::Rejected(_)));
    let is_definite = !matches!(event, Event::Resumed | Event::ReserveReturned(ReserveOutcome::Unknown { .. }));
    match saga.handle(event, now, u32::from(bytes.u16()) << 16) {
        Effect::Record(transitions) => {
            for failed in transitions.iter().filter(|transition| transition.to == Status::Failed) {
                assert_eq!(failed.release, !was_rejected);
                assert!(is_definite || now >= saga.deadline);
            }
            record(saga, &transitions, Role::Saga, now)
        }
        Effect::RecordReleased => {
            assert!(saga.release_pending);
            saga.release_pending = false;
            saga
        }
        Effect::EndRevision(end) => {
            let before = saga.clone();
            saga.order = end.apply(saga.order, now);
            check(&before, &saga);
            saga
        }
        Effect::RetryAt(at) => {
            assert!(at >= now && at <= now + MAX_BACKOFF);
            assert!(saga.order.status != Status::Pending || at <= saga.deadline);
            saga
        }
        Effect::CallRelease => {
            assert!(saga.release_pending);
            saga
        }
        Effect::CallReserve => {
            assert!(saga.order.status == Status::Pending && now < saga.deadline);
            saga
        }
        Effect::CallConfirm => {
            assert_eq!(saga.order.status, Status::ProductReserved);
            saga
        }
        Effect::CallRevise => {
            assert!(saga.order.revision.is_some());
            saga
        }
        Effect::Finished => {
            assert!(saga.is_finished());
            saga
        }
    }
}

/// A change that a user requests.
fn request(mut saga: Saga, bytes: &mut Input<'_>, now: OffsetDateTime) -> Saga {
    let by = [Role::Owner, Role::Admin][usize::from(bytes.below(2))];
    let preconditions = match bytes.below(4) {
        0 => VersionPreconditions::expect(bytes.byte().into()),
        _ => VersionPreconditions::default(),
    };
    if bytes.flag() {
        let to = Status::ALL[usize::from(bytes.below(6))];
        return match request_conditional_change(&saga.order, to, by, &preconditions) {
            StatusChange::Allowed(transition) => {
                assert!(preconditions.allow_write(&saga.order.version));
                assert_eq!(transition.release, to == Status::Cancelled);
                record(saga, &[transition], by, now)
            }
            StatusChange::Unchanged => {
                assert_eq!(saga.order.status, to);
                saga
            }
            StatusChange::Illegal(_) | StatusChange::VersionMismatch => saga,
        };
    }
    let line = Line { product_id: Uuid::from_u128(1), quantity: 1 + i64::from(bytes.below(3)), snapshot: None };
    if let RevisionRequest::Allowed(order) = request_revision(&saga.order, (vec![line], None), &preconditions, now) {
        assert_eq!((saga.order.status, &saga.order.revision), (Status::Confirmed, &None));
        assert!(!saga.release_pending);
        assert_eq!(order.version, saga.order.version + 1);
        saga.order = *order;
    }
    saga
}

/// Any sequence of results, requests and time keeps the rules of the order.
pub(crate) fn saga(input: &[u8]) {
    let mut bytes = Input::new(input);
    let items: Vec<_> =
        (0..=bytes.below(2)).map(|product| (Uuid::from_u128(product.into()).to_string(), 1 + i64::from(bytes.below(3)))).collect();
    let items: Vec<_> = items.iter().map(|(product, quantity)| (product.as_str(), *quantity)).collect();
    let new = NewOrder::new(palisade_auth::Subject::parse("alice").unwrap(), &items).unwrap();
    let order = Order::accepted(OrderId::from(Uuid::nil()), new, START);
    let max_total = bytes.flag().then(|| MaxTotal::new(bytes.byte().into()).unwrap());
    let mut saga = Saga { order, release_pending: false, deadline: START + DEADLINE, attempts: 1, max_total };
    let mut now = START;
    while !bytes.is_empty() {
        match bytes.below(4) {
            0 => now += Duration::from_millis(bytes.millis() % 300_000),
            1 => saga = request(saga, &mut bytes, now),
            _ => saga = handle(saga, &mut bytes, now),
        }
        saga.attempts = saga.attempts.saturating_add(bytes.below(2).into());
    }
}
