//! Property tests of the saga: any sequence, order and repetition of results from products keeps
//! the rules.

#![expect(clippy::unwrap_used, reason = "an unwrap in a test is an assertion")]

use std::time::Duration;

use palisade_middleware::preconditions::VersionPreconditions;
use palisade_orders::{
    order::{FailureReason, HeldLine, Line, MaxTotal, NewOrder, Order, OrderId, ProductSnapshot, Role, Status},
    saga::{
        ConfirmOutcome, Effect, Event, MAX_BACKOFF, ReleaseOutcome, ReserveOutcome, ReviseOutcome, RevisionEnd, RevisionRequest, Saga,
        StatusChange, Transition, request_conditional_change, request_revision, request_status_change,
    },
};
use proptest::prelude::*;
use time::OffsetDateTime;
use uuid::Uuid;

const PRODUCT: Uuid = Uuid::from_u128(7);
const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
const DEADLINE: Duration = Duration::from_mins(10);

#[derive(Debug, Clone)]
enum Step {
    Handle(Event),
    RequestStatus(Status, Role),
    /// Of this quantity.
    RequestRevision(i64),
    Wait(Duration),
}

fn saga() -> Saga {
    let new = NewOrder::new("alice", &[(&PRODUCT.to_string(), 2)]).unwrap();
    let order = Order::accepted(OrderId::generate(START), new, START);
    Saga { order, release_pending: false, deadline: START + DEADLINE, attempts: 1, max_total: None }
}

/// Total of the reservation of [`held`], minor units.
const TOTAL: i64 = 300;

fn held() -> ReserveOutcome {
    ReserveOutcome::Held(held_lines(TOTAL / 2))
}

fn held_lines(unit_price_minor: i64) -> Vec<HeldLine> {
    vec![HeldLine { product_id: PRODUCT, quantity: 2, snapshot: ProductSnapshot { name: "pen".into(), unit_price_minor } }]
}

fn lines_of(quantity: i64) -> Vec<HeldLine> {
    held_lines(150).into_iter().map(|line| HeldLine { quantity, ..line }).collect()
}

fn retry_after() -> impl Strategy<Value = Option<Duration>> {
    prop::option::of((0..120_000_u64).prop_map(Duration::from_millis))
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Resumed),
        Just(Event::ReserveReturned(held())),
        Just(Event::ReserveReturned(ReserveOutcome::Confirmed(held_lines(TOTAL / 2)))),
        Just(Event::ReserveReturned(ReserveOutcome::Held(held_lines(i64::MAX)))),
        Just(Event::ReserveReturned(ReserveOutcome::Held(vec![]))),
        prop::sample::select(&[
            FailureReason::InsufficientStock,
            FailureReason::UnknownProduct,
            FailureReason::ProductInactive,
            FailureReason::PriceChanged,
        ])
        .prop_map(|reason| Event::ReserveReturned(ReserveOutcome::Rejected(reason))),
        Just(Event::ReserveReturned(ReserveOutcome::Released)),
        Just(Event::ReserveReturned(ReserveOutcome::Expired)),
        retry_after().prop_map(|retry_after| Event::ReserveReturned(ReserveOutcome::Unknown { retry_after })),
        Just(Event::ConfirmReturned(ConfirmOutcome::Confirmed)),
        Just(Event::ConfirmReturned(ConfirmOutcome::Lost)),
        retry_after().prop_map(|retry_after| Event::ConfirmReturned(ConfirmOutcome::Unknown { retry_after })),
        Just(Event::ReleaseReturned(ReleaseOutcome::Done)),
        retry_after().prop_map(|retry_after| Event::ReleaseReturned(ReleaseOutcome::Unknown { retry_after })),
        (1..4_i64).prop_map(|quantity| Event::ReviseReturned(ReviseOutcome::Revised(lines_of(quantity)))),
        Just(Event::ReviseReturned(ReviseOutcome::Refused(FailureReason::InsufficientStock))),
        Just(Event::ReviseReturned(ReviseOutcome::Lost)),
        retry_after().prop_map(|retry_after| Event::ReviseReturned(ReviseOutcome::Unknown { retry_after })),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => event().prop_map(Step::Handle),
        1 => (prop::sample::select(&Status::ALL), prop::sample::select(&[Role::Owner, Role::Admin])).prop_map(|(to, by)| Step::RequestStatus(to, by)),
        1 => (1..4_i64).prop_map(Step::RequestRevision),
        2 => (0..300_u64).prop_map(|seconds| Step::Wait(Duration::from_secs(seconds))),
    ]
}

