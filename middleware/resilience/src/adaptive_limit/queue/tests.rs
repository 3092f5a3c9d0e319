use super::*;
use Priority::{Batch, BestEffort, Critical, Default as Usual};

const MS: Duration = Duration::from_millis(1);
const LIMIT: usize = 10;

fn queue(draw: RandomFn) -> Queue<u32> {
    Queue::new(&Config::default(), draw)
}

fn swept(queue: &mut Queue<u32>, now: Instant) -> Vec<(u32, ShedReason)> {
    let mut leaving = Vec::new();
    queue.sweep(now, &mut leaving);
    leaving
}

fn take(queue: &mut Queue<u32>) -> Option<u32> {
    queue.pop_next(|_| false).map(|(_, item)| item)
}

#[test]
fn queue_evicts_expired_waiters_at_any_position() {
    let (mut queue, now) = (queue(|| 0.0), Instant::now());
    queue.push(Usual, Some(now + MS * 100), 1, now);
    queue.push(Usual, Some(now + MS * 3), 2, now);
    queue.push(Usual, None, 3, now);
    queue.push(Critical, Some(now + MS * 2), 4, now);
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
        queue.push(Usual, None, at, now);
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
    queue.push(Usual, None, 1, now);
    queue.push(Usual, None, 2, now);
    assert_eq!(swept(&mut queue, now + MS * 50), []);
    assert_eq!(take(&mut queue), Some(1));
}

#[test]
fn codel_tolerates_single_long_waits() {
    let (mut queue, start) = (queue(|| 0.0), Instant::now());
    for round in 0..50u32 {
        let now = start + MS * 20 * round;
        queue.push(Usual, None, round, now);
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
            let room = queue.make_room(Usual, limit, &mut Vec::new());
            if room {
                queue.push(Usual, None, *item, now);
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
            queue.push(priority, None, item, now);
        }
    }
    let mut leaving = Vec::new();
    assert!(!queue.make_room(BestEffort, LIMIT, &mut leaving));
    assert!(queue.make_room(Usual, LIMIT, &mut leaving));
    queue.push(Usual, None, 32, now);
    assert!(queue.make_room(Critical, LIMIT, &mut leaving));
    queue.push(Critical, None, 33, now);
    assert!(!queue.make_room(Usual, LIMIT, &mut leaving));
    // Within a priority the latest arrival is evicted.
    assert!(queue.make_room(Critical, LIMIT, &mut leaving));
    assert_eq!(leaving, [(31, ShedReason::Full), (30, ShedReason::Full), (32, ShedReason::Full)]);
}

#[test]
fn queue_serves_by_priority_and_guaranteed_share() {
    let (mut queue, now) = (queue(|| 0.0), Instant::now());
    for (priority, item) in [(BestEffort, 1), (Batch, 2), (Usual, 3), (Usual, 4), (Critical, 5)] {
        queue.push(priority, None, item, now);
    }
    assert_eq!(queue.pop_next(|priority| priority == Batch), Some((Batch, 2)));
    assert_eq!(queue.pop_next(|priority| priority == Batch), Some((Critical, 5)));
    assert_eq!([take(&mut queue), take(&mut queue), take(&mut queue)], [Some(3), Some(4), Some(1)]);
}

#[test]
fn queue_removes_cancelled_waiters() {
    let (mut queue, now) = (queue(|| 0.0), Instant::now());
    let [first, second, third] = [1, 2, 3].map(|item| queue.push(Usual, None, item, now));
    assert_eq!(queue.remove(second), Some(2));
    assert_eq!(queue.remove(second), None);
    assert_eq!(take(&mut queue), Some(1));
    assert_eq!(queue.remove(first), None);
    assert_eq!(queue.remove(third), Some(3));
    assert_eq!(queue.len(), 0);
}
