//! Revisions: request, end, and races with status changes.

use std::time::Duration;

use palisade_middleware::preconditions::VersionPreconditions;
use palisade_orders::{
    order::{FailureReason, HeldLine, Line, Order, OrderId, Priced, ProductSnapshot, Status},
    saga::RevisionEnd,
    store::{Claimed, RequestRevisionResult, SetStatusResult, TransitionResult},
};
use uuid::Uuid;

use crate::database::{Database, LEASE, NOW, admin, any, owner};

crate::on_both![
    requested_revision_is_stored_and_leased,
    revised_order_has_the_new_lines,
    refused_revision_restores_the_order,
    revision_is_decided_by_status_version_and_lines,
    worker_takes_over_a_pending_revision,
    stale_holder_does_not_end_the_revision,
    cancellation_ends_a_pending_revision,
    order_with_a_pending_revision_is_not_completed,
    earlier_states_have_their_lines,
    concurrent_changes_are_decided_by_version,
];

const LATER: Duration = Duration::from_hours(1);

fn lines(lines: &[(u128, i64)]) -> Vec<Line> {
    lines.iter().map(|&(n, quantity)| Line { product_id: Uuid::from_u128(n), quantity, snapshot: None }).collect()
}

/// The revision to these lines, at 2.00 each.
fn revised(lines: &[Line]) -> RevisionEnd {
    let held = |line: &Line| HeldLine {
        product_id: line.product_id,
        quantity: line.quantity,
        snapshot: ProductSnapshot { name: "revised".into(), unit_price_minor: 200 },
    };
    RevisionEnd::Revised(Priced::new(lines, &lines.iter().map(held).collect::<Vec<_>>()).unwrap())
}

impl Database {
    async fn confirmed(&self) -> Order {
        self.confirm(&self.accept("alice", NOW).await, NOW).await.saga.order
    }

    async fn request_with(&self, id: OrderId, lines: Vec<Line>, conditions: VersionPreconditions) -> RequestRevisionResult {
        self.store.request_revision(id, (lines, None), owner(), conditions, LEASE, NOW + LATER).await.unwrap()
    }

    async fn request(&self, id: OrderId, lines: Vec<Line>) -> Claimed {
        match self.request_with(id, lines, any()).await {
            RequestRevisionResult::Requested(claimed) => claimed,
            other => panic!("{other:?}"),
        }
    }

    async fn end(&self, claimed: &Claimed, end: RevisionEnd) -> TransitionResult {
        self.store.end_revision(claimed.clone(), end, NOW + LATER * 2).await.unwrap()
    }

    async fn ended(&self, claimed: &Claimed, end: RevisionEnd) -> Order {
        match self.end(claimed, end).await {
            TransitionResult::Applied(claimed) => claimed.saga.order,
            TransitionResult::Fenced(order) => panic!("fenced: {order:?}"),
        }
    }
}

async fn requested_revision_is_stored_and_leased(db: Database) {
    let order = db.confirmed().await;
    let claimed = db.request(order.id, lines(&[(3, 4)])).await;
    let requested = &claimed.saga.order;
    assert_eq!(db.find(order.id).await, *requested, "the returned order equals the stored one");
    assert_eq!((requested.status, requested.version, requested.updated_at), (Status::Confirmed, order.version + 1, NOW + LATER));
    assert_eq!((&requested.lines, requested.total_minor), (&order.lines, order.total_minor), "until it ends");
    let revision = requested.revision.clone().unwrap();
    assert_eq!((revision.lines, revision.updated_before), (lines(&[(3, 4)]), order.updated_at));
    assert_eq!(db.store.claim_due(NOW + LATER, LEASE, 10).await.unwrap(), [], "leased");
    assert!(db.store.extend_lease(order.id, claimed.fence, NOW + LATER + LEASE * 2).await.unwrap());
    assert_eq!(db.store.claim_due(NOW + LATER + LEASE, LEASE, 10).await.unwrap(), []);
    assert_eq!(db.store.stats(NOW + LATER).await.unwrap().unfinished, [(Status::Confirmed, 1)]);
    db.assert_invariants(NOW + LATER).await;
}

