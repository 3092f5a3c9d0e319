use super::*;
use Priority::{Batch, BestEffort, Critical, Default as Usual};

const MS: Duration = Duration::from_millis(1);
/// A limit without a reserve.
const LIMIT: usize = 7;
const ONE: CallerKey = CallerKey::number(1);

fn queue(draw: RandomFn) -> Queue<u32> {
    Queue::new(&Config::default(), draw)
}

fn swept(queue: &mut Queue<u32>, now: Instant) -> Vec<(u32, ShedReason)> {
    let mut leaving = Vec::new();
    queue.sweep(1, now, &mut leaving);
    leaving
}

fn next(queue: &mut Queue<u32>, owed: impl Fn(Priority) -> bool) -> Option<(Priority, u32)> {
    queue.pop_next(owed, |_, _, _| true).map(|(priority, _, item)| (priority, item))
}

fn take(queue: &mut Queue<u32>) -> Option<u32> {
    next(queue, |_| false).map(|(_, item)| item)
}

#[test]
fn queue_evicts_expired_waiters_at_any_position() {
    let (mut queue, now) = (queue(|| 0.0), Instant::now());
    queue.push((Usual, ONE), Some(now + MS * 100), 1, now);
    queue.push((Usual, ONE), Some(now + MS * 3), 2, now);
    queue.push((Usual, ONE), None, 3, now);
    queue.push((Critical, ONE), Some(now + MS * 2), 4, now);
    assert_eq!(swept(&mut queue, now + MS), []);
    assert_eq!(swept(&mut queue, now + MS * 3), [(4, ShedReason::Expired), (2, ShedReason::Expired)]);
    assert_eq!((take(&mut queue), take(&mut queue), take(&mut queue)), (Some(1), Some(3), None));
}

#[test]
fn codel_switches_to_lifo_until_drained() {
    let (mut queue, start) = (queue(|| 0.0), Instant::now());
    // One request arrives each millisecond and one is served every second one, so the queue only
    // grows.
    let mut refused = Vec::new();
    for at in 0..200u32 {
        let now = start + MS * at;
        queue.push((Usual, ONE), None, at, now);
        refused.extend(swept(&mut queue, now));
        if at % 2 == 0 {
            let served = take(&mut queue).unwrap();
            let waited = at - served;
            assert!(at < 111 || waited == 0, "{served} served at {at}");
            assert!(at > 100 || served == at / 2, "{served} served at {at}");
        }
    }
    assert!(!refused.is_empty() && refused.iter().all(|(_, why)| *why == ShedReason::WaitTooLong));
    assert!(queue.len() <= 6, "{}", queue.len());
    // An empty queue returns to FIFO order.
    while take(&mut queue).is_some() {}
    let now = start + MS * 300;
    assert_eq!(swept(&mut queue, now), []);
    queue.push((Usual, ONE), None, 1, now);
    queue.push((Usual, ONE), None, 2, now);
    assert_eq!(swept(&mut queue, now + MS * 50), []);
    assert_eq!(take(&mut queue), Some(1));
}

#[test]
fn codel_tolerates_single_long_waits() {
    let (mut queue, start) = (queue(|| 0.0), Instant::now());
    for round in 0..50u32 {
        let now = start + MS * 20 * round;
        queue.push((Usual, ONE), None, round, now);
        assert_eq!(swept(&mut queue, now), []);
        assert_eq!(swept(&mut queue, now + MS * 10), []);
        assert_eq!(take(&mut queue), Some(round));
    }
}

#[test]
fn queue_sheds_at_random_then_always() {
    let now = Instant::now();
    let fill = |queue: &mut Queue<u32>, limit| {
        let mut items = 0..10_000;
        items.find(|item| {
            let room = queue.make_room((Usual, ONE), limit, &mut Vec::new()).is_ok();
            if room {
                queue.push((Usual, ONE), None, *item, now);
            }
            !room
        })
    };
    for (draw, length) in [((|| 0.999) as RandomFn, 200), (|| 0.5, 151), (|| 0.0, 101)] {
        assert_eq!(fill(&mut queue(draw), 100), Some(length));
    }
    // However low the limit is.
    assert_eq!(fill(&mut queue(|| 0.999), 1), Some(32));
}

#[test]
fn queue_evicts_lowest_priority_when_full() {
    let (mut queue, now) = (queue(|| 0.999), Instant::now());
    let full_of = [(Usual, 0..30), (Batch, 30..31), (BestEffort, 31..32)];
    for (priority, items) in full_of {
        for item in items {
            queue.push((priority, ONE), None, item, now);
        }
    }
    let mut leaving = Vec::new();
    assert!(queue.make_room((BestEffort, ONE), LIMIT, &mut leaving).is_err());
    assert!(queue.make_room((Usual, ONE), LIMIT, &mut leaving).is_ok());
    queue.push((Usual, ONE), None, 32, now);
    assert!(queue.make_room((Critical, ONE), LIMIT, &mut leaving).is_ok());
    queue.push((Critical, ONE), None, 33, now);
    assert!(queue.make_room((Usual, ONE), LIMIT, &mut leaving).is_err());
    // Within a priority the latest arrival is evicted.
    assert!(queue.make_room((Critical, ONE), LIMIT, &mut leaving).is_ok());
    assert_eq!(leaving, [(31, ShedReason::Full), (30, ShedReason::Full), (32, ShedReason::Full)]);
}