/// Checks a transition against the rules and records it.
fn record(saga: Saga, transition: &Transition, by: Role, event: Option<&Event>, now: OffsetDateTime) -> Saga {
    assert_eq!(transition.from, saga.order.status);
    assert!(
        transition.from.allowed_transitions(by).contains(&transition.to),
        "{by:?} may not change to {} from {}",
        transition.to,
        transition.from
    );
    match transition.to {
        Status::Failed => {
            let rejected = matches!(event, Some(Event::ReserveReturned(ReserveOutcome::Rejected(_))));
            assert_eq!(transition.release, !rejected, "units may be held unless products rejected the reservation");
            assert!(transition.reason.is_some());
            if transition.reason == Some(FailureReason::ProductsUnavailable) {
                assert!(now >= saga.deadline, "without a definite result an order fails only at the deadline");
            }
            if transition.reason == Some(FailureReason::PriceChanged) && !rejected {
                assert!(saga.max_total.is_some(), "without a maximum no total is too high");
            }
        }
        Status::Cancelled => assert!(transition.release),
        Status::ProductReserved => {
            let total = transition.priced.as_ref().unwrap().total_minor();
            assert!(saga.max_total.is_none_or(|max| max.allows(total)), "{total} is above {:?}", saga.max_total);
            assert!(!transition.release && transition.reason.is_none());
        }
        _ => assert!(!transition.release && transition.reason.is_none()),
    }
    let after = saga.after(transition, now);
    assert_eq!(after.order.total_minor.is_some(), after.order.lines.iter().all(|line| line.snapshot.is_some()));
    after
}

/// Checks the end of a revision against the rules and records it.
fn end_revision(mut saga: Saga, end: &RevisionEnd, event: &Event, now: OffsetDateTime) -> Saga {
    let before = saga.order.clone();
    let revision = before.revision.clone().expect("a revision is pending");
    saga.order = end.apply(saga.order, now);
    assert_eq!((saga.order.status, saga.order.version, &saga.order.revision), (Status::Confirmed, before.version + 1, &None));
    match end {
        RevisionEnd::Revised(_) => {
            assert_eq!(saga.order.lines[0].quantity, revision.lines[0].quantity);
            assert_eq!(saga.order.total_minor, saga.order.lines[0].subtotal_minor());
        }
        RevisionEnd::Refused(_) => {
            assert!(
                matches!(event, Event::ReviseReturned(ReviseOutcome::Refused(_) | ReviseOutcome::Lost)),
                "an unknown outcome is no end"
            );
            assert_eq!((&saga.order.lines, saga.order.total_minor), (&before.lines, before.total_minor));
        }
    }
    saga
}