async fn revised_order_has_the_new_lines(db: Database) {
    let order = db.confirmed().await;
    let new = lines(&[(3, 4), (1, 2)]);
    let claimed = db.request(order.id, new.clone()).await;
    let after = db.ended(&claimed, revised(&new)).await;
    assert_eq!(db.find(order.id).await, after);
    assert_eq!((after.version, after.updated_at, after.total_minor), (order.version + 2, NOW + LATER * 2, Some(1_200)));
    let stored: Vec<_> = after.lines.iter().map(|line| (line.product_id.as_u128(), line.quantity)).collect();
    assert_eq!((stored, after.revision), (vec![(3, 4), (1, 2)], None));
    assert_eq!(db.store.claim_due(NOW + LATER * 9, LEASE, 10).await.unwrap(), [], "no work is left");
    // Again, and the order can be cancelled afterwards.
    let claimed = db.request(order.id, lines(&[(3, 5)])).await;
    assert_eq!(db.ended(&claimed, revised(&lines(&[(3, 5)]))).await.total_minor, Some(1_000));
    db.store.set_status(order.id, Status::Cancelled, owner(), any(), NOW + LATER * 3).await.unwrap();
    let history = db.store.history_after(order.id, 0).await.unwrap();
    assert_eq!(history.iter().map(|order| order.version).collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
    let kinds = db.back_door.pairs("SELECT kind, kind FROM outbox ORDER BY version").await;
    let kinds: Vec<&str> = kinds.iter().filter_map(|(kind, _)| kind.strip_prefix("palisade.orders.v1.")).collect();
    let steps = ["revision_requested", "revised"];
    assert_eq!(kinds, [&["pending", "product_reserved", "confirmed"], &steps[..], &steps, &["cancelled"]].concat());
    db.assert_invariants(NOW + LATER * 3).await;
}

async fn refused_revision_restores_the_order(db: Database) {
    let order = db.confirmed().await;
    for (n, reason) in (1..).zip([FailureReason::InsufficientStock, FailureReason::UnknownProduct]) {
        let claimed = db.request(order.id, lines(&[(3, 4)])).await;
        let after = db.ended(&claimed, RevisionEnd::Refused(reason)).await;
        assert_eq!(db.find(order.id).await, after);
        assert_eq!(after, Order { version: order.version + 2 * n, ..order.clone() });
    }
    let steps = db.back_door.pairs("SELECT revision, actor FROM order_history WHERE revision IS NOT NULL ORDER BY version").await;
    let steps: Vec<_> = steps.iter().map(|(step, actor)| (step.as_str(), actor.as_str())).collect();
    assert_eq!(
        steps,
        [("revision_requested", "owner"), ("insufficient_stock", "saga"), ("revision_requested", "owner"), ("unknown_product", "saga")]
    );
    db.assert_invariants(NOW + LATER * 2).await;
}

async fn revision_is_decided_by_status_version_and_lines(db: Database) {
    let order = db.confirmed().await;
    let same = order.lines.iter().map(|line| Line { snapshot: None, ..line.clone() }).collect::<Vec<_>>();
    let expect = VersionPreconditions::expect;
    assert_eq!(db.request_with(order.id, same, any()).await, RequestRevisionResult::Unchanged(order.clone()));
    assert_eq!(db.request_with(order.id, lines(&[(3, 1)]), expect(2)).await, RequestRevisionResult::VersionMismatch);
    assert_eq!(db.request_with(Uuid::now_v7().into(), lines(&[(3, 1)]), any()).await, RequestRevisionResult::NotFound);
    let pending = db.request(order.id, lines(&[(3, 1)])).await.saga.order;
    assert_eq!(db.request_with(order.id, lines(&[(3, 1)]), expect(order.version)).await, RequestRevisionResult::Pending(pending));
    assert_eq!(db.request_with(order.id, lines(&[(3, 2)]), any()).await, RequestRevisionResult::InProgress);
    let accepted = db.accept("alice", NOW).await.saga.order;
    assert_eq!(db.request_with(accepted.id, lines(&[(3, 1)]), any()).await, RequestRevisionResult::Illegal(accepted));
    db.assert_invariants(NOW).await;
}

async fn worker_takes_over_a_pending_revision(db: Database) {
    let order = db.confirmed().await;
    let dead = db.request(order.id, lines(&[(3, 4)])).await;
    let claimed = db.store.claim_due(NOW + LATER + LEASE, LEASE, 10).await.unwrap().remove(0);
    assert_eq!((claimed.fence, claimed.saga.attempts), (dead.fence + 1, 2));
    assert_eq!(claimed.saga.order, dead.saga.order);
    assert!(db.store.postpone(order.id, claimed.fence, NOW + LATER * 2, "no answer".into()).await.unwrap());
    let stuck = db.store.stuck(NOW + LATER, 5, 10).await.unwrap();
    assert_eq!((stuck.len(), stuck[0].status, stuck[0].last_error.as_deref()), (1, Status::Confirmed, Some("no answer")));
    let claimed = db.store.claim_due(NOW + LATER * 2, LEASE, 10).await.unwrap().remove(0);
    assert!(db.ended(&claimed, revised(&lines(&[(3, 4)]))).await.revision.is_none());
    db.assert_invariants(NOW + LATER).await;
}

async fn stale_holder_does_not_end_the_revision(db: Database) {
    let order = db.confirmed().await;
    let stale = db.request(order.id, lines(&[(3, 4)])).await;
    let fresh = db.store.claim_due(NOW + LATER + LEASE, LEASE, 10).await.unwrap().remove(0);
    assert_eq!(
        db.end(&stale, RevisionEnd::Refused(FailureReason::ProductInactive)).await,
        TransitionResult::Fenced(fresh.saga.order.clone())
    );
    let after = db.ended(&fresh, revised(&lines(&[(3, 4)]))).await;
    // Neither can the holder end it twice.
    assert_eq!(db.end(&fresh, revised(&lines(&[(3, 4)]))).await, TransitionResult::Fenced(after));
    db.assert_invariants(NOW + LATER).await;
}

async fn cancellation_ends_a_pending_revision(db: Database) {
    let order = db.confirmed().await;
    let claimed = db.request(order.id, lines(&[(3, 4)])).await;
    let cancelled = db.store.set_status(order.id, Status::Cancelled, owner(), any(), NOW + LATER).await.unwrap();
    let SetStatusResult::Changed { order: cancelled, .. } = cancelled else { panic!("{cancelled:?}") };
    assert_eq!((cancelled.status, &cancelled.revision, cancelled.version), (Status::Cancelled, &None, order.version + 2));
    assert_eq!(db.find(order.id).await, cancelled);
    assert_eq!(db.end(&claimed, revised(&lines(&[(3, 4)]))).await, TransitionResult::Fenced(cancelled));
    assert!(db.store.claim_due(NOW + LATER, LEASE, 10).await.unwrap()[0].saga.release_pending);
    db.assert_invariants(NOW + LATER).await;
}

async fn order_with_a_pending_revision_is_not_completed(db: Database) {
    let order = db.confirmed().await;
    let pending = db.request(order.id, lines(&[(3, 4)])).await.saga.order;
    let completed = db.store.set_status(order.id, Status::Completed, admin(), any(), NOW + LATER).await.unwrap();
    assert_eq!(completed, SetStatusResult::Illegal { order: pending, allowed: &[Status::Cancelled] });
    // Nor by a replica of the previous release, which does not know revisions.
    let sql = "UPDATE orders SET status = 'COMPLETED', version = version + 1, due_at = NULL";
    db.back_door.execute(sql).await.unwrap_err();
    // Lines are deleted only while a revision is pending.
    let other = db.confirmed().await;
    assert_eq!(db.find(other.id).await.lines.len(), 2);
    db.back_door.execute("DELETE FROM order_lines").await.unwrap_err();
    db.assert_invariants(NOW + LATER).await;
}

async fn earlier_states_have_their_lines(db: Database) {
    let order = db.confirmed().await;
    let refused = db.request(order.id, lines(&[(9, 9)])).await;
    db.ended(&refused, RevisionEnd::Refused(FailureReason::UnknownProduct)).await;
    let claimed = db.request(order.id, lines(&[(3, 4)])).await;
    db.ended(&claimed, revised(&lines(&[(3, 4)]))).await;
    let claimed = db.request(order.id, lines(&[(4, 1)])).await;
    let pending = db.store.history_after(order.id, 1).await.unwrap();
    assert_eq!(pending.last().unwrap().revision, claimed.saga.order.revision, "the current state is complete");
    let last = db.ended(&claimed, revised(&lines(&[(4, 1)]))).await;
    let states = db.store.history_after(order.id, 1).await.unwrap();
    let totals: Vec<_> = states.iter().map(|state| (state.version, state.lines[0].quantity, state.total_minor)).collect();
    let old = |version| (version, 3, Some(600));
    let once = |version| (version, 4, Some(800));
    assert_eq!(totals, [old(2), old(3), old(4), old(5), old(6), once(7), once(8), (9, 1, Some(200))]);
    assert_eq!(states.last(), Some(&last));
    assert!(states.iter().all(|state| state.revision.is_none()));
}

async fn concurrent_changes_are_decided_by_version(db: Database) {
    for _ in 0..10 {
        let order = db.confirmed().await;
        let expected = VersionPreconditions::expect(order.version);
        let request = |n| db.store.request_revision(order.id, (lines(&[(n, 1)]), None), owner(), expected.clone(), LEASE, NOW + LATER);
        let set = |to, by| db.store.set_status(order.id, to, by, expected.clone(), NOW + LATER);
        let (one, other, cancelled, completed) =
            tokio::join!(request(3), request(4), set(Status::Cancelled, owner()), set(Status::Completed, admin()));
        let requested =
            [one.unwrap(), other.unwrap()].iter().filter(|result| matches!(result, RequestRevisionResult::Requested(_))).count();
        let changed =
            [cancelled.unwrap(), completed.unwrap()].iter().filter(|result| matches!(result, SetStatusResult::Changed { .. })).count();
        assert_eq!(requested + changed, 1);
        assert_eq!(db.find(order.id).await.version, order.version + 1);
    }
    db.assert_invariants(NOW).await;
}