#[test]
fn queue_serves_by_priority_and_guaranteed_share() {
    let (mut queue, now) = (queue(|| 0.0), Instant::now());
    for (priority, item) in [(BestEffort, 1), (Batch, 2), (Usual, 3), (Usual, 4), (Critical, 5)] {
        queue.push((priority, ONE), None, item, now);
    }
    assert_eq!(next(&mut queue, |priority| priority == Batch), Some((Batch, 2)));
    assert_eq!(next(&mut queue, |priority| priority == Batch), Some((Critical, 5)));
    assert_eq!([take(&mut queue), take(&mut queue), take(&mut queue)], [Some(3), Some(4), Some(1)]);
}

#[test]
fn queue_removes_cancelled_waiters() {
    let (mut queue, now) = (queue(|| 0.0), Instant::now());
    let [first, second, third] = [1, 2, 3].map(|item| queue.push((Usual, ONE), None, item, now).0);
    assert_eq!(queue.remove(second), Some(2));
    assert_eq!(queue.remove(second), None);
    assert_eq!(take(&mut queue), Some(1));
    assert_eq!(queue.remove(first), None);
    assert_eq!(queue.remove(third), Some(3));
    assert_eq!((queue.len(), queue.callers().len()), (0, 0));
}

#[test]
fn caller_with_fewest_running_requests_is_served_first() {
    let (mut queue, now) = (queue(|| 0.0), Instant::now());
    let [greedy, other, newcomer] = [1, 2, 3].map(CallerKey::number);
    for caller in [greedy, greedy, greedy, other] {
        queue.start(caller);
    }
    for (caller, item) in [(greedy, 10), (greedy, 11), (other, 20), (newcomer, 30), (newcomer, 31)] {
        queue.push((Usual, caller), None, item, now);
    }
    let served: Vec<_> = std::iter::from_fn(|| {
        let (_, caller, item) = queue.pop_next(|_| false, |_, _, _| true)?;
        queue.start(caller);
        Some(item)
    })
    .collect();
    assert_eq!(served, [30, 20, 31, 10, 11]);
}

#[test]
fn full_queue_sheds_the_caller_with_most_waiters() {
    let (mut queue, now) = (queue(|| 0.999), Instant::now());
    let [greedy, other] = [1, 2].map(CallerKey::number);
    for item in 0..200 {
        queue.push((Usual, greedy), None, item, now);
    }
    assert_eq!(queue.make_room((Usual, greedy), 100, &mut Vec::new()), Err(ShedReason::AboveShare));
    // A modest caller is never shed for the length of the queue.
    for item in 200..230 {
        assert_eq!(queue.make_room((Usual, other), 100, &mut Vec::new()), Ok(()));
        queue.push((Usual, other), None, item, now);
    }
    // Above its share, it still goes before the caller with more waiters.
    let mut leaving = Vec::new();
    for item in 230..260 {
        assert_eq!(queue.make_room((Usual, other), 100, &mut leaving), Ok(()));
        queue.push((Usual, other), None, item, now);
    }
    assert!(!leaving.is_empty() && leaving.iter().all(|(item, why)| *item < 200 && *why == ShedReason::AboveShare), "{leaving:?}");
}

#[test]
fn modest_caller_outlasts_a_standing_queue() {
    let (mut queue, start) = (queue(|| 0.0), Instant::now());
    let [greedy, other] = [1, 2].map(CallerKey::number);
    let sweep = |queue: &mut Queue<u32>, now| {
        let mut leaving = Vec::new();
        queue.sweep(30, now, &mut leaving);
        leaving.into_iter().map(|(item, _)| item).collect::<Vec<_>>()
    };
    for at in 0..150u32 {
        queue.push((Usual, greedy), None, at, start + MS * at);
        sweep(&mut queue, start + MS * at);
    }
    let now = start + MS * 150;
    queue.push((Usual, other), None, 1_000, now);
    assert!(!sweep(&mut queue, now + MS * 20).contains(&1_000));
    assert!(!sweep(&mut queue, now + MS * 104).contains(&1_000));
    // Nothing left the queue, and still the wait has an end.
    assert_eq!(sweep(&mut queue, now + MS * 105), [1_000]);
}

#[test]
fn early_decision_follows_the_queue() {
    let (mut queue, start) = (queue(|| 0.5), Instant::now());
    let [greedy, newcomer] = [1, 2].map(CallerKey::number);
    for item in 0..100 {
        assert_eq!(queue.refuse_early(greedy, 100), None, "{item} waiting");
        queue.push((Usual, greedy), None, item, start);
    }
    // A standing queue is kept short, because its waiters leave after the target.
    for at in [6, 107] {
        queue.sweep(100, start + MS * at, &mut Vec::new());
    }
    for item in 100..160 {
        queue.push((Usual, greedy), None, item, start + MS * 107);
    }
    assert_eq!(queue.refuse_early(greedy, 100), Some(ShedReason::AboveShare));
    assert_eq!(queue.refuse_early(newcomer, 100), None);
}