/// Handles an event and its follow-up transitions until the saga waits for products or for time.
fn handle(mut saga: Saga, event: Event, now: OffsetDateTime, random: u32) -> (Saga, Effect) {
    let mut event = event;
    loop {
        match saga.handle(event.clone(), now, random) {
            Effect::Record(transitions) => {
                for transition in &transitions {
                    saga = record(saga, transition, Role::Saga, Some(&event), now);
                }
                event = Event::Resumed;
            }
            Effect::RecordReleased => {
                assert!(saga.release_pending);
                saga.release_pending = false;
                event = Event::Resumed;
            }
            Effect::EndRevision(end) => {
                saga = end_revision(saga, &end, &event, now);
                event = Event::Resumed;
            }
            effect => return (saga, effect),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_event_sequence_keeps_the_rules_and_can_finish(
        steps in prop::collection::vec((step(), any::<u32>()), 0..60),
        max_total in prop::sample::select(&[None, Some(TOTAL - 1), Some(TOTAL)]),
    ) {
        let mut saga = Saga { max_total: max_total.map(|minor| MaxTotal::new(minor).unwrap()), ..saga() };
        let mut now = START;
        for (step, random) in steps {
            let before = saga.order.clone();
            match step {
                Step::Wait(time) => now += time,
                Step::RequestStatus(to, by) => {
                    let change = request_conditional_change(&saga.order, to, by, &VersionPreconditions::default());
                    if let StatusChange::Allowed(transition) = change {
                        prop_assert!(saga.order.revision.is_none() || to == Status::Cancelled);
                        saga = record(saga, &transition, by, None, now);
                    }
                }
                Step::RequestRevision(quantity) => {
                    let lines = vec![Line { product_id: PRODUCT, quantity, snapshot: None }];
                    if let RevisionRequest::Allowed(order) = request_revision(&saga.order, (lines, None), &VersionPreconditions::default(), now) {
                        prop_assert_eq!((before.status, order.version, &before.revision), (Status::Confirmed, before.version + 1, &None));
                        saga = Saga { order: *order, attempts: 1, ..saga };
                    }
                }
                Step::Handle(event) => {
                    let (after, effect) = handle(saga, event, now, random);
                    saga = after;
                    match effect {
                        Effect::CallReserve => prop_assert_eq!(saga.order.status, Status::Pending),
                        Effect::CallConfirm => prop_assert_eq!(saga.order.status, Status::ProductReserved),
                        Effect::CallRelease => prop_assert!(saga.release_pending),
                        Effect::RetryAt(at) => prop_assert!(at >= now && at <= now + MAX_BACKOFF),
                        Effect::Finished => prop_assert!(saga.is_finished()),
                        Effect::CallRevise => prop_assert!(saga.order.revision.is_some()),
                        Effect::Record(_) | Effect::RecordReleased | Effect::EndRevision(_) => unreachable!("recorded"),
                    }
                }
            }
            if before.status.is_terminal() {
                prop_assert_eq!(&saga.order, &before, "a terminal status is final");
            }
        }
        // If products responds, every order finishes within a few calls.
        let mut event = Event::Resumed;
        for _ in 0..4 {
            let (after, effect) = handle(saga, event, now, 0);
            saga = after;
            event = match effect {
                Effect::CallReserve => Event::ReserveReturned(held()),
                Effect::CallConfirm => Event::ConfirmReturned(ConfirmOutcome::Confirmed),
                Effect::CallRelease => Event::ReleaseReturned(ReleaseOutcome::Done),
                Effect::CallRevise => {
                    let quantity = saga.order.revision.as_ref().map(|revision| revision.lines[0].quantity);
                    Event::ReviseReturned(ReviseOutcome::Revised(lines_of(quantity.unwrap_or_default())))
                }
                _ => break,
            };
        }
        prop_assert!(saga.is_finished());
    }
}

#[test]
fn unknown_reserve_fails_only_at_the_deadline() {
    let unknown = Event::ReserveReturned(ReserveOutcome::Unknown { retry_after: None });
    let saga = saga();
    for seconds in 0..600 {
        let now = START + Duration::from_secs(seconds);
        assert!(matches!(saga.handle(unknown.clone(), now, u32::MAX), Effect::RetryAt(at) if at > now && at <= saga.deadline));
    }
    let Effect::Record(transitions) = saga.handle(unknown, saga.deadline, 0) else { panic!("the order must fail at its deadline") };
    let [failed] = &transitions[..] else { panic!("{transitions:?}") };
    assert_eq!((failed.to, failed.reason, failed.release), (Status::Failed, Some(FailureReason::ProductsUnavailable), true));
}

#[test]
fn total_above_the_maximum_fails_with_a_release() {
    let with_max = |minor: i64| Saga { max_total: Some(MaxTotal::new(minor).unwrap()), ..saga() };
    for (saga, price) in [(with_max(TOTAL - 1), TOTAL / 2), (with_max(0), 1), (with_max(MaxTotal::MAX), i64::MAX)] {
        for outcome in [ReserveOutcome::Held(held_lines(price)), ReserveOutcome::Confirmed(held_lines(price))] {
            let Effect::Record(transitions) = saga.handle(Event::ReserveReturned(outcome), START, 0) else { panic!("the order must fail") };
            let [failed] = &transitions[..] else { panic!("{transitions:?}") };
            assert_eq!((failed.to, failed.reason, failed.release), (Status::Failed, Some(FailureReason::PriceChanged), true));
        }
    }
    for saga in [with_max(TOTAL), saga()] {
        let effect = saga.handle(Event::ReserveReturned(held()), START, 0);
        assert!(matches!(effect, Effect::Record(steps) if steps[0].to == Status::ProductReserved));
    }
}

#[test]
fn resume_after_deadline_fails_without_a_call() {
    let saga = saga();
    assert!(
        matches!(saga.handle(Event::Resumed, saga.deadline, 0), Effect::Record(steps) if steps[0].to == Status::Failed && steps[0].release)
    );
}

#[test]
fn reserve_after_the_deadline_still_counts() {
    let saga = saga();
    let effect = saga.handle(Event::ReserveReturned(held()), saga.deadline, 0);
    assert!(matches!(effect, Effect::Record(steps) if steps[0].to == Status::ProductReserved));
}

#[test]
fn backoff_doubles_to_its_maximum_with_full_jitter() {
    let now = START;
    let wait = |attempts, random, retry_after| {
        let saga = Saga { attempts, ..saga() };
        match saga.handle(Event::ReserveReturned(ReserveOutcome::Unknown { retry_after }), now, random) {
            Effect::RetryAt(at) => u64::try_from((at - now).whole_milliseconds()).unwrap(),
            effect => panic!("{effect:?}"),
        }
    };
    assert_eq!([1, 2, 3, 7, 99, u32::MAX].map(|attempts| wait(attempts, u32::MAX, None)), [499, 999, 1_999, 4_999, 4_999, 4_999]);
    assert_eq!(wait(9, 0, None), 0);
    assert_eq!(wait(1, u32::MAX / 2, None), 249);
    assert_eq!(wait(1, 0, Some(Duration::from_secs(2))), 2_000, "the requested retry delay takes precedence");
    assert_eq!(wait(1, 0, Some(Duration::from_hours(1))), 5_000, "but is capped");
}

#[test]
fn status_change_requires_permission() {
    assert_eq!(request_status_change(Status::Failed, Status::Failed, Role::Owner), StatusChange::Unchanged);
    assert_eq!(request_status_change(Status::Pending, Status::Confirmed, Role::Admin), StatusChange::Illegal(&[Status::Cancelled]));
    assert_eq!(request_status_change(Status::Confirmed, Status::Completed, Role::Owner), StatusChange::Illegal(&[Status::Cancelled]));
    assert!(
        matches!(request_status_change(Status::Confirmed, Status::Completed, Role::Admin), StatusChange::Allowed(transition) if !transition.release)
    );
    assert!(
        matches!(request_status_change(Status::Confirmed, Status::Cancelled, Role::Owner), StatusChange::Allowed(transition) if transition.release)
    );
    assert_eq!(request_status_change(Status::Cancelled, Status::Completed, Role::Admin), StatusChange::Illegal(&[]));
}
