//! Closed, open, half-open: decides, and takes the time from its caller.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    config::{Config, Mode},
    probes::ProbeRound,
    event::{Cause, Observation, State, Transition, CallOutcome},
    window::{Counts, Window},
};
use crate::jitter::{self, RandomFn};

/// What a call is told that comes while others find out: a round of probes is seldom longer.
const PROBING_RETRY_AFTER: Duration = Duration::from_secs(1);

/// A call is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallNotPermitted {
    /// When it makes sense to come again; unknown if an operator has opened the breaker.
    pub retry_after: Option<Duration>,
}

#[derive(Debug)]
enum Phase {
    Closed,
    Open { until: Instant },
    HalfOpen(ProbeRound),
    ForcedOpen,
    Disabled,
    MetricsOnly { reported: bool },
}

/// The state machine.
///
/// Each transition begins a new epoch. Whoever is let through remembers the epoch, and a result from an earlier one is ignored: a
/// straggler from before the breaker opened says nothing about the target of now.
#[derive(Debug)]
pub struct StateMachine {
    config: Config,
    draw: RandomFn,
    phase: Phase,
    epoch: u64,
    window: Window,
    consecutive_failures: u32,
    /// How many rounds of probes failed lately: the exponent of the wait.
    backoff_level: u32,
    /// Since when the span of health runs that takes back one level.
    healthy_since: Instant,
    transition: Option<Transition>,
}

impl StateMachine {
    /// A machine in the state that `config.mode` asks for.
    pub fn new(config: Config, draw: RandomFn, now: Instant) -> Self {
        let phase = match config.mode {
            Mode::Active => Phase::Closed,
            Mode::MetricsOnly => Phase::MetricsOnly { reported: false },
            Mode::Disabled => Phase::Disabled,
            Mode::ForcedOpen => Phase::ForcedOpen,
        };
        let window = Window::new(&config, now);
        Self { config, draw, phase, epoch: 0, window, consecutive_failures: 0, backoff_level: 0, healthy_since: now, transition: None }
    }

