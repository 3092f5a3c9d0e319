//! Test harness that drives a state machine by scripts; the cases are in one file per state.

mod closed;
mod half_open;
mod manual;
mod open;

use super::*;
use crate::circuit_breaker::config::WindowKind;

/// A state machine, a manual clock, and scripts of one letter per call.
struct Bench {
    machine: StateMachine,
    now: Instant,
}

/// No jitter: every open time is exact.
const NO_JITTER: RandomFn = || 0.5;

impl Bench {
    fn new(config: Config) -> Self {
        assert_eq!(config.validate(), Ok(()));
        let now = Instant::now();
        Self { machine: StateMachine::new(config, NO_JITTER, now), now }
    }

    fn advance(&mut self, millis: u64) -> &mut Self {
        self.now += Duration::from_millis(millis);
        self
    }

    /// Plays one call per letter: `S` success, `F` failure, `s` slow success, `f` slow failure, `T`
    /// throttled, `I` neutral, `C` cancelled, `x` rejected.
    fn play(&mut self, script: &str) -> State {
        for letter in script.chars() {
            let admitted = self.machine.acquire(self.now);
            if letter == 'x' {
                assert!(admitted.is_err(), "a call of {script:?} was admitted");
            } else {
                let epoch = admitted.unwrap_or_else(|_| panic!("call {letter} of {script:?} was rejected"));
                assert!(self.settle(epoch, letter));
            }
        }
        self.machine.state()
    }

    /// Records the result of a call admitted in `epoch`; returns whether it counted.
    fn settle(&mut self, epoch: u64, letter: char) -> bool {
        let verdict = match letter.to_ascii_uppercase() {
            'S' => CallOutcome::Success,
            'F' => CallOutcome::Failure,
            'T' => CallOutcome::Throttled,
            'I' => CallOutcome::Neutral,
            'C' => CallOutcome::Cancelled,
            other => panic!("unknown call letter: {other}"),
        };
        let observation = Observation { outcome: verdict, slow: letter.is_ascii_lowercase(), retry_after: None };
        self.machine.record(epoch, observation, self.now)
    }

    fn admit(&mut self) -> u64 {
        self.machine.acquire(self.now).expect("a free slot")
    }

    fn cause(&mut self) -> Option<Cause> {
        self.machine.take_transition().map(|transition| transition.cause)
    }
}

fn count(calls: u32, min_calls: u32) -> Config {
    Config { window: WindowKind::Count, window_calls: calls, min_calls, ..Config::default() }
}

fn time(seconds: u64, min_calls: u32) -> Config {
    Config { window_ms: seconds * 1_000, min_calls, ..Config::default() }
}
