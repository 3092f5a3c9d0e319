//! Whatever products says, in whatever order and however often, the saga keeps its rules.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::time::Duration;

use palisade_orders::{
    order::{Actor, Copied, FailureReason, HeldLine, NewOrder, Order, OrderId, Status},
    saga::{Confirm, Effect, Event, LONGEST_WAIT_MS, Release, Reserve, Saga, Transition, Wish, wish},
};
use proptest::prelude::*;
use time::OffsetDateTime;
use uuid::Uuid;

const PRODUCT: Uuid = Uuid::from_u128(7);
const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
const DEADLINE: Duration = Duration::from_mins(10);

#[derive(Debug, Clone)]
enum Step {
    Hear(Event),
    Wish(Status, Actor),
    Wait(Duration),
}

fn saga() -> Saga {
    let new = NewOrder::new("alice", &[(&PRODUCT.to_string(), 2)]).unwrap();
    let order = Order::accepted(OrderId::generate(START), new, START);
    Saga { order, release_pending: false, deadline: START + DEADLINE, attempts: 1 }
}

fn held() -> Reserve {
    Reserve::Held(vec![HeldLine { product_id: PRODUCT, quantity: 2, copied: Copied { name: "pen".into(), unit_price_minor: 150 } }])
}

fn retry_after() -> impl Strategy<Value = Option<Duration>> {
    prop::option::of((0..120_000_u64).prop_map(Duration::from_millis))
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Resumed),
        Just(Event::ReserveAnswered(held())),
        Just(Event::ReserveAnswered(Reserve::Held(vec![]))),
        prop::sample::select(&[FailureReason::InsufficientStock, FailureReason::UnknownProduct, FailureReason::ProductInactive])
            .prop_map(|reason| Event::ReserveAnswered(Reserve::Refused(reason))),
        Just(Event::ReserveAnswered(Reserve::Released)),
        Just(Event::ReserveAnswered(Reserve::Expired)),
        retry_after().prop_map(|retry_after| Event::ReserveAnswered(Reserve::Unknown { retry_after })),
        Just(Event::ConfirmAnswered(Confirm::Confirmed)),
        Just(Event::ConfirmAnswered(Confirm::Lost)),
        retry_after().prop_map(|retry_after| Event::ConfirmAnswered(Confirm::Unknown { retry_after })),
        Just(Event::ReleaseAnswered(Release::Done)),
        retry_after().prop_map(|retry_after| Event::ReleaseAnswered(Release::Unknown { retry_after })),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => event().prop_map(Step::Hear),
        1 => (prop::sample::select(&Status::ALL), prop::sample::select(&[Actor::Owner, Actor::Admin])).prop_map(|(to, by)| Step::Wish(to, by)),
        2 => (0..300_u64).prop_map(|seconds| Step::Wait(Duration::from_secs(seconds))),
    ]
}

/// Checks a change against the rules, and records it.
fn record(saga: Saga, transition: &Transition, by: Actor, heard: Option<&Event>, now: OffsetDateTime) -> Saga {
    assert_eq!(transition.from, saga.order.status);
    assert!(transition.from.allowed(by).contains(&transition.to), "{by:?} made {} of {}", transition.to, transition.from);
    match transition.to {
        Status::Failed => {
            let refused = matches!(heard, Some(Event::ReserveAnswered(Reserve::Refused(_))));
            assert_eq!(transition.release, !refused, "units may be held unless products refused");
            assert!(transition.reason.is_some());
            if transition.reason == Some(FailureReason::ProductsUnavailable) {
                assert!(now >= saga.deadline, "only the deadline fails an order without an answer");
            }
        }
        Status::Cancelled => assert!(transition.release),
        _ => assert!(!transition.release && transition.reason.is_none()),
    }
    let after = saga.after(transition, now);
    assert_eq!(after.order.total_minor.is_some(), after.order.lines.iter().all(|line| line.copied.is_some()));
    after
}

