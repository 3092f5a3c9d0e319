//! Circuit breaker.

use std::time::Duration;

use palisade_middleware::circuit_breaker::{CallOutcome, Cause, Config, Mode, Observation, State, StateMachine, WindowKind};
use tokio::time::Instant;

use crate::targets::input::Input;

const MODES: [Mode; 4] = [Mode::Active, Mode::MetricsOnly, Mode::Disabled, Mode::ForcedOpen];
const OUTCOMES: [CallOutcome; 5] =
    [CallOutcome::Success, CallOutcome::Failure, CallOutcome::Throttled, CallOutcome::Neutral, CallOutcome::Cancelled];
/// Share of the open time that the jitter may add.
const JITTER: f64 = 1.2;

fn config(bytes: &mut Input<'_>) -> Config {
    Config {
        window: if bytes.flag() { WindowKind::Time } else { WindowKind::Count },
        window_ms: 10 + bytes.millis() % 10_000,
        window_calls: 1 + u32::from(bytes.below(16)),
        min_calls: 1 + u32::from(bytes.below(16)),
        failure_rate: f64::from(1 + bytes.below(10)) / 10.0,
        slow_call_ms: u64::from(bytes.below(2)),
        slow_rate: f64::from(1 + bytes.below(10)) / 10.0,
        consecutive_failures: bytes.below(4).into(),
        open_ms: 1 + bytes.millis() % 5_000,
        max_open_ms: 5_000 + bytes.millis() % 60_000,
        max_retry_after_ms: bytes.millis() % 60_000,
        probes: 1 + u32::from(bytes.below(6)),
        half_open_timeout_ms: 1 + bytes.millis() % 10_000,
        ..Config::default()
    }
}

/// The machine, and what must hold after each of its steps.
struct Run {
    config: Config,
    machine: StateMachine,
    now: Instant,
    /// Epochs of the calls in flight.
    calls: Vec<u64>,
    mode: Mode,
    /// Admitted calls of the current half-open epoch whose permit was not returned.
    probes: u32,
    /// Latest end of an open time that an operator asked for.
    manual_until: Instant,
}

impl Run {
    fn step(&mut self, bytes: &mut Input<'_>) {
        let (before, epoch) = (self.machine.state(), self.machine.epoch());
        match bytes.below(8) {
            0..=2 => self.acquire(),
            3..=4 if !self.calls.is_empty() => self.record(bytes),
            5 => self.now += Duration::from_millis(bytes.millis()),
            6 => self.machine.advance(self.now),
            7 if bytes.below(8) == 0 => {
                let wait = Duration::from_millis(bytes.millis());
                self.manual_until = self.now + wait;
                self.machine.open_for(wait, self.now);
                self.mode = Mode::Active;
            }
            7 if bytes.below(8) == 0 => {
                self.mode = MODES[usize::from(bytes.below(4))];
                self.machine.set_mode(self.mode, self.now);
            }
            _ => {}
        }
        self.check(before, epoch);
    }

    fn acquire(&mut self) {
        let before = self.machine.epoch();
        let admitted = self.machine.acquire(self.now);
        if self.machine.epoch() != before {
            self.probes = 0;
        }
        match (self.machine.state(), admitted) {
            (State::Closed | State::Disabled | State::MetricsOnly, admitted) => self.calls.push(admitted.expect("admits every call")),
            (State::HalfOpen, Ok(epoch)) => {
                self.probes += 1;
                assert!(self.probes <= self.config.probes, "too many probes");
                self.calls.push(epoch);
            }
            (State::HalfOpen, Err(refusal)) => assert!(refusal.retry_after.is_some()),
            (State::Open, refusal) => {
                let wait = refusal.unwrap_err().retry_after.expect("an open breaker names its end");
                let longest = Duration::from_millis(self.config.max_open_ms).mul_f64(JITTER);
                let longest = longest.max(Duration::from_millis(self.config.max_retry_after_ms));
                assert!(!wait.is_zero() && wait <= longest.max(self.manual_until.saturating_duration_since(self.now)), "{wait:?}");
            }
            (State::ForcedOpen, refusal) => assert_eq!(refusal.unwrap_err().retry_after, None),
        }
    }