    /// The state, as of the last call: an open breaker becomes half-open by the call that it lets through.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Closed => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen(_) => State::HalfOpen,
            Phase::ForcedOpen => State::ForcedOpen,
            Phase::Disabled => State::Disabled,
            Phase::MetricsOnly { .. } => State::MetricsOnly,
        }
    }

    /// The present epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What the window holds.
    pub fn counts(&self, now: Instant) -> Counts {
        self.window.counts(now)
    }

    /// How long it stays open; `None` in any other state.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        match self.phase {
            Phase::Open { until } => Some(until.saturating_duration_since(now)),
            _ => None,
        }
    }

    /// The change of state that the last operation made, once.
    pub fn take_transition(&mut self) -> Option<Transition> {
        self.transition.take()
    }

    /// Lets a call through, in the returned epoch, or not.
    pub fn acquire(&mut self, now: Instant) -> Result<u64, CallNotPermitted> {
        if let Phase::Open { until } = self.phase
            && now >= until
        {
            self.transition_to(Phase::HalfOpen(ProbeRound::new(now, &self.config)), Cause::OpenTimeout, now);
        }
        self.expire_probes(now);
        match &mut self.phase {
            Phase::Closed | Phase::Disabled | Phase::MetricsOnly { .. } => Ok(self.epoch),
            Phase::Open { until } => Err(CallNotPermitted { retry_after: Some(until.saturating_duration_since(now)) }),
            Phase::HalfOpen(round) => round.try_acquire(&self.config).then_some(self.epoch).ok_or(CallNotPermitted { retry_after: Some(PROBING_RETRY_AFTER) }),
            Phase::ForcedOpen => Err(CallNotPermitted { retry_after: None }),
        }
    }

    /// Takes the result of a call that was let through in `epoch`; `false` if it came too late to count.
    pub fn record(&mut self, epoch: u64, observation: Observation, now: Instant) -> bool {
        if epoch != self.epoch {
            return false;
        }
        match self.phase {
            Phase::Closed => self.record_closed(observation, now),
            Phase::HalfOpen(_) => self.record_probe(observation, now),
            Phase::MetricsOnly { reported } => self.record_disabled(observation, reported, now),
            // Nothing is let through in the first two, and nothing is recorded in the third.
            Phase::Open { .. } | Phase::ForcedOpen | Phase::Disabled => {}
        }
        true
    }

    fn record_closed(&mut self, observation: Observation, now: Instant) {
        self.decay(now);
        if let Some(cause) = self.record_in_window(observation, now) {
            self.open(cause, observation.retry_after, now);
        }
    }

    fn record_disabled(&mut self, observation: Observation, reported: bool, now: Instant) {
        if let Some(cause) = self.record_in_window(observation, now)
            && !reported
        {
            self.transition = Some(Transition { from: State::MetricsOnly, to: State::MetricsOnly, cause });
            self.phase = Phase::MetricsOnly { reported: true };
        }
    }

    /// Counts a call and tells which limit is reached by now. A success too can complete the minimum of calls.
    fn record_in_window(&mut self, observation: Observation, now: Instant) -> Option<Cause> {
        let failed = match observation.outcome {
            CallOutcome::Success => false,
            CallOutcome::Failure => true,
            CallOutcome::Throttled | CallOutcome::Neutral | CallOutcome::Cancelled => return None,
        };
        let counts = self.window.record(failed, observation.slow, now);
        self.consecutive_failures = if failed { self.consecutive_failures.saturating_add(1) } else { 0 };
        let enough = counts.total >= self.config.effective_min_calls();
        if self.config.consecutive_failures > 0 && self.consecutive_failures >= self.config.consecutive_failures {
            Some(Cause::ConsecutiveFailures)
        } else if enough && counts.reaches(counts.failed, self.config.failure_rate) {
            Some(Cause::FailureRate)
        } else if enough && counts.reaches(counts.slow, self.config.slow_rate) {
            Some(Cause::SlowRate)
        } else {
            None
        }
    }

    fn record_probe(&mut self, observation: Observation, now: Instant) {
        if let Phase::HalfOpen(round) = &mut self.phase {
            round.record(observation);
            self.try_finish_round(Cause::ProbeFailed, observation.retry_after, now);
        }
    }

    /// Probes that had no answer in time have failed; should they answer yet, it is of an epoch that is over.
    fn expire_probes(&mut self, now: Instant) {
        if let Phase::HalfOpen(round) = &mut self.phase
            && round.expire(now, &self.config)
        {
            self.epoch += 1;
            self.try_finish_round(Cause::HalfOpenTimeout, None, now);
        }
    }

    /// Goes on as soon as the outcome of the round is certain.
    fn try_finish_round(&mut self, failure: Cause, hint: Option<Duration>, now: Instant) {
        let Phase::HalfOpen(round) = &self.phase else { return };
        match round.is_recovered(&self.config) {
            None => {}
            Some(true) => self.transition_to(Phase::Closed, Cause::ProbeSucceeded, now),
            Some(false) => {
                // Not beyond the longest wait: what is not waited need not be taken back by healthy windows either.
                if self.open_time() < Duration::from_millis(self.config.max_open_ms) {
                    self.backoff_level += 1;
                }
                self.open(failure, hint, now);
            }
        }
    }

    /// One level less for each span without an opening.
    fn decay(&mut self, now: Instant) {
        let span = Duration::from_millis(self.config.window_ms.max(1));
        while self.backoff_level > 0 && now.saturating_duration_since(self.healthy_since) >= span {
            self.backoff_level -= 1;
            self.healthy_since += span;
        }
    }

    /// How long it stays open at the present level.
    fn open_time(&self) -> Duration {
        let wait = Duration::from_millis(self.config.open_ms).saturating_mul(2_u32.saturating_pow(self.backoff_level));
        wait.min(Duration::from_millis(self.config.max_open_ms))
    }

    fn open(&mut self, cause: Cause, hint: Option<Duration>, now: Instant) {
        let wait =
            jitter::jittered(self.open_time(), 0.2, self.draw).max(hint.unwrap_or_default().min(Duration::from_millis(self.config.max_retry_after_ms)));
        self.transition_to(Phase::Open { until: now + wait }, cause, now);
    }

    /// Every way into another state: a new epoch and an empty window, so that nothing of the past counts twice.
    fn transition_to(&mut self, phase: Phase, cause: Cause, now: Instant) {
        let from = self.state();
        self.phase = phase;
        self.epoch += 1;
        self.window = Window::new(&self.config, now);
        self.consecutive_failures = 0;
        self.healthy_since = now;
        self.transition = Some(Transition { from, to: self.state(), cause });
    }

    /// Opens it for `wait`, as if it had seen failures.
    pub fn open_for(&mut self, wait: Duration, now: Instant) {
        self.transition_to(Phase::Open { until: now + wait }, Cause::Manual, now);
    }

    /// Puts it into the mode an operator wants: `Active` forgets everything and closes it, any other stays until told otherwise.
    pub fn set_mode(&mut self, mode: Mode, now: Instant) {
        let phase = match mode {
            Mode::Active => {
                self.backoff_level = 0;
                Phase::Closed
            }
            Mode::MetricsOnly => Phase::MetricsOnly { reported: false },
            Mode::Disabled => Phase::Disabled,
            Mode::ForcedOpen => Phase::ForcedOpen,
        };
        let from = self.state();
        self.transition_to(phase, Cause::Manual, now);
        if self.state() == from {
            self.transition = None;
        }
    }
}

#[cfg(test)]
mod tests;
