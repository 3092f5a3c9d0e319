use super::*;
use Priority::{Batch, Critical, Default as Usual};

const LIMIT: usize = 10;

/// Ten slots: nine guaranteed to `Usual`, one to `Batch`.
fn state() -> State<u32> {
    let config = Config {
        initial_limit: 10,
        min_limit: 10,
        max_limit: 10,
        critical_percent: 0,
        default_percent: 90,
        batch_percent: 10,
        ..Config::default()
    };
    State::new(&config, || 0.999, Instant::now())
}

fn entered(leaving: Vec<(u32, QueueExit)>) -> Vec<Priority> {
    let priority = |leave| match leave {
        QueueExit::Admitted(priority) => priority,
        QueueExit::Shed(why) => panic!("{why:?}"),
    };
    leaving.into_iter().map(|(_, leave)| priority(leave)).collect()
}

fn wait(state: &mut State<u32>, priority: Priority, count: u32, now: Instant) {
    for item in 0..count {
        assert!(!state.try_admit(priority));
        assert!(state.may_queue(priority, now).0);
        state.enqueue(priority, None, item, now);
    }
}

#[test]
fn state_admits_any_priority_below_limit() {
    let mut state = state();
    assert!((0..LIMIT).all(|_| state.try_admit(Batch)));
    assert!(!state.try_admit(Usual));
}

#[test]
fn state_keeps_guaranteed_shares_at_limit() {
    let (mut state, now) = (state(), Instant::now());
    assert!((0..LIMIT).all(|_| state.try_admit(Batch)));
    wait(&mut state, Batch, 10, now);
    wait(&mut state, Usual, 10, now);
    // Nine of the slots that batch releases go to the priority below its guaranteed share, although
    // batch has waited longer.
    for _ in 0..9 {
        assert_eq!(entered(state.finish(Batch, None, now)), [Usual]);
    }
    // The tenth is the guaranteed share of batch, although a higher priority waits.
    assert_eq!(entered(state.finish(Batch, None, now)), [Batch]);
    assert_eq!(entered(state.finish(Usual, None, now)), [Usual]);
    // Slots beyond the guaranteed shares go to any waiter.
    assert_eq!(entered(state.finish(Usual, None, now)), [Batch]);
    assert_eq!(state.running, [0, 8, 2, 0]);
}

#[test]
fn state_admits_nothing_past_the_queue() {
    let (mut state, now) = (state(), Instant::now());
    assert!((0..LIMIT).all(|_| state.try_admit(Usual)));
    wait(&mut state, Batch, 2, now);
    wait(&mut state, Critical, 1, now);
    assert_eq!(entered(state.finish(Usual, None, now)), [Batch]);
    assert_eq!(entered(state.finish(Usual, None, now)), [Critical]);
    assert!(!state.try_admit(Critical));
    assert_eq!(state.occupancy(), Occupancy { limit: LIMIT, in_use: LIMIT, waiting: 1, sampled: 0 });
}

#[test]
fn state_ignores_timeouts_below_baseline() {
    let (mut state, start) = (state(), Instant::now());
    let ms = Duration::from_millis;
    for call in 0..150 {
        state.try_admit(Usual);
        state.finish(Usual, Some(Sample::Completed(ms(20))), start + ms(call));
    }
    let sampled = state.occupancy().sampled;
    for (sample, counted) in [(Sample::TimedOut(ms(3)), 0), (Sample::TimedOut(ms(100)), 1)] {
        state.try_admit(Usual);
        state.finish(Usual, Some(sample), start + ms(150));
        assert_eq!(state.occupancy().sampled, sampled + counted, "{sample:?}");
    }
}

#[test]
fn state_gives_added_slots_to_waiters() {
    let config = Config { initial_limit: 20, min_limit: 1, max_limit: 100, window_ms: 1, smoothing: 1.0, ..Config::default() };
    let start = Instant::now();
    let mut state = State::new(&config, || 0.999, start);
    assert!((0..20).all(|_| state.try_admit(Usual)));
    wait(&mut state, Usual, 30, start);
    let leave = |state: &mut State<u32>, call| {
        let sample = Sample::Completed(Duration::from_millis(1));
        entered(state.finish(Usual, Some(sample), start + Duration::from_micros(100) * call)).len()
    };
    // The twentieth call completes a window, and the limit grows by four.
    assert!((1..20).all(|call| leave(&mut state, call) == 1));
    assert_eq!((leave(&mut state, 20), state.limit()), (5, 24));
}
