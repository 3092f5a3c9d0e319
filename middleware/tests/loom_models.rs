//! Model checking of lock-free state with loom: explores all thread interleavings.
//!
//! The sources are included unchanged. Their `crate::sync` is std and `parking_lot` in the library,
//! and loom here: no separate build and no flags.

#[path = "../transport/src/client/connect_backoff.rs"]
mod connect_backoff;
#[expect(unreachable_pub, reason = "public in its library")]
#[path = "../resilience/src/counter.rs"]
mod counter;
#[path = "../transport/src/client/balance/outlier_ejection.rs"]
mod outlier_ejection;
#[path = "../resilience/src/circuit_breaker/shared_state.rs"]
mod shared_state;
#[path = "../resilience/src/retry/budget/tokens.rs"]
mod tokens;

use std::time::Duration;

use loom::{sync::Arc, thread};
use palisade_middleware::circuit_breaker::{CallOutcome, Config, Observation};
use tokio::time::Instant;

use self::{
    connect_backoff::ConnectBackoff,
    counter::AtomicCounter,
    event::{State, Transition},
    outlier_ejection::{EjectionLimit, EjectionSlot, max_ejected_count},
    shared_state::SharedState,
    state::StateMachine,
    tokens::Tokens,
};

mod sync {
    pub(crate) use loom::sync::atomic;
    use loom::sync::{self, MutexGuard};

    /// Mutex without poisoning, like `parking_lot`'s.
    #[derive(Debug)]
    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("no thread panicked")
        }
    }
}

/// The state machine is single-threaded, so that the library's own is used.
mod state {
    pub(crate) use palisade_middleware::circuit_breaker::{CallNotPermitted, StateMachine};
}

mod event {
    pub(crate) use palisade_middleware::circuit_breaker::{State, Transition};
}

/// Bound of three preemptions: finds every known kind of bug within seconds.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// Runs `work` once per argument, each in its own thread, and returns the results.
fn run_concurrently<S, A, R>(shared: &Arc<S>, arguments: impl IntoIterator<Item = A>, work: fn(&S, A) -> R) -> Vec<R>
where
    S: Send + Sync + 'static,
    A: Send + 'static,
    R: Send + 'static,
{
    let start = |argument| {
        let shared = shared.clone();
        thread::spawn(move || work(&shared, argument))
    };
    let threads: Vec<_> = arguments.into_iter().map(start).collect();
    threads.into_iter().map(|thread| thread.join().expect("no thread panicked")).collect()
}

fn approx_eq(left: f64, right: f64) -> bool {
    (left - right).abs() < 1e-9
}

#[test]
fn retry_budget_loses_no_token() {
    explore(|| {
        let tokens = Arc::new(Tokens::new(4));
        run_concurrently(&tokens, [true, false], |tokens, twice| {
            tokens.spend();
            if twice {
                tokens.refund();
            }
            tokens.spend();
        });
        assert!(approx_eq(tokens.left(), 0.1), "{}", tokens.left());
        assert!(!tokens.above_threshold());
    });
}

#[test]
fn retry_budget_stays_within_bounds() {
    explore(|| {
        let tokens = Arc::new(Tokens::new(1));
        run_concurrently(&tokens, [(), ()], |tokens, ()| {
            tokens.spend();
            assert!((0.0..=1.0).contains(&tokens.left()));
            tokens.refund();
            assert!((0.0..=1.0).contains(&tokens.left()));
        });
        assert!(approx_eq(tokens.left(), 0.1) || approx_eq(tokens.left(), 0.2), "{}", tokens.left());
    });
}

#[test]
fn counter_never_exceeds_its_limit() {
    explore(|| {
        let both = Arc::new((AtomicCounter::new(), AtomicCounter::new()));
        let acquired = run_concurrently(&both, [(), (), ()], |(permits, inside), ()| {
            let acquired = permits.try_increment(1);
            if acquired {
                inside.increment();
                assert_eq!(inside.get(), 1);
                inside.decrement();
                permits.decrement();
            }
            acquired
        });
        assert!(acquired.contains(&true));
        assert_eq!(both.0.get(), 0);
    });
}

/// Breaker with one probe that opens at the first failure, and records its transitions.
struct Breaker {
    gate: SharedState,
    transitions: std::sync::Mutex<Vec<Transition>>,
    now: Instant,
}

/// Epoch of a call and whether its result counted; `None` for a rejected call.
type Outcome = Option<(u64, bool)>;

impl Breaker {
    /// Closed, in the first epoch.
    fn closed() -> Self {
        let config = Config { min_calls: 1, probes: 1, ..Config::default() };
        let now = Instant::now();
        Self { gate: SharedState::new(StateMachine::new(config, || 0.5, now)), transitions: std::sync::Mutex::default(), now }
    }

    /// Open time elapsed: the next call is a probe.
    fn ready_to_probe() -> Self {
        let breaker = Self::closed();
        breaker.with(|machine| machine.open_for(Duration::ZERO, breaker.now));
        breaker
    }

    fn with<T>(&self, operate: impl FnOnce(&mut StateMachine) -> T) -> T {
        self.gate.with(operate, |transition| self.transitions.lock().expect("not poisoned").push(transition))
    }

    fn acquire(&self) -> Option<u64> {
        self.gate.acquire(self.now, |transition| self.transitions.lock().expect("not poisoned").push(transition)).ok()
    }

