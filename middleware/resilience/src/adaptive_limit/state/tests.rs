use super::*;
use Priority::{Batch, Critical, Default as Usual};

const LIMIT: usize = 10;

/// Ten slots: nine guaranteed to `Usual`, one to `Batch`.
fn crowd() -> Crowd {
    Crowd::new(state())
}

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

/// A state whose requests all have callers of their own.
struct Crowd {
    state: State<u32>,
    callers: std::ops::RangeFrom<u64>,
    running: Vec<(Priority, CallerKey)>,
}

impl Crowd {
    fn new(state: State<u32>) -> Self {
        Self { state, callers: 1.., running: Vec::new() }
    }

    fn caller(&mut self) -> CallerKey {
        CallerKey::number(self.callers.next().unwrap())
    }

    fn try_admit(&mut self, priority: Priority) -> bool {
        let caller = self.caller();
        let admitted = self.state.try_admit(priority, caller);
        self.running.extend(admitted.then_some((priority, caller)));
        admitted
    }

    fn wait(&mut self, priority: Priority, count: u32, now: Instant) {
        for item in 0..count {
            let caller = self.caller();
            assert!(!self.state.try_admit(priority, caller));
            assert_eq!(self.state.may_queue(priority, caller, now).0, Ok(()));
            self.state.enqueue(priority, caller, None, item, now);
        }
    }

    /// Ends a request of `priority`; returns the priorities that enter.
    fn finish(&mut self, priority: Priority, sample: Option<Sample>, now: Instant) -> Vec<Priority> {
        let index = self.running.iter().position(|(of, _)| *of == priority).unwrap();
        let (_, caller) = self.running.remove(index);
        let leaving = self.state.finish(priority, caller, sample, now);
        leaving
            .into_iter()
            .map(|(_, leave)| match leave {
                QueueExit::Admitted(priority, caller) => {
                    self.running.push((priority, caller));
                    priority
                }
                QueueExit::Shed(why) => panic!("{why:?}"),
            })
            .collect()
    }
}

#[test]
fn state_admits_any_priority_below_limit() {
    let mut state = crowd();
    assert!((0..LIMIT).all(|_| state.try_admit(Batch)));
    assert!(!state.try_admit(Usual));
}

#[test]
fn state_keeps_guaranteed_shares_at_limit() {
    let (mut state, now) = (crowd(), Instant::now());
    assert!((0..LIMIT).all(|_| state.try_admit(Batch)));
    state.wait(Batch, 10, now);
    state.wait(Usual, 10, now);
    // Nine of the slots that batch releases go to the priority below its guaranteed share, although
    // batch has waited longer.
    for _ in 0..9 {
        assert_eq!(state.finish(Batch, None, now), [Usual]);
    }
    // The tenth is the guaranteed share of batch, although a higher priority waits.
    assert_eq!(state.finish(Batch, None, now), [Batch]);
    assert_eq!(state.finish(Usual, None, now), [Usual]);
    // Slots beyond the guaranteed shares go to any waiter.
    assert_eq!(state.finish(Usual, None, now), [Batch]);
    assert_eq!(state.state.running, [0, 8, 2, 0]);
}

#[test]
fn state_admits_nothing_past_the_queue() {
    let (mut state, now) = (crowd(), Instant::now());
    assert!((0..LIMIT).all(|_| state.try_admit(Usual)));
    state.wait(Batch, 2, now);
    state.wait(Critical, 1, now);
    assert_eq!(state.finish(Usual, None, now), [Batch]);
    assert_eq!(state.finish(Usual, None, now), [Critical]);
    assert!(!state.try_admit(Critical));
    assert_eq!(state.state.occupancy(), Occupancy { limit: LIMIT, in_use: LIMIT, waiting: 1, sampled: 0 });
}

#[test]
fn state_ignores_timeouts_below_baseline() {
    let (mut state, start) = (crowd(), Instant::now());
    let ms = Duration::from_millis;
    for call in 0..150 {
        state.try_admit(Usual);
        state.finish(Usual, Some(Sample::Completed(ms(20))), start + ms(call));
    }
    let sampled = state.state.occupancy().sampled;
    for (sample, counted) in [(Sample::TimedOut(ms(3)), 0), (Sample::TimedOut(ms(100)), 1)] {
        state.try_admit(Usual);
        state.finish(Usual, Some(sample), start + ms(150));
        assert_eq!(state.state.occupancy().sampled, sampled + counted, "{sample:?}");
    }
}

#[test]
fn state_gives_added_slots_to_waiters() {
    let config = Config { initial_limit: 20, min_limit: 1, max_limit: 100, window_ms: 1, smoothing: 1.0, ..Config::default() };
    let start = Instant::now();
    let mut state = Crowd::new(State::new(&config, || 0.999, start));
    assert!((0..20).all(|_| state.try_admit(Usual)));
    state.wait(Usual, 30, start);
    let leave = |state: &mut Crowd, call| {
        let sample = Sample::Completed(Duration::from_millis(1));
        state.finish(Usual, Some(sample), start + Duration::from_micros(100) * call).len()
    };
    // The twentieth call completes a window, and the limit grows by four.
    assert!((1..20).all(|call| leave(&mut state, call) == 1));
    assert_eq!((leave(&mut state, 20), state.state.limit()), (5, 24));
}

#[test]
fn greedy_caller_leaves_the_reserve_to_others() {
    let config = Config { initial_limit: 80, min_limit: 80, max_limit: 80, ..Config::default() };
    let (mut state, now) = (State::<u32>::new(&config, || 0.999, Instant::now()), Instant::now());
    let [greedy, other, critical] = [1, 2, 3].map(CallerKey::number);
    let admitted = (0..100).filter(|_| state.try_admit(Usual, greedy)).count();
    assert_eq!(admitted, 70);
    state.enqueue(Usual, greedy, None, 1, now);
    // A caller below its share passes the queue of the other, and critical work uses the reserve.
    assert!(state.try_admit(Usual, other) && state.try_admit(Critical, critical));
    // Permits inside the reserve do not go to the greedy caller.
    assert_eq!(state.finish(Usual, other, None, now), []);
    assert_eq!(state.finish(Critical, critical, None, now), []);
    assert_eq!(state.finish(Usual, greedy, None, now), [(1, QueueExit::Admitted(Usual, greedy))]);
}

#[test]
fn shares_become_equal_under_contention() {
    let config = Config { initial_limit: 80, min_limit: 80, max_limit: 80, ..Config::default() };
    let (mut state, now) = (State::<u32>::new(&config, || 0.999, Instant::now()), Instant::now());
    let callers = [1, 2].map(CallerKey::number);
    let mut running = [0_usize; 2];
    while state.try_admit(Usual, callers[0]) {
        running[0] += 1;
    }
    // Both always have waiters; the first had all permits.
    for round in 0..200 {
        for caller in callers {
            while state.queue.callers().waiting(caller) < 10 {
                state.enqueue(Usual, caller, None, round, now);
            }
        }
        let ends = usize::from(running[1] > running[0]);
        running[ends] -= 1;
        for (_, exit) in state.finish(Usual, callers[ends], None, now) {
            let QueueExit::Admitted(_, caller) = exit else { panic!("{exit:?}") };
            running[usize::from(caller == callers[1])] += 1;
        }
    }
    assert!(running[0].abs_diff(running[1]) <= 1, "{running:?}");
}