    fn record(&mut self, bytes: &mut Input<'_>) {
        let call = self.calls.swap_remove(usize::from(bytes.byte()) % self.calls.len());
        let outcome = OUTCOMES[usize::from(bytes.below(5))];
        let retry_after = bytes.flag().then(|| Duration::from_millis(bytes.millis()));
        let (epoch, state, counts) = (self.machine.epoch(), self.machine.state(), self.machine.counts(self.now));
        let is_current = self.machine.record(call, Observation { outcome, slow: bytes.flag(), retry_after }, self.now);
        assert_eq!(is_current, call == epoch, "only results of this epoch count");
        if !is_current {
            assert_eq!((self.machine.epoch(), self.machine.state(), self.machine.counts(self.now)), (epoch, state, counts));
        } else if state == State::HalfOpen && matches!(outcome, CallOutcome::Neutral | CallOutcome::Cancelled) {
            self.probes -= 1;
        }
    }

    fn check(&mut self, before: State, epoch: u64) {
        let state = self.machine.state();
        assert!(self.machine.epoch() >= epoch);
        if self.machine.epoch() != epoch && state == State::HalfOpen {
            self.probes = self.calls.iter().filter(|call| **call == self.machine.epoch()).count().try_into().unwrap();
        }
        assert_eq!(self.machine.remaining(self.now).is_some(), state == State::Open);
        match self.mode {
            Mode::Active => assert!(matches!(state, State::Closed | State::Open | State::HalfOpen)),
            Mode::MetricsOnly => assert_eq!(state, State::MetricsOnly),
            Mode::Disabled => assert_eq!(state, State::Disabled),
            Mode::ForcedOpen => assert_eq!(state, State::ForcedOpen),
        }
        let counts = self.machine.counts(self.now);
        assert!(counts.failed <= counts.total && counts.slow <= counts.total);
        if self.config.window == WindowKind::Count {
            assert!(counts.total <= self.config.window_calls);
        }
        let mut reported = before;
        while let Some(transition) = self.machine.take_transition() {
            assert_eq!(transition.from, reported);
            // An operator may also prolong the open time.
            let may_stay = if transition.cause == Cause::Manual { State::Open } else { State::MetricsOnly };
            assert!(transition.from != transition.to || transition.to == may_stay);
            reported = transition.to;
        }
        assert_eq!(reported, state, "every change of the state is reported");
    }

    /// A target that has recovered closes the breaker: after the longest open time its probes
    /// decide.
    fn recover(&mut self) {
        self.machine.set_mode(Mode::Active, self.now);
        self.machine.open_for(Duration::from_millis(1), self.now);
        self.now += Duration::from_millis(1);
        for _ in 0..self.config.probes {
            let epoch = self.machine.acquire(self.now).expect("a probe is admitted");
            let success = Observation { outcome: CallOutcome::Success, slow: false, retry_after: None };
            self.machine.record(epoch, success, self.now);
        }
        assert_eq!(self.machine.state(), State::Closed);
    }
}

/// Whatever the calls and the time do: no more probes than configured, no result of an earlier
/// epoch counts, every change is reported, no open time exceeds its bounds, and recovery is
/// noticed.
pub(crate) fn breaker(input: &[u8]) {
    let mut bytes = Input::new(input);
    let config = config(&mut bytes);
    if config.validate().is_err() {
        return;
    }
    let now = Instant::now();
    let machine = StateMachine::new(config.clone(), || 0.999, now);
    let mut run = Run { config, machine, now, calls: Vec::new(), mode: Mode::Active, probes: 0, manual_until: now };
    while !bytes.is_empty() {
        run.step(&mut bytes);
    }
    run.recover();
}