    fn settle(&self, epoch: u64, verdict: CallOutcome) -> bool {
        let observation = Observation { outcome: verdict, slow: false, retry_after: None };
        self.with(|machine| machine.record(epoch, observation, self.now))
    }

    fn call(&self, verdict: CallOutcome) -> Outcome {
        self.acquire().map(|epoch| (epoch, self.settle(epoch, verdict)))
    }

    fn state(&self) -> State {
        self.with(|machine| machine.state())
    }

    /// Asserts that the recorded transitions form one path that ends in the current state.
    fn check_transitions(&self) {
        let transitions = self.transitions.lock().expect("not poisoned").clone();
        assert!(transitions.windows(2).all(|pair| pair[0].to == pair[1].from), "{transitions:?}");
        assert_eq!(transitions.last().map_or(State::Closed, |last| last.to), self.state());
    }
}

#[test]
fn probe_slot_admits_one_call() {
    for verdict in [CallOutcome::Success, CallOutcome::Failure] {
        explore(move || {
            let breaker = Arc::new(Breaker::ready_to_probe());
            let outcomes = run_concurrently(&breaker, [verdict; 2], Breaker::call);
            let admitted: Vec<_> = outcomes.into_iter().flatten().collect();
            assert!(!admitted.is_empty());
            assert!(admitted.iter().all(|(_, counted)| *counted));
            // Two admitted calls: the second came after the first had closed the breaker, in
            // another epoch.
            assert!(admitted.len() == 1 || admitted[0].0 != admitted[1].0);
            assert_eq!(breaker.state(), if verdict == CallOutcome::Success { State::Closed } else { State::Open });
            breaker.check_transitions();
        });
    }
}

#[test]
fn cancelled_probe_frees_its_slot() {
    explore(|| {
        let breaker = Arc::new(Breaker::ready_to_probe());
        run_concurrently(&breaker, [CallOutcome::Cancelled; 2], Breaker::call);
        assert_eq!(breaker.state(), State::HalfOpen);
        assert!(breaker.acquire().is_some());
        assert!(breaker.acquire().is_none());
    });
}

#[test]
fn stale_epoch_result_is_ignored() {
    explore(|| {
        let breaker = Arc::new(Breaker::closed());
        let stale = breaker.acquire().expect("the breaker is closed");
        run_concurrently(&breaker, [None, Some(stale)], |breaker, straggler| match straggler {
            None => {
                breaker.with(|machine| machine.open_for(Duration::ZERO, breaker.now));
                let probe = breaker.acquire().expect("the open time has elapsed");
                assert!(probe > 0);
                assert!(breaker.settle(probe, CallOutcome::Success));
            }
            // Stale, or opens the breaker for two seconds until it is forced open below.
            Some(epoch) => {
                breaker.settle(epoch, CallOutcome::Failure);
            }
        });
        assert_eq!(breaker.state(), State::Closed);
        breaker.check_transitions();
    });
}

#[test]
fn epochs_never_repeat_and_open_state_is_visible() {
    explore(|| {
        let breaker = Arc::new(Breaker::closed());
        let epochs = run_concurrently(&breaker, [CallOutcome::Failure, CallOutcome::Success], |breaker, verdict| {
            let first = breaker.call(verdict).map(|(epoch, _)| epoch);
            let second = breaker.acquire();
            // A thread that opened the breaker, or saw it open, is not admitted again.
            assert!(verdict == CallOutcome::Success || second.is_none());
            [first, second]
        });
        for [first, second] in epochs {
            assert!(first >= second || second.is_none());
            assert!(second.is_none_or(|epoch| epoch == 0));
        }
        assert_eq!(breaker.state(), State::Open);
        assert!(breaker.acquire().is_none());
        breaker.check_transitions();
    });
}

#[test]
fn connect_backoff_flag_matches_state() {
    const SECOND: Duration = Duration::from_secs(1);
    explore(|| {
        let backoff = Arc::new(ConnectBackoff::new(SECOND, SECOND, || 0.5));
        let now = Instant::now();
        run_concurrently(
            &backoff,
            [true, false],
            |backoff, succeeds| if succeeds { backoff.succeeded() } else { backoff.failed(Instant::now()) },
        );
        assert_eq!(backoff.is_backing_off(now), backoff.check(now).is_err());
    });
}

#[test]
fn ejected_endpoints_never_exceed_limit() {
    explore(|| {
        let ejections = EjectionLimit::new("test");
        let slots = Arc::new([(); 2].map(|()| EjectionSlot::new(ejections.clone())));
        slots[0].ejections().set_limit(max_ejected_count(0.5, 2), slots.iter());
        run_concurrently(&slots, [0, 1], |slots, index: usize| {
            slots[index].breaker_opened();
            // No other thread changes this thread's slot.
            assert!(!(slots[index].is_ejected() && slots[1 - index].is_ejected()));
            slots[index].breaker_closed();
            slots[index].breaker_opened();
        });
        assert_eq!(slots.iter().filter(|slot| slot.is_ejected()).count(), 1);
        slots.iter().for_each(EjectionSlot::breaker_closed);
        slots[1].breaker_opened();
        assert!(slots[1].is_ejected(), "a slot was lost");
    });
}