/// One event, and what follows from it until the saga waits for products or for time.
fn hear(mut saga: Saga, event: Event, now: OffsetDateTime, random: u32) -> (Saga, Effect) {
    let mut event = event;
    loop {
        match saga.on(event.clone(), now, random) {
            Effect::Record(transition) => {
                saga = record(saga, &transition, Actor::Saga, Some(&event), now);
                event = Event::Resumed;
            }
            Effect::RecordReleased => {
                assert!(saga.release_pending);
                saga.release_pending = false;
                event = Event::Resumed;
            }
            effect => return (saga, effect),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_sequence_of_events_keeps_the_rules_and_can_end(steps in prop::collection::vec((step(), any::<u32>()), 0..60)) {
        let mut saga = saga();
        let mut now = START;
        for (step, random) in steps {
            let before = saga.order.clone();
            match step {
                Step::Wait(time) => now += time,
                Step::Wish(to, by) => {
                    if let Wish::Granted(transition) = wish(saga.order.status, to, by) {
                        saga = record(saga, &transition, by, None, now);
                    }
                }
                Step::Hear(event) => {
                    let (after, effect) = hear(saga, event, now, random);
                    saga = after;
                    match effect {
                        Effect::CallReserve => prop_assert_eq!(saga.order.status, Status::Pending),
                        Effect::CallConfirm => prop_assert_eq!(saga.order.status, Status::ProductReserved),
                        Effect::CallRelease => prop_assert!(saga.release_pending),
                        Effect::RetryAt(at) => prop_assert!(at >= now && at <= now + Duration::from_millis(LONGEST_WAIT_MS)),
                        Effect::Finished => prop_assert!(saga.is_finished()),
                        Effect::Record(_) | Effect::RecordReleased => unreachable!("recorded"),
                    }
                }
            }
            if before.status.is_terminal() {
                prop_assert_eq!(&saga.order, &before, "nothing leaves a terminal status");
            }
        }
        // Products that answer end every order in a few calls.
        let mut event = Event::Resumed;
        for _ in 0..4 {
            let (after, effect) = hear(saga, event, now, 0);
            saga = after;
            event = match effect {
                Effect::CallReserve => Event::ReserveAnswered(held()),
                Effect::CallConfirm => Event::ConfirmAnswered(Confirm::Confirmed),
                Effect::CallRelease => Event::ReleaseAnswered(Release::Done),
                _ => break,
            };
        }
        prop_assert!(saga.is_finished());
    }
}

#[test]
fn no_answer_is_no_failure_until_the_deadline() {
    let unknown = Event::ReserveAnswered(Reserve::Unknown { retry_after: None });
    let saga = saga();
    for seconds in 0..600 {
        let now = START + Duration::from_secs(seconds);
        assert!(matches!(saga.on(unknown.clone(), now, u32::MAX), Effect::RetryAt(at) if at > now && at <= saga.deadline));
    }
    let Effect::Record(transition) = saga.on(unknown, saga.deadline, 0) else { panic!("it must fail") };
    assert_eq!((transition.to, transition.reason, transition.release), (Status::Failed, Some(FailureReason::ProductsUnavailable), true));
}

#[test]
fn a_worker_that_comes_after_the_deadline_fails_the_order_without_asking() {
    let saga = saga();
    assert!(
        matches!(saga.on(Event::Resumed, saga.deadline, 0), Effect::Record(transition) if transition.to == Status::Failed && transition.release)
    );
}

#[test]
fn a_hold_that_answers_after_the_deadline_still_counts() {
    let saga = saga();
    let effect = saga.on(Event::ReserveAnswered(held()), saga.deadline, 0);
    assert!(matches!(effect, Effect::Record(transition) if transition.to == Status::ProductReserved));
}

#[test]
fn waits_double_up_to_their_longest_and_spread_over_all_of_it() {
    let now = START;
    let wait = |attempts, random, retry_after| {
        let saga = Saga { attempts, ..saga() };
        match saga.on(Event::ReserveAnswered(Reserve::Unknown { retry_after }), now, random) {
            Effect::RetryAt(at) => u64::try_from((at - now).whole_milliseconds()).unwrap(),
            effect => panic!("{effect:?}"),
        }
    };
    assert_eq!([1, 2, 3, 7, 99, u32::MAX].map(|attempts| wait(attempts, u32::MAX, None)), [499, 999, 1_999, 29_999, 29_999, 29_999]);
    assert_eq!(wait(9, 0, None), 0);
    assert_eq!(wait(1, u32::MAX / 2, None), 249);
    assert_eq!(wait(1, 0, Some(Duration::from_secs(2))), 2_000, "products knows better");
    assert_eq!(wait(1, 0, Some(Duration::from_hours(1))), LONGEST_WAIT_MS, "but not for ever");
}

#[test]
fn a_wish_is_granted_only_to_who_may() {
    assert_eq!(wish(Status::Failed, Status::Failed, Actor::Owner), Wish::Same);
    assert_eq!(wish(Status::Pending, Status::Confirmed, Actor::Admin), Wish::Illegal(&[Status::Cancelled]));
    assert_eq!(wish(Status::Confirmed, Status::Completed, Actor::Owner), Wish::Illegal(&[Status::Cancelled]));
    assert!(matches!(wish(Status::Confirmed, Status::Completed, Actor::Admin), Wish::Granted(transition) if !transition.release));
    assert!(matches!(wish(Status::Confirmed, Status::Cancelled, Actor::Owner), Wish::Granted(transition) if transition.release));
    assert_eq!(wish(Status::Cancelled, Status::Completed, Actor::Admin), Wish::Illegal(&[]));
}
