//! What threads share without a lock, in every order in which they can come: loom tries them all.
//!
//! The sources are included as they are. What they call `crate::sync` is the standard library's and `parking_lot`'s in the library, and
//! loom's here: no other build, no flags.

#[path = "../src/count.rs"]
mod count;
#[path = "../src/client/balance/ejection.rs"]
mod ejection;
#[path = "../src/circuit_breaker/gate.rs"]
mod gate;
#[path = "../src/client/pause.rs"]
mod pause;
#[path = "../src/retry/budget/tokens.rs"]
mod tokens;

use std::time::Duration;

use loom::{sync::Arc, thread};
use palisade_middleware::{
    circuit_breaker::{Config, Observation, CallOutcome},
    jitter,
};
use tokio::time::Instant;

use self::{
    count::Count,
    ejection::{Ejections, Seat, most},
    gate::Gate,
    pause::Pause,
    state::StateMachine,
    tokens::Tokens,
    transition::{State, Transition},
};

mod sync {
    pub(crate) use loom::sync::atomic;
    use loom::sync::{self, MutexGuard};

    /// As `parking_lot`'s, which knows no poison.
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

/// Where the gate looks for the machine: a decision without threads, the library's own will do.
mod state {
    pub(crate) use palisade_middleware::circuit_breaker::{StateMachine, CallNotPermitted};
}

mod transition {
    pub(crate) use palisade_middleware::circuit_breaker::{State, Transition};
}

/// Three preemptions at most: enough for every known kind of bug, and a matter of seconds.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// Runs one copy of `work` per argument, each in a thread of its own, and gives back what they return.
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
fn no_token_is_lost() {
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
        assert!(!tokens.are_plenty());
    });
}

#[test]
fn tokens_keep_their_bounds() {
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
fn no_more_than_the_limit_are_in_and_all_leave() {
    explore(|| {
        let both = Arc::new((Count::new(), Count::new()));
        let acquired = run_concurrently(&both, [(), (), ()], |(permits, inside), ()| {
            let acquired = permits.enter_below(1);
            if acquired {
                inside.enter();
                assert_eq!(inside.get(), 1);
                inside.leave();
                permits.leave();
            }
            acquired
        });
        assert!(acquired.contains(&true));
        assert_eq!(both.0.get(), 0);
    });
}

/// A breaker with one probe that opens at the first failure, and what it announced.
struct Breaker {
    gate: Gate,
    transitions: std::sync::Mutex<Vec<Transition>>,
    now: Instant,
}

/// A result that counted, or not; `None` for a call that was not let through.
type Outcome = Option<(u64, bool)>;

impl Breaker {
    /// In its first epoch, closed.
    fn closed() -> Self {
        let config = Config { min_calls: 1, probes: 1, ..Config::default() };
        let now = Instant::now();
        Self { gate: Gate::new(StateMachine::new(config, || 0.5, now)), transitions: std::sync::Mutex::default(), now }
    }

    /// Its wait is over: the next call is a probe.
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

    /// What was told is one way through the states, and it ends in the present one.
    fn check_transitions(&self) {
        let transitions = self.transitions.lock().expect("not poisoned").clone();
        assert!(transitions.windows(2).all(|pair| pair[0].to == pair[1].from), "{transitions:?}");
        assert_eq!(transitions.last().map_or(State::Closed, |last| last.to), self.state());
    }
}

#[test]
fn two_calls_never_share_a_probes_slot() {
    for verdict in [CallOutcome::Success, CallOutcome::Failure] {
        explore(move || {
            let breaker = Arc::new(Breaker::ready_to_probe());
            let outcomes = run_concurrently(&breaker, [verdict; 2], Breaker::call);
            let admitted: Vec<_> = outcomes.into_iter().flatten().collect();
            assert!(!admitted.is_empty());
            assert!(admitted.iter().all(|(_, counted)| *counted));
            // Both got through: then the second came after the first had closed it, in another epoch.
            assert!(admitted.len() == 1 || admitted[0].0 != admitted[1].0);
            assert_eq!(breaker.state(), if verdict == CallOutcome::Success { State::Closed } else { State::Open });
            breaker.check_transitions();
        });
    }
}

#[test]
fn a_slot_that_is_given_back_is_there_for_another() {
    explore(|| {
        let breaker = Arc::new(Breaker::ready_to_probe());
        run_concurrently(&breaker, [CallOutcome::Cancelled; 2], Breaker::call);
        assert_eq!(breaker.state(), State::HalfOpen);
        assert!(breaker.acquire().is_some());
        assert!(breaker.acquire().is_none());
    });
}

#[test]
fn what_was_let_through_before_it_opened_decides_nothing_after() {
    explore(|| {
        let breaker = Arc::new(Breaker::closed());
        let stale = breaker.acquire().expect("it is closed");
        run_concurrently(&breaker, [None, Some(stale)], |breaker, straggler| match straggler {
            None => {
                breaker.with(|machine| machine.open_for(Duration::ZERO, breaker.now));
                let probe = breaker.acquire().expect("its wait is over");
                assert!(probe > 0);
                assert!(breaker.settle(probe, CallOutcome::Success));
            }
            // Too late, or it opens the breaker for two seconds: then it is opened again by hand.
            Some(epoch) => {
                breaker.settle(epoch, CallOutcome::Failure);
            }
        });
        assert_eq!(breaker.state(), State::Closed);
        breaker.check_transitions();
    });
}

#[test]
fn an_epoch_never_comes_back_and_an_open_breaker_is_seen_to_be_open() {
    explore(|| {
        let breaker = Arc::new(Breaker::closed());
        let epochs = run_concurrently(&breaker, [CallOutcome::Failure, CallOutcome::Success], |breaker, verdict| {
            let first = breaker.call(verdict).map(|(epoch, _)| epoch);
            let second = breaker.acquire();
            // Who has opened it, or has seen that, is not let through any more.
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
fn a_connector_that_pauses_is_seen_to_pause() {
    const SECOND: Duration = Duration::from_secs(1);
    explore(|| {
        let backoff = Arc::new(Pause::new(SECOND, SECOND, || 0.5));
        let now = Instant::now();
        run_concurrently(&backoff, [true, false], |pause, succeeds| if succeeds { pause.succeeded() } else { pause.failed(Instant::now()) });
        assert_eq!(backoff.is_on(now), backoff.check(now).is_err());
    });
}

#[test]
fn no_more_endpoints_are_left_out_than_may_be() {
    explore(|| {
        let ejections = Ejections::new("test");
        let slots = Arc::new([(); 2].map(|()| Seat::new(ejections.clone())));
        slots[0].ejections().limit(most(0.5, 2), slots.iter());
        run_concurrently(&slots, [0, 1], |seats, index: usize| {
            seats[index].opened();
            // Nobody else moves our own.
            assert!(!(seats[index].is_out() && seats[1 - index].is_out()));
            seats[index].closed();
            seats[index].opened();
        });
        assert_eq!(slots.iter().filter(|seat| seat.is_out()).count(), 1);
        slots.iter().for_each(Seat::closed);
        slots[1].opened();
        assert!(slots[1].is_out(), "a place was lost");
    });
}
